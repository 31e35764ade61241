//go:build lab

package semantics

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// explained is what `sluice services NAME -o json` says, as far as it is looked at.
type explained struct {
	Frontends []struct {
		Address, Protocol, Kind, Policy, Vacancy, State, Why string

		Endpoints    int
		Destinations []struct {
			Address        string
			Weight, Active int
			Leaving        bool
		}
	}
	Endpoints []struct {
		Protocol, Family string
		Endpoints        []struct {
			Address, Pod, Node, Slice string
			Cluster, Local            membership
		}
	}
	HealthCheck      []struct{ Address, State, Why string }
	NoLoadBalancerIP *struct{ Reason, Message string }
}

type membership struct {
	In              bool
	Reason, Message string
}

// String is "in Ready" or "out NotReady".
func (m membership) String() string {
	if m.In {
		return "in " + m.Reason
	}
	return "out " + m.Reason
}

// sluiceServices runs `sluice services` on a node.
func (w *world) sluiceServices(n *node, args ...string) (string, error) {
	return n.Tool(w.bin, append([]string{"services"}, args...)...)
}

// explain asks a node's agent about a Service, as people do.
func (w *world) explain(t *testing.T, n *node, name string) (x explained) {
	t.Helper()
	text, err := w.sluiceServices(n, "default/"+name, "-o", "json")
	suite.Must(t, err)
	suite.Must(t, json.Unmarshal([]byte(text), &x))
	return x
}

// said is what is said of the TCP endpoints of a family, by pod: "in Ready, out
// Remote" for the lists of policy Cluster and Local.
func (x explained) said(family string) map[string][]string {
	said := map[string][]string{}
	for _, p := range x.Endpoints {
		if p.Protocol != "TCP" || p.Family != family {
			continue
		}
		for _, e := range p.Endpoints {
			said[e.Pod] = append(said[e.Pod], e.Cluster.String()+", "+e.Local.String())
		}
	}
	return said
}

// in are the endpoints that are said to be in the list of a policy.
func (x explained) in(protocol, family, policy string) (list []string) {
	for _, p := range x.Endpoints {
		for _, e := range p.Endpoints {
			in := e.Cluster.In
			if policy == "Local" {
				in = e.Local.In
			}
			if p.Protocol == protocol && p.Family == family && in {
				list = append(list, e.Address)
			}
		}
	}
	slices.Sort(list)
	return list
}

// table is what ipvsadm shows on a node: virtual servers as "TCP 10.96.0.1:80",
// with the addresses of their real servers that get new connections.
func (n *node) table(t *testing.T) map[string][]string {
	t.Helper()
	out, err := n.Tool("ipvsadm", "-Ln")
	suite.Must(t, err)
	table, at := map[string][]string{}, ""
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && slices.Contains(protocols, strings.ToLower(f[0])):
			at = f[0] + " " + f[1]
			table[at] = []string{}
		case len(f) > 0 && f[0] != "->":
			at = "" // a firewall mark's, or the heading
		case len(f) == 6 && f[0] == "->" && f[3] != "0" && at != "":
			table[at] = append(table[at], f[1])
		}
	}
	for _, list := range table {
		slices.Sort(list)
	}
	return table
}

// agrees checks that what is said to be in is what the kernel has, behind every
// frontend of a Service.
func (x explained) agrees(t *testing.T, n *node) {
	t.Helper()
	table := n.table(t)
	for _, f := range x.Frontends {
		family := "IPv4"
		if netip.MustParseAddrPort(f.Address).Addr().Is6() {
			family = "IPv6"
		}
		said := x.in(f.Protocol, family, f.Policy)
		is, there := table[f.Protocol+" "+f.Address]
		if f.State != "programmed" || len(said) != f.Endpoints || there != (f.Vacancy == "served") || there && !slices.Equal(said, is) {
			t.Errorf("%s: %s %s (policy %s) is %s (%s) and %s with %v; ipvsadm has %v", n.Name, f.Protocol, f.Address, f.Policy, f.State, f.Why, f.Vacancy, said, is)
		}
	}
}

// TestExplain: why each endpoint is in or out, on a running agent, and that the
// kernel has just those that are in.
func TestExplain(t *testing.T) {
	w := enter(t)
	t.Run("endpoints", w.testWhyEndpoints)
	t.Run("other slices", w.testWhyOtherSlices)
	t.Run("frontends", w.testWhyFrontends)
	t.Run("health check", w.testWhyHealthCheck)
	t.Run("draining", w.testWhyDraining)
	t.Run("names", w.testNames)
	t.Run("status", w.testStatus)
}

func (w *world) testWhyEndpoints(t *testing.T) {
	const ready1, remote = "in Ready, in Ready", "out Remote"
	in := func(p *topo.Host, zones ...string) endpoint { return endpoint{pod: p, zones: zones} }
	rows := []struct {
		name      string
		endpoints []endpoint
		want      map[string]string // by pod, on node1
		service   *service
	}{
		{name: "ready", endpoints: ready(w.a1, w.b1), want: map[string]string{"a1": ready1, "b1": "in Ready, " + remote}},
		{name: "not ready, gone, spared", endpoints: []endpoint{
			{pod: w.a1, unready: true}, {pod: w.a2, unready: true, terminating: true}, {pod: w.b1, terminating: true}, {pod: w.c1},
		}, want: map[string]string{
			"a1": "out NotReady, out NotReady", "a2": "out TerminatingNotServing, out TerminatingNotServing",
			"b1": "out TerminatingSpared, " + remote, "c1": "in Ready, " + remote,
		}},
		{name: "all terminating", endpoints: []endpoint{{pod: w.a1, terminating: true}, {pod: w.b1, terminating: true}}, want: map[string]string{
			"a1": "in TerminatingServing, in TerminatingServing", "b1": "in TerminatingServing, " + remote,
		}},
		{name: "terminating here alone", endpoints: []endpoint{{pod: w.a1, terminating: true}, {pod: w.b1}}, want: map[string]string{
			"a1": "out TerminatingSpared, in TerminatingServing", "b1": "in Ready, " + remote,
		}},
		{name: "zones", endpoints: []endpoint{in(w.a1, "zone-b"), in(w.b1, "zone-a")}, want: map[string]string{
			"a1": "out HintedElsewhere, in Ready", "b1": "in Hinted, " + remote,
		}},
		{name: "nodes", endpoints: []endpoint{{pod: w.a1, nodes: []string{"node1"}}, {pod: w.b1, nodes: []string{"node2"}}}, want: map[string]string{
			"a1": "in Hinted, in Ready", "b1": "out HintedElsewhere, " + remote,
		}},
		{name: "none", want: map[string]string{}},
	}
	for i := range rows {
		rows[i].service = w.serve(t, fmt.Sprintf("why-%d", i), rows[i].endpoints, externalLocal)
	}
	w.settle(t)
	for _, r := range rows {
		x := w.explain(t, w.nodes[0], r.service.object.Name)
		for _, family := range []string{"IPv4", "IPv6"} {
			said := x.said(family)
			if len(said) != len(r.want) {
				t.Errorf("%s: %v", r.name, said)
			}
			for pod, want := range r.want {
				if got := strings.Join(said[pod], "; "); got != want {
					t.Errorf("%s, %s: of %s it says %s, want %s", r.name, family, pod, got, want)
				}
			}
		}
		x.agrees(t, w.nodes[0])
		w.explain(t, w.nodes[1], r.service.object.Name).agrees(t, w.nodes[1])
	}
	text, err := w.sluiceServices(w.nodes[0], "why-1", "-o", "wide")
	suite.Must(t, err)
	t.Logf("sluice services why-1 -o wide:\n%s", text)
	for _, want := range []string{"out: not ready ", "out: terminating, and serves no more", "out: on node2, not on this node", "default/why-1-ipv4"} {
		if !strings.Contains(text, want) {
			t.Errorf("it has no %q", want)
		}
	}
}

// testWhyOtherSlices: what only slices that were made otherwise can say.
func (w *world) testWhyOtherSlices(t *testing.T) {
	s := w.serve(t, "why-slices", ready(w.b1), func(svc *corev1.Service) {
		svc.Spec.ClusterIPs = svc.Spec.ClusterIPs[:1]
		svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = svc.Spec.IPFamilies[:1], nil
		svc.Spec.ExternalIPs, svc.Status = nil, corev1.ServiceStatus{}
	})
	other := func(name string, port string, edit func(*discoveryv1.Endpoint)) *discoveryv1.EndpointSlice {
		o := s.slice(discoveryv1.AddressTypeIPv4)
		o.Name = "why-slices-" + name
		o.Ports = o.Ports[:1]
		o.Ports[0].Name = new(port)
		edit(&o.Endpoints[0])
		t.Cleanup(func() { suite.Must(t, w.manifests.Erase(o)) })
		return o
	}
	suite.Must(t, w.manifests.Write(
		other("a-twice", topo.TCP, func(e *discoveryv1.Endpoint) { e.Conditions.Ready, e.TargetRef.Name = new(false), "twice" }),
		other("b-noport", "metrics", func(e *discoveryv1.Endpoint) { e.Addresses, e.TargetRef.Name = []string{w.c1.V4.String()}, "noport" }),
		other("c-nowhere", topo.TCP, func(e *discoveryv1.Endpoint) {
			e.Addresses, e.NodeName, e.TargetRef.Name = []string{w.a1.V4.String()}, nil, "nowhere"
		}),
	))
	w.settle(t)
	x := w.explain(t, w.nodes[0], "why-slices")
	said := x.said("IPv4")
	for pod, want := range map[string]string{
		"b1": "in Ready, out Remote", "twice": "out Duplicate, out Duplicate", "noport": "out NoSuchPort, out NoSuchPort", "nowhere": "in Ready, out NodeUnknown",
	} {
		if got := strings.Join(said[pod], "; "); got != want {
			t.Errorf("of %s it says %q, want %s", pod, got, want)
		}
	}
	if got := x.said("IPv6")["b1"]; len(got) != 1 || got[0] != "out NoClusterIP, out NoClusterIP" {
		t.Errorf("of the family that the Service has not it says %q", got)
	}
	x.agrees(t, w.nodes[0])
	if x.NoLoadBalancerIP == nil || x.NoLoadBalancerIP.Reason != "NoPool" {
		t.Errorf("why it has no load-balancer IP: %+v", x.NoLoadBalancerIP)
	}
}

func (w *world) testWhyFrontends(t *testing.T) {
	first := w.serve(t, "why-first", ready(w.a1), nil)
	w.serve(t, "why-second", ready(w.a1), func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{first.object.Spec.ExternalIPs[0], w.nodes[1].V4.String(), "192.0.2.200"}
	})
	w.restartOn(t, w.nodes[:1], append(detector(), "--allow-external-ips", "198.51.100.0/24,192.168.0.0/16,2001:db8::/32")...)
	w.settle(t)
	states := map[string]string{}
	for _, f := range w.explain(t, w.nodes[0], "why-second").Frontends {
		if f.Protocol == "UDP" {
			states[f.Address] = f.State + ": " + f.Why
		}
	}
	for at, want := range map[string]string{
		first.object.Spec.ExternalIPs[0] + ":80": "withheld: ExternalIP " + first.object.Spec.ExternalIPs[0] + ":80 UDP already belongs to Service default/why-first",
		w.nodes[1].V4.String() + ":80":           "withheld: spec.externalIPs: " + w.nodes[1].V4.String() + " is an address of a node",
		"192.0.2.200:80":                         "withheld: spec.externalIPs: 192.0.2.200 is in no range that --allow-external-ips names",
	} {
		if !strings.HasPrefix(states[at], want) {
			t.Errorf("of %s it says %q, want %q", at, states[at], want)
		}
	}
}

// testWhyHealthCheck: somebody else has the port, and then no more.
func (w *world) testWhyHealthCheck(t *testing.T) {
	stop, err := w.nodes[0].Serve(topo.TCP, healthPort)
	suite.Must(t, err)
	freed := false
	t.Cleanup(func() {
		if !freed {
			suite.Must(t, stop())
		}
	})
	w.serve(t, "why-health", ready(w.a1), func(svc *corev1.Service) {
		externalLocal(svc)
		svc.Spec.HealthCheckNodePort = healthPort
	})
	w.settle(t)
	expect := func(state, why string) {
		t.Helper()
		suite.Await(t, 35*time.Second, func() error { // the loop's longest pause between two tries
			list := w.explain(t, w.nodes[0], "why-health").HealthCheck
			if len(list) != 2 || list[0].State != state || !strings.Contains(list[0].Why, why) {
				return fmt.Errorf("health checks are %+v, want %s for %q", list, state, why)
			}
			return nil
		})
	}
	expect("failing", "address already in use")
	freed = true
	suite.Must(t, stop())
	expect("programmed", "")
}

// testWhyDraining: an endpoint that has left and keeps its connection.
func (w *world) testWhyDraining(t *testing.T) {
	s := w.serve(t, "why-draining", ready(w.a1), drainedWithin("10m"))
	w.settle(t)
	h := w.hold(t, w.near, s.at(clusterIP, topo.TCP, w.near.V4, nil))
	s.scale(t, ready(w.b1)...)
	w.settle(t)
	at := netip.AddrPortFrom(w.a1.V4, podPort).String()
	leaving := func(x explained) error {
		for _, f := range x.Frontends {
			for _, d := range f.Destinations {
				if d.Address == at && d.Leaving && d.Weight == 0 && d.Active == 1 && f.Kind == clusterIP && f.State == "programmed" {
					return nil
				}
			}
		}
		return fmt.Errorf("no %s is said to be leaving: %+v", at, x.Frontends)
	}
	suite.Await(t, soon, func() error { return leaving(w.explain(t, w.nodes[0], "why-draining")) })
	text, err := w.sluiceServices(w.nodes[0], "why-draining")
	suite.Must(t, err)
	if !strings.Contains(text, " -> "+at+": leaving, with weight 0, until its connections have ended: 1 active") {
		t.Errorf("%s", text)
	}
	h.alive(t)
	suite.Must(t, h.conn.Close())
	suite.Await(t, 2*time.Minute, func() error {
		if leaving(w.explain(t, w.nodes[0], "why-draining")) == nil {
			return errors.New("the endpoint is still said to be leaving")
		}
		return nil
	})
}

// testNames: every virtual server and real server that ipvsadm shows has its name.
func (w *world) testNames(t *testing.T) {
	w.serve(t, "named", ready(w.a1, w.b1, w.c1), func(svc *corev1.Service) { externalLocal(svc); internalLocal(svc) })
	w.settle(t)
	pods := map[string]string{}
	for _, p := range []*topo.Host{w.a1, w.a2, w.b1, w.c1} {
		pods[p.V4.String()], pods[p.V6.String()] = p.Name, p.Name
	}
	for _, n := range w.nodes {
		var names struct {
			Services  map[string]string
			Endpoints map[string]struct{ Pod, Node string }
		}
		text, err := get(n.Host, "http://127.0.0.1:10249/names")
		suite.Must(t, err)
		suite.Must(t, json.Unmarshal([]byte(text), &names))
		seen := 0
		for vs, servers := range n.table(t) {
			if n.foreign(vs) {
				if name, named := names.Services[vs]; named {
					t.Errorf("%s: %s, which is another's, is named %s", n.Name, vs, name)
				}
				continue
			}
			want := "default/named:" + strings.ToLower(strings.Fields(vs)[0])
			if mark := markAt(w.marks).String(); strings.HasSuffix(vs, " "+mark) {
				want = "zz-mark/mark"
			}
			if len(servers) == 0 && names.Services[vs] == "" {
				continue // of a Service that is gone, until its connections have ended
			}
			if got := names.Services[vs]; got != want {
				t.Errorf("%s: %s is named %q, want %s", n.Name, vs, got, want)
			}
			for _, at := range servers {
				addr := netip.MustParseAddrPort(at).Addr().String()
				pod, on := names.Endpoints[addr].Pod, names.Endpoints[addr].Node
				if want := w.nodeOf(w.podAt(addr)).Name; pod != "default/"+pods[addr] || on != want {
					t.Errorf("%s: %s is named %s on %s, want %s on %s", n.Name, at, pod, on, pods[addr], want)
				}
				seen++
			}
		}
		if seen < 10 {
			t.Errorf("%s: ipvsadm has shown %d real servers only", n.Name, seen)
		}
	}
}

// foreign reports whether a virtual server was there before sluice was.
func (n *node) foreign(vs string) bool {
	at := strings.Fields(vs)[1]
	return slices.ContainsFunc(n.Before["ipvsadm"], func(line string) bool { return strings.Contains(line, " "+at+" ") })
}

// podAt is the pod that serves at an address.
func (w *world) podAt(addr string) *topo.Host {
	for _, p := range []*topo.Host{w.a1, w.a2, w.b1, w.c1} {
		if p.V4.String() == addr || p.V6.String() == addr {
			return p
		}
	}
	return nil
}

// testStatus: how the agent is, and that nobody answers when there is none.
func (w *world) testStatus(t *testing.T) {
	n := w.nodes[2]
	var text string
	suite.Await(t, 5*time.Second, func() (err error) {
		text, err = n.Tool(w.bin, "status")
		if err == nil && !strings.Contains(text, "healthy, ready, load balancers may use this node\n") {
			err = fmt.Errorf("it is not said to be well")
		}
		return err
	})
	t.Logf("sluice status:\n%s", text)
	for _, want := range []string{" on node3, serving IPv4 and IPv6\n", "\nnetfilter ", "\nipvs ", "\nvip ", "\nhealthcheck "} {
		if !strings.Contains(text, want) {
			t.Errorf("it has no %q", want)
		}
	}
	for what, args := range map[string][]string{
		"nobody answers":    {"status", "--agent", "127.0.0.1:1"},
		"no such Service":   {"services", "default/none"},
		"nobody lists them": {"services", "--agent", "127.0.0.1:1"},
	} {
		_, err := n.Tool(w.bin, args...)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
			t.Errorf("%s: %v, want exit code 1", what, err)
		}
	}
}
