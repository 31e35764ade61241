package ipvsadm

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.dev/sluice/ipvs"
)

// What stands here are the options that ipvsadm has not.

// filter says which connections to show: those that all of its parts take. A
// part that is empty takes all.
type filter struct {
	source, virtual, destination endpoint
	states                       []string // in capitals
}

// endpoint is a range of addresses, and perhaps one port.
type endpoint struct {
	prefix  netip.Prefix
	port    uint16
	hasPort bool
}

func (f filter) takes(c ipvs.Connection) bool {
	return f.source.takes(c.Source) && f.virtual.takes(c.Virtual) && f.destination.takes(c.Destination) &&
		(len(f.states) == 0 || slices.Contains(f.states, c.State))
}

func (e endpoint) takes(a netip.AddrPort) bool {
	return (!e.prefix.IsValid() || e.prefix.Contains(a.Addr())) && (!e.hasPort || e.port == a.Port())
}

// parseEndpoint reads "10.0.0.0/8", "10.0.0.1", "10.0.0.1:80" or
// "[fd00::1]:80".
func parseEndpoint(text string) (endpoint, bool) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return endpoint{prefix: prefix.Masked()}, true
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return endpoint{netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), a.Port(), true}, a.Addr().Zone() == ""
	}
	a, err := netip.ParseAddr(text)
	return endpoint{prefix: netip.PrefixFrom(a, a.BitLen())}, err == nil && a.Zone() == ""
}

func (p *parsing) filter(g *given) error {
	e, ok := parseEndpoint(g.value)
	if !ok {
		return fail("--%s `%s': use an address, a range or an address and port, such as 10.0.0.1, 10.0.0.0/8 or [fd00::1]:80", g.long, g.value)
	}
	switch g.mark {
	case source:
		p.show.filter.source = e
	case virtual:
		p.show.filter.virtual = e
	default:
		p.show.filter.destination = e
	}
	return nil
}

func (p *parsing) state(g *given) error {
	p.show.filter.states = strings.Split(strings.ToUpper(g.value), ",")
	return nil
}

func (p *parsing) limit(g *given) error {
	n, err := strconv.ParseUint(g.value, 10, 64)
	if err != nil {
		return fail("--limit `%s': use a number of connections; 0 is all", g.value)
	}
	p.show.limit = n
	return nil
}

func (p *parsing) agent(g *given) error {
	p.show.agent = g.value
	return nil
}

// watch reads seconds, of which there may be a fraction.
func (p *parsing) watch(g *given) error {
	p.show.every = defaultWatch
	if !g.hasValue {
		return nil
	}
	seconds, err := strconv.ParseFloat(g.value, 64)
	if err != nil || seconds < 0.1 || seconds > 86400 {
		return fail("--watch `%s': use seconds, at least 0.1", g.value)
	}
	p.show.every = time.Duration(seconds * float64(time.Second))
	return nil
}

// The control sequences of a terminal.
const (
	clearScreen = "\x1b[H\x1b[2J"
	separator   = "\n"
)

// watch shows a listing again and again until ctx ends, which is no failure.
func (r *run) watch(ctx context.Context, every time.Duration, show func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		switch {
		case r.Terminal:
			r.out.WriteString(clearScreen) //nolint:errcheck // the writer keeps its error
		case !first:
			r.out.WriteString(separator) //nolint:errcheck // the writer keeps its error
		}
		if err := show(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if err := r.out.Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Identities say whose the entries of the table are. Keys are a virtual server
// as "TCP 10.96.0.1:443", and a real server as "10.244.1.2:8080" or its address
// alone.
type Identities struct {
	Services  map[string]string `json:"services"` // namespace/name:port
	Endpoints map[string]Pod    `json:"endpoints"`
}

// Pod is what stands behind a real server; its parts may be missing.
type Pod struct {
	Pod  string `json:"pod,omitempty"` // namespace/name
	Node string `json:"node,omitempty"`
}

// VirtualServer implements ipvs.Notes.
func (i *Identities) VirtualServer(vs ipvs.VirtualServer) string { return i.Services[vs.String()] }

// RealServer implements ipvs.Notes: "shop/web-0 (node1)".
func (i *Identities) RealServer(a netip.AddrPort) string {
	pod := i.pod(a)
	switch {
	case pod.Node == "":
		return pod.Pod
	case pod.Pod == "":
		return "(" + pod.Node + ")"
	}
	return pod.Pod + " (" + pod.Node + ")"
}

func (i *Identities) pod(a netip.AddrPort) Pod {
	if i == nil {
		return Pod{}
	}
	if pod, known := i.Endpoints[a.String()]; known {
		return pod
	}
	return i.Endpoints[a.Addr().String()]
}

func (i *Identities) service(vs ipvs.VirtualServer) string {
	if i == nil {
		return ""
	}
	return i.Services[vs.String()]
}

// connection is "shop/web:http -> shop/web-0 (node1)", as far as it is known.
func (i *Identities) connection(c ipvs.Connection) string {
	service, pod := i.service(c.VirtualServer()), i.RealServer(c.Destination)
	if pod == "" {
		return service
	}
	return strings.TrimLeft(service+" -> "+pod, " ")
}

// notes asks the agent whose the entries are, if --names wants to know; nil:
// it does not.
func (r *run) notes(ctx context.Context, p *parsing) (*Identities, error) {
	if !p.marks.has(names) {
		if p.marks.has(agent) {
			return nil, fail("The option '%s' needs the '%s' option in the '%s' command", agent, names, p.command)
		}
		return nil, nil //nolint:nilnil // no notes were asked for
	}
	i, err := r.System.Ask(ctx, p.show.agent)
	if err != nil {
		return nil, ending{exitListing, "--names: " + err.Error()}
	}
	return &i, nil
}
