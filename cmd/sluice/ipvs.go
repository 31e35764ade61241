package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvsadm"
)

// asIPVSADM is the name under which this binary is ipvsadm.
const asIPVSADM = "ipvsadm"

// calledAsIPVSADM says that the binary was called by that name.
func calledAsIPVSADM() bool { return filepath.Base(os.Args[0]) == asIPVSADM }

// ipvsCommand is ipvsadm's command line, whose parsing is its own.
func ipvsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ipvs [IPVSADM-OPTION]...",
		Short: "List the kernel's virtual servers and connections, exactly as ipvsadm does",
		Long: "List the kernel's virtual servers, real servers and connections. Options, output, error texts and exit codes are\n" +
			"those of ipvsadm 1.31; `sluice ipvs -h` lists them. The same binary called as ipvsadm (a link will do) takes its place.\n" +
			"The whole table is shown, not only what Sluice made. Numbers are shown as numbers unless --resolve asks for names;\n" +
			"called as ipvsadm it is the reverse, and -n asks for numbers.\n\n" +
			"  -L, -l      list the table, or one virtual server: -t|-u|--sctp-service HOST:PORT, -f MARK [-6]\n" +
			"     columns: --stats, --rate (both with --exact), --thresholds, --persistent-conn, --tun-info; order: --nosort\n" +
			"     else:    -c for connections, --timeout, --daemon\n" +
			"  -S          write the table as command lines; with --complete also thresholds, which ipvsadm leaves out\n" +
			"  -R          add to the table what -S wrote, from stdin; never clears it. Refused where an agent serves the node,\n" +
			"              unless --force is given\n" +
			"  -h, -v      ipvsadm's help and version\n\n" +
			"What else changes the table is refused, with exit code 2: Services decide what is in it.\n\n" +
			"Beyond ipvsadm, with -L:\n" +
			"  --names                  add which Service a virtual server is, and which pod on which node a real server;\n" +
			"                           asks the agent of this node, or the one at --agent HOST:PORT\n" +
			"  --json                   write JSON, with counters of 64 bits\n" +
			"  --watch[=SECONDS]        show it again every 2 seconds, or as often as asked for\n" +
			"and with -L -c, which never has more than one connection in memory:\n" +
			"  --source WHERE, --virtual WHERE, --destination WHERE\n" +
			"                           only connections from, through or to an address, a range (10.0.0.0/8), or an address and\n" +
			"                           port ([fd00::1]:80)\n" +
			"  --state STATE[,STATE]    only connections in one of these states\n" +
			"  --limit NUMBER           at most so many, with a note on stderr if there are more\n\n" +
			"Exit codes: 0; 1 what is asked for is not there or could not be read; 2 options that do not go together, or refused;\n" +
			"255 the kernel has refused it, or an argument that is no option.",
		Example: "  sluice ipvs -L -n\n  sluice ipvs -Ln --stats --exact\n  sluice ipvs -L --names\n  sluice ipvs -L -t 10.96.0.1:443 --json\n" +
			"  sluice ipvs -L --rate --watch\n  sluice ipvs -L -c --destination 10.244.1.0/24 --state ESTABLISHED --limit 20\n" +
			"  sluice ipvs -S > saved",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && args[0] == "--help" {
				return cmd.Help()
			}
			p := ipvsProgram(cmd.CommandPath())
			p.Numeric = true
			if code := p.Run(cmd.Context(), args); code != 0 {
				return exitError{code: code}
			}
			return nil
		},
	}
}

// ipvsProgram is ipvsadm on this machine, under the name that it was called by.
func ipvsProgram(name string) ipvsadm.Program {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return ipvsadm.Program{
		Name: name, Version: version, Terminal: err == nil,
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		System: ipvsadm.System{
			Open: func(ctx context.Context) (ipvsadm.Kernel, error) {
				h, err := ipvs.Open(ctx)
				if err != nil {
					return nil, err // and not a handle that is nil
				}
				return h, nil
			},
			Connections: func() (io.ReadCloser, error) { return os.Open("/proc/net/ip_vs_conn") },
			Names:       func(ctx context.Context) (ipvsadm.Names, error) { return ipvs.NewSystemNames(ctx) },
			Ask:         askIdentities,
			Served:      servedDevice,
		},
	}
}

// askIdentities asks an agent whose virtual servers and real servers are.
func askIdentities(ctx context.Context, at string) (who ipvsadm.Identities, err error) {
	if at == "" {
		at = defaultAgent
	}
	if err := askAgent(ctx, at, "/names", &who); err != nil {
		return who, fmt.Errorf("cannot ask whose the entries are: %w", err)
	}
	return who, nil
}

// servedDevice is the device that an agent has, or had, its addresses on.
func servedDevice() string {
	if _, err := net.InterfaceByName(defaultDevice); err != nil {
		return ""
	}
	return defaultDevice
}
