package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/status"
)

// asking is how a running agent is asked, and how its answer is shown.
type asking struct {
	agent  string
	output string
}

// bgpCommand shows what a running agent tells routers.
func bgpCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "bgp",
		Short: "Show this node's BGP sessions and routes",
		Long: "Show the BGP sessions of the agent that runs on this node, and which routes it tells to whom and why.\n" +
			"Nothing can be changed here: BGPPeer, BGPAdvertisement and Services decide.",
		Example: "  sluice bgp peers\n  sluice bgp routes default/web",
	}
	f := cmd.PersistentFlags()
	agentFlag(f, &a.agent)
	f.StringVarP(&a.output, "output", "o", outputTable, "wide for more columns, json for what /bgp/peers or /bgp/routes answer")
	cmd.AddCommand(bgpPeersCommand(&a), bgpRoutesCommand(&a))
	return cmd
}

func bgpPeersCommand(a *asking) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "Show the sessions with routers",
		Long: "Show the sessions with routers, one line each: state, since when, how often a session broke off since the\n" +
			"agent's start, how many routes the router has been told, and why there is no session.\n" +
			"A BGPPeer of which something is wrong has the state none. Below the table stands what else is wrong.\n\n" +
			"  PEER  ADDRESS        ASN    STATE        FOR   LOST  TOLD  REASON\n" +
			"  tor1  192.0.2.1:179  64512  established  3d4h  0     12    -\n" +
			"  tor2  192.0.2.2:179  64512  active       12s   2     0     connection refused: nothing listens on 192.0.2.2:179, or not for this node",
		Example: "  sluice bgp peers\n  sluice bgp peers -o json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.peers(cmd) },
	}
}

func bgpRoutesCommand(a *asking) *cobra.Command {
	var peer string
	cmd := &cobra.Command{
		Use:   "routes [ADDRESS | PREFIX | NAMESPACE/SERVICE]...",
		Short: "Show which load-balancer addresses are told to which router, and why",
		Long: "Show which load-balancer addresses are told to which router, one line for each, with the reason:\n" +
			"told (the router has the route), waiting (it will when the session is established) or withheld.\n" +
			"Arguments choose addresses, those in a prefix, and those of a Service; without any all are shown.\n\n" +
			"  ADDRESS       PREFIX           PEER  STATE     SERVICES     REASON\n" +
			"  198.51.100.1  198.51.100.1/32  tor1  told      default/web  default/web has endpoints\n" +
			"  198.51.100.2  198.51.100.2/32  tor1  withheld  default/api  no ready endpoint on this node (externalTrafficPolicy: Local)",
		Example: "  sluice bgp routes\n  sluice bgp routes 198.51.100.1\n  sluice bgp routes 198.51.100.0/24 --peer tor1\n" +
			"  sluice bgp routes default/web -o wide",
		RunE: func(cmd *cobra.Command, args []string) error { return a.routes(cmd, args, peer) },
	}
	cmd.Flags().StringVar(&peer, "peer", "", "show only what concerns this BGPPeer")
	return cmd
}

func (a asking) peers(cmd *cobra.Command) error {
	var list status.PeerList
	if err := a.ask(cmd.Context(), "/bgp/peers", &list); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case a.output == outputJSON:
		return writeJSON(out, list)
	case len(list.Peers)+len(list.Problems) == 0:
		fmt.Fprintln(cmd.ErrOrStderr(), "no BGPPeer is for this node")
	default:
		status.WritePeers(out, list, time.Now(), a.output == outputWide)
	}
	return nil
}

func (a asking) routes(cmd *cobra.Command, args []string, peer string) error {
	chosen, err := choose(args)
	if err != nil {
		return err
	}
	var list status.RouteList
	if err := a.ask(cmd.Context(), "/bgp/routes", &list); err != nil {
		return err
	}
	all := len(list.Routes)
	list.Routes = slices.DeleteFunc(list.Routes, func(r status.Route) bool {
		return peer != "" && r.Peer != peer && r.Peer != "" || !slices.ContainsFunc(chosen, func(c choice) bool { return c(r) })
	})
	out := cmd.OutOrStdout()
	switch {
	case len(list.Routes) == 0 && all > 0:
		return fmt.Errorf("none of the %d routes is %s; `sluice bgp routes` shows them all, and `sluice bgp peers` the peers' names", all, wanted(args, peer))
	case a.output == outputJSON:
		return writeJSON(out, list)
	case all == 0:
		fmt.Fprintln(cmd.ErrOrStderr(), "no Service has a load-balancer address that this node knows of")
	default:
		status.WriteRoutes(out, list, a.output == outputWide)
	}
	return nil
}

// wanted says what was looked for and not found.
func wanted(args []string, peer string) string {
	what := "of " + strings.Join(args, " or ")
	switch {
	case len(args) == 0:
		return "for the peer " + peer
	case peer == "":
		return what
	}
	return what + " for the peer " + peer
}

// choice reports whether a route is one that was asked for.
type choice func(status.Route) bool

// choose reads arguments; none choose everything.
func choose(args []string) (list []choice, err error) {
	if len(args) == 0 {
		return []choice{func(status.Route) bool { return true }}, nil
	}
	for _, arg := range args {
		c, err := chooseOne(arg)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func chooseOne(arg string) (choice, error) {
	if addr, err := netip.ParseAddr(arg); err == nil {
		return func(r status.Route) bool { return r.Address == addr.Unmap() }, nil
	}
	if p, err := netip.ParsePrefix(arg); err == nil {
		return func(r status.Route) bool { return p.Contains(r.Address) }, nil
	}
	namespace, name, two := strings.Cut(arg, "/")
	if !two || name == "" || strings.Contains(name, "/") || namespace == "" || strings.ContainsAny(namespace, ".:") {
		return nil, fmt.Errorf("%q is no address, prefix or Service; use for example 198.51.100.1, 198.51.100.0/24 or default/web", arg)
	}
	return func(r status.Route) bool { return slices.Contains(r.Services, arg) }, nil
}

// ask fetches a list from the running agent.
func (a asking) ask(ctx context.Context, path string, list any) error {
	if o := a.output; o != outputTable && o != outputWide && o != outputJSON {
		return fmt.Errorf("--output %q: use wide or json, or leave it out", o)
	}
	return askAgent(ctx, a.agent, path, list)
}
