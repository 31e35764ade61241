// Command sluice is the node agent: it turns Services into IPVS virtual
// servers, and shows and removes what it made. `sluice --help` lists the
// commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	if calledAsIPVSADM() {
		os.Exit(ipvsProgram(os.Args[0]).Run(ctx, os.Args[1:])) //nolint:gocritic // nothing is left to be undone
	}
	if err := root().ExecuteContext(ctx); err != nil {
		os.Exit(complain(os.Stderr, err)) //nolint:gocritic // nothing is left to be undone
	}
}

// exitError is how a command ends that has a code of its own. Others end with 1.
type exitError struct {
	code int
	err  error // nil: all has been said
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// complain says why a command has failed, and returns the code to exit with.
func complain(w io.Writer, err error) int {
	end, has := errors.AsType[exitError](err)
	if !has {
		end = exitError{1, err}
	}
	if end.err != nil {
		fmt.Fprintln(w, "sluice:", end.err)
	}
	return end.code
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
	cmd.AddCommand(runCommand(), controllerCommand(), statusCommand(), servicesCommand(), ipvsCommand(), bgpCommand(), policyCommand(), cleanupCommand(), versionCommand())
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
