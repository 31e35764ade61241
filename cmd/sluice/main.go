// Command sluice is the node agent: it turns Services into IPVS virtual
// servers, and shows and removes what it made. `sluice --help` lists the
// commands.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sluice:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sluice",
		Short: "Kubernetes Services as IPVS virtual servers",
		Long: "Sluice turns Kubernetes Services into IPVS virtual servers on this node, in the place of kube-proxy.\n" +
			"It reads an API server, or a directory of the same objects as YAML.",
		Example: "  sluice run --kubeconfig /etc/kubernetes/proxy.conf\n" +
			"  sluice run --manifests ./manifests --hostname-override node1\n" +
			"  sluice ipvs -L -n",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(runCommand(), controllerCommand(), ipvsCommand(), bgpCommand(), cleanupCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sluice version",
		Args:    cobra.NoArgs,
		Run:     func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "sluice", version) },
	}
}
