package status

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteServices writes Services as a table, and below it what is wrong with them.
// Wide adds their policies and age, and names every address and port.
func WriteServices(w io.Writer, list ServiceList, now time.Time, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	header, shown := "SERVICE\tTYPE\tCLUSTER IP\tEXTERNAL IP\tPORTS\tENDPOINTS\tSTATE", shownServices
	if wide {
		header += "\tEXTERNAL POLICY\tINTERNAL POLICY\tAGE"
	}
	fmt.Fprintln(t, header)
	for _, s := range list.Services {
		if wide {
			shown = len(s.ClusterIPs) + len(s.ExternalIPs) + len(s.LoadBalancerIPs) + len(s.Ports)
		}
		fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\t%s\t%d of %d\t%s", s.Namespace, s.Name, s.Type, few(s.ClusterIPs, shown), s.outside(shown),
			few(s.Ports, shown), s.Used, s.Known, s.State)
		if wide {
			fmt.Fprintf(t, "\t%s\t%s\t%s", s.External, s.Internal, age(s.Created, now))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
	for _, s := range list.Services {
		s.writeTrouble(w, fmt.Sprintf("%s/%s: ", s.Namespace, s.Name))
	}
}

// writeTrouble writes what is wrong with a Service, a line each.
func (s Service) writeTrouble(w io.Writer, prefix string) {
	for _, p := range s.Problems {
		fmt.Fprintf(w, "%s%s: %s\n", prefix, p.Reason, p.Message)
	}
	if r := s.NoLoadBalancerIP; r != nil {
		fmt.Fprintf(w, "%sno load-balancer IP: %s\n", prefix, r.Message)
	}
}

// outside are the addresses that clients outside of the cluster use.
func (s Service) outside(shown int) string {
	if list := slices.Concat(s.LoadBalancerIPs, s.ExternalIPs); len(list) > 0 {
		return few(list, shown)
	}
	if s.NoLoadBalancerIP != nil {
		return "<pending>"
	}
	return "-"
}

// few are some of several things, and how many others there are.
func few[T fmt.Stringer](list []T, shown int) string {
	var names []string
	for _, x := range list {
		names = append(names, x.String())
	}
	return services(names, max(shown, 1))
}

// String is "80:30080/TCP", as kubectl has it.
func (p ServicePort) String() string {
	if p.NodePort != 0 {
		return fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
	}
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}

// WriteService writes all that is known of one Service: its frontends, why each
// endpoint is in or out, its health checks and routes. Wide adds what the kernel
// counts, and what EndpointSlices say.
func WriteService(w io.Writer, d ServiceDetail, wide bool) {
	fmt.Fprintf(w, "%s/%s, %s, on %s\n", d.Namespace, d.Name, d.Type, d.Node)
	fmt.Fprintf(w, "traffic policy: external %s, internal %s", d.External, d.Internal)
	if d.Affinity != "" {
		fmt.Fprintf(w, "; a client keeps its endpoint for %s", d.Affinity)
	}
	if d.Scheduler != "" {
		fmt.Fprintf(w, "; scheduler %s", d.Scheduler)
	}
	fmt.Fprintln(w)
	rest := d.Service
	rest.Problems = slices.DeleteFunc(slices.Clone(rest.Problems), d.said)
	rest.writeTrouble(w, "")
	if d.Unread != "" {
		fmt.Fprintln(w, d.Unread)
	}
	fmt.Fprintln(w)
	d.writeFrontends(w, wide)
	fmt.Fprintln(w)
	d.writeEndpoints(w, wide)
	d.writeHealth(w)
	if len(d.Routes) > 0 {
		fmt.Fprintf(w, "\nroutes: %s\n", d.told())
		WriteRoutes(w, RouteList{d.Routes}, wide)
	}
}

// said reports whether a problem is what keeps a frontend or health check from being
// there, which stands beside it.
func (d ServiceDetail) said(p Problem) bool {
	return slices.ContainsFunc(d.Frontends, func(f Frontend) bool { return f.Why == p.Message }) ||
		slices.ContainsFunc(d.Health, func(h HealthPort) bool { return h.Why == p.Message })
}

func (d ServiceDetail) writeFrontends(w io.Writer, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	more := ""
	if wide {
		more = "SOURCE RANGES\tACTIVE\tINACTIVE\t"
	}
	fmt.Fprintf(t, "FRONTEND\tKIND\tPORT\tPOLICY\tENDPOINTS\tSTATE\t%sREASON\n", more)
	for _, f := range d.Frontends {
		if wide {
			more = f.wide()
		}
		fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\t%s\t%s\t%s%s\n", f.Protocol, f.Address, f.Kind, cmp.Or(f.Port, "-"), f.Policy,
			f.endpoints(), f.State, more, cmp.Or(f.Why, "-"))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
	for _, f := range d.Frontends {
		for _, to := range f.Destinations {
			if to.Leaving {
				fmt.Fprintf(w, "%s %s -> %s: leaving, with weight %d, until its connections have ended: %d active, %d others\n",
					f.Protocol, f.Address, to.Address, to.Weight, to.Active, to.Inactive)
			}
		}
	}
}

// endpoints are how many there are and, with none, what becomes of connections.
func (f Frontend) endpoints() string {
	switch f.Vacancy {
	case "":
		return "-"
	case VacancyServed:
		return fmt.Sprint(f.Endpoints)
	}
	return fmt.Sprintf("%d (%s)", f.Endpoints, f.Vacancy)
}

// wide are a frontend's wide columns.
func (f Frontend) wide() string {
	ranges := few(f.SourceRanges, len(f.SourceRanges))
	if f.Closed {
		ranges = "nobody"
	}
	var active, inactive uint64
	for _, to := range f.Destinations {
		active, inactive = active+uint64(to.Active), inactive+uint64(to.Inactive)
	}
	return fmt.Sprintf("%s\t%d\t%d\t", ranges, active, inactive)
}

// writeEndpoints writes each endpoint once for each port. The list of policy
// Local shows where a frontend uses it.
func (d ServiceDetail) writeEndpoints(w io.Writer, wide bool) {
	local := slices.ContainsFunc(d.Frontends, func(f Frontend) bool { return f.Policy == "Local" })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "ENDPOINT\tPORT\tPOD\tNODE\t")
	if wide {
		fmt.Fprint(t, "ZONE\tCONDITIONS\tSLICE\tWEIGHT\tACTIVE\tINACTIVE\t")
	}
	fmt.Fprint(t, "CLUSTER")
	if local {
		fmt.Fprint(t, "\tLOCAL")
	}
	fmt.Fprintln(t)
	for _, p := range d.Endpoints {
		for _, e := range p.Endpoints {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", e.Address, cmp.Or(p.Name, "-"), cmp.Or(e.Pod, "-"), cmp.Or(e.Node, "-"))
			if wide {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t", cmp.Or(e.Zone, "-"), e.Conditions, e.Slice, d.counts(p, e.Address))
			}
			fmt.Fprint(t, e.Cluster)
			if local {
				fmt.Fprintf(t, "\t%s", e.Local)
			}
			fmt.Fprintln(t)
		}
		if len(p.Endpoints) == 0 {
			fmt.Fprintf(t, "none\t%s\t-\t-\t", cmp.Or(p.Name, "-"))
			if wide {
				fmt.Fprint(t, strings.Repeat("-\t", 6))
			}
			fmt.Fprintf(t, "no EndpointSlice of %s has any\n", p.Family)
		}
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
}

// counts are the weight and connections of an endpoint behind all frontends of a
// port, as wide columns.
func (d ServiceDetail) counts(p PortEndpoints, at string) string {
	var weight uint32
	var active, inactive uint64
	there := false
	for _, f := range d.Frontends {
		if f.Port != p.Name || f.Protocol != p.Protocol {
			continue
		}
		for _, to := range f.Destinations {
			if to.Address.String() == at {
				there, weight = true, max(weight, to.Weight)
				active, inactive = active+uint64(to.Active), inactive+uint64(to.Inactive)
			}
		}
	}
	if !there {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%d\t%d\t%d", weight, active, inactive)
}

// String is "in: ready" or "out: not ready".
func (m Membership) String() string {
	if m.In {
		return "in: " + m.Message
	}
	return "out: " + m.Message
}

// String is the conditions that are true.
func (c Conditions) String() string {
	var list []string
	for _, x := range []struct {
		is   bool
		name string
	}{{c.Ready, "ready"}, {c.Serving, "serving"}, {c.Terminating, "terminating"}} {
		if x.is {
			list = append(list, x.name)
		}
	}
	return cmp.Or(strings.Join(list, ","), "none")
}

func (d ServiceDetail) writeHealth(w io.Writer) {
	if len(d.Health) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HEALTH CHECK\tREADY HERE\tSTATE\tREASON")
	for _, h := range d.Health {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", h.Address, h.Endpoints, h.State, cmp.Or(h.Why, "-"))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
}

// told says how many peers have been told how many addresses.
func (d ServiceDetail) told() string {
	type count struct{ told, of int }
	counts := map[netip.Addr]count{}
	var addrs []netip.Addr
	for _, r := range d.Routes {
		c, known := counts[r.Address]
		if !known {
			addrs = append(addrs, r.Address)
		}
		if r.Peer != "" {
			c.of++
		}
		if r.State == RouteTold {
			c.told++
		}
		counts[r.Address] = c
	}
	var parts []string
	for _, a := range addrs {
		parts = append(parts, fmt.Sprintf("%s told to %d of %d peers", a, counts[a].told, counts[a].of))
	}
	return strings.Join(parts, ", ")
}
