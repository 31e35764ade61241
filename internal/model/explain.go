package model

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Explanation is what one Service means on this node, and why: all that it asks
// for, also what it does not get, and every endpoint that was told of, also
// those that get no traffic. As a View it depends on the facts alone.
type Explanation struct {
	Service   Service
	Frontends []ExplainedFrontend // as Resolve has them; then those that are refused
	Ports     []ExplainedPort     // as the Service has them, IPv4 before IPv6
	Health    []ExplainedHealth
	Problems  []Problem
	// Unbalanced says why a Service that asks for load-balancer addresses has
	// none that is served here; the zero Reason: it has, or does not ask.
	Unbalanced Reason
}

// Reason is why something is as it is: a name for programs and a sentence for
// people, who may get another one with another version.
type Reason struct{ Code, Text string }

// ExplainedFrontend is an address, port and protocol that a Service asks for.
type ExplainedFrontend struct {
	Frontend
	// Withheld says why the Service does not answer there; the zero Reason: it
	// does, if only to refuse connections.
	Withheld Reason
}

// ExplainedHealth is where the Service's health check answers or, for the reason
// that is given, does not.
type ExplainedHealth struct {
	HealthCheck
	Withheld Reason
}

// ExplainedPort is one port of a Service in one family, with all endpoints of
// the Service in that family.
type ExplainedPort struct {
	ServicePort
	Family    Family
	Endpoints []ExplainedEndpoint // by address; of one address that which counts first
}

// ExplainedEndpoint is what one EndpointSlice says of one endpoint, and what
// becomes of it.
type ExplainedEndpoint struct {
	Endpoint
	At    netip.AddrPort // Addr and the port it serves; port 0: it does not serve this one
	Slice Name
	Here  bool // on this node
	// Cluster and Local are whether it is in the list of the policy. Which of
	// them matters a frontend says.
	Cluster, Local Membership
}

// Membership is whether an endpoint is in a list, and why it is or is not.
type Membership struct {
	In bool
	Reason
}

// The codes of a Membership that is not In for other reasons than a verdict.
const (
	codeNoClusterIP = "NoClusterIP"
	codeNoSuchPort  = "NoSuchPort"
	codeDuplicate   = "Duplicate"
)

// codeNotAllTold is the Reason of what waits for sources.
const codeNotAllTold = "NotAllTold"

// Explain says what one Service means on this node and why; ok is false when no
// such Service was told of. It reads the store and changes nothing, and what it
// returns shares no memory with it that changes.
func Explain(s *Store, name Name) (x Explanation, ok bool) {
	svc, ok := s.services[name]
	if !ok {
		return Explanation{}, false
	}
	x = Explanation{Service: svc, Problems: Resolve(s, name).Problems, Unbalanced: s.unbalanced(svc)}
	x.Ports = s.explainPorts(svc)
	x.Frontends = s.explainFrontends(svc)
	for _, h := range s.health(svc) {
		x.Health = append(x.Health, ExplainedHealth{h, s.lost(svc, "healthCheckNodePort", h.key())})
	}
	return x, true
}

// explainFrontends are the frontends that a Service asks for.
func (s *Store) explainFrontends(svc Service) (list []ExplainedFrontend) {
	frontends, refused := s.frontends(svc)
	chosen := map[endpointsKey]endpoints{}
	for _, f := range frontends {
		k := endpointsKey{f.PortName, f.Protocol, FamilyOf(f.Addr.Addr())}
		if _, done := chosen[k]; !done {
			chosen[k] = choose(s.candidates(svc.Name, k), s.place())
		}
		f.Cluster, f.Local = chosen[k].cluster, chosen[k].local
		x := ExplainedFrontend{Frontend: f, Withheld: s.lost(svc, f.Kind.String(), f.FrontendKey)}
		if x.Withheld == (Reason{}) && s.partial && f.Vacancy() != Served {
			x.Withheld = Reason{codeNotAllTold, "not every source has told all it knows, and the frontend may have endpoints: it stays as a former run left it"}
		}
		list = append(list, x)
	}
	for _, r := range refused {
		for _, p := range svc.Ports {
			f := Frontend{FrontendKey: FrontendKey{netip.AddrPortFrom(r.addr, p.Port), p.Protocol}, Kind: r.kind, PortName: p.Name}
			f.OnlyLocal = svc.ExternalLocal
			if r.kind == ClusterIP {
				f.OnlyLocal = svc.InternalLocal
			}
			list = append(list, ExplainedFrontend{Frontend: f, Withheld: Reason{r.problem.Reason, r.problem.Message}})
		}
	}
	return list
}

// lost says that another Service has what this one asks for.
func (s *Store) lost(svc Service, what string, f FrontendKey) Reason {
	winner := s.winner(f)
	if winner == svc.Name {
		return Reason{}
	}
	p := contested(svc, what, f, winner)
	return Reason{p.Reason, p.Message}
}

func (s *Store) place() place { return place{s.opts.NodeName, s.here.zone} }

// explainPorts are the endpoints of each port in each family that the Service has
// cluster IPs or endpoints in.
func (s *Store) explainPorts(svc Service) (list []ExplainedPort) {
	told := map[Family]bool{}
	for _, slice := range s.slices[svc.Name] {
		told[slice.Family] = told[slice.Family] || len(slice.Endpoints) > 0
	}
	for _, p := range svc.Ports {
		for _, f := range []Family{IPv4, IPv6} {
			served := slices.ContainsFunc(svc.ClusterIPs, func(a netip.Addr) bool { return FamilyOf(a) == f })
			if served || told[f] {
				list = append(list, ExplainedPort{ServicePort: p, Family: f, Endpoints: s.explainEndpoints(svc.Name, p, f, served)})
			}
		}
	}
	return list
}

// explainEndpoints says of every record of one family what becomes of it.
func (s *Store) explainEndpoints(name Name, p ServicePort, f Family, served bool) (list []ExplainedEndpoint) {
	k := endpointsKey{p.Name, p.Protocol, f}
	best := s.candidates(name, k)
	said := judge(best, s.place())
	reasons := reasoner{all: best, at: s.place()}
	used := make([]bool, len(best))
	for c, of := range s.records(name, k) {
		i, _ := slices.BinarySearchFunc(best, c.addr, func(b candidate, a netip.AddrPort) int { return b.addr.Compare(a) })
		x := ExplainedEndpoint{Endpoint: c.Endpoint, At: c.addr, Slice: of, Here: c.local}
		switch {
		case !served:
			x.out(codeNoClusterIP, fmt.Sprintf("the Service has no %s cluster IP", f))
		case used[i] || c.rank() != best[i].rank():
			x.out(codeDuplicate, duplicate(c, best[i]))
		default:
			used[i] = true
			x.Cluster, x.Local = reasons.cluster(c, said[i].cluster), reasons.local(c, said[i].local)
		}
		list = append(list, x)
	}
	for e, of := range s.without(name, k) {
		x := ExplainedEndpoint{Endpoint: e, At: netip.AddrPortFrom(e.Addr, 0), Slice: of, Here: e.Node == s.opts.NodeName}
		x.out(codeNoSuchPort, fmt.Sprintf("EndpointSlice %s has no %s port %s", of, p.Protocol, named(p.Name)))
		list = append(list, x)
	}
	slices.SortStableFunc(list, func(a, b ExplainedEndpoint) int {
		return cmp.Or(a.At.Compare(b.At), order(b.counts(), a.counts()), a.Slice.Compare(b.Slice))
	})
	return list
}

// out has an endpoint be in no list.
func (x *ExplainedEndpoint) out(code, text string) {
	x.Cluster = Membership{Reason: Reason{code, text}}
	x.Local = x.Cluster
}

// counts reports whether the record stands for its address.
func (x *ExplainedEndpoint) counts() bool { return x.Cluster.Code != codeDuplicate }

// order has false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// without are the endpoints of the slices of a family that lack a port.
func (s *Store) without(name Name, k endpointsKey) iter.Seq2[Endpoint, Name] {
	return func(yield func(Endpoint, Name) bool) {
		for of, slice := range s.slices[name] {
			has := slices.ContainsFunc(slice.Ports, func(p EndpointPort) bool { return p.Name == k.port && p.Protocol == k.protocol })
			if has || slice.Family != k.family {
				continue
			}
			for _, e := range slice.Endpoints {
				if !yield(e, of) {
					return
				}
			}
		}
	}
}

func named(port string) string {
	if port == "" {
		return "without a name"
	}
	return fmt.Sprintf("named %q", port)
}

// duplicate says why another record of an address counts.
func duplicate(c, best candidate) string {
	why := "and comes first"
	for _, better := range []struct {
		than bool
		why  string
	}{
		{best.local != c.local, "and is on this node"},
		{best.Ready != c.Ready, "and is ready"},
		{best.Serving != c.Serving, "and serves"},
		{best.Terminating != c.Terminating, "and terminates"},
	} {
		if better.than {
			why = better.why
			break
		}
	}
	return fmt.Sprintf("duplicate of another record of %s, which counts %s", c.addr, why)
}

// reasoner puts verdicts in words. all are the endpoints they were made of.
type reasoner struct {
	all []candidate
	at  place
}

// cluster is the verdict on the list of policy Cluster.
func (r reasoner) cluster(c candidate, v verdict) Membership {
	m := r.say(c, v, "")
	if v == inReady {
		m.Text += r.hintless(c)
	}
	return m
}

// local is the verdict on the list of policy Local.
func (r reasoner) local(c candidate, v verdict) Membership { return r.say(c, v, " on this node") }

// say puts a verdict in words; among says of whom else it speaks.
func (r reasoner) say(c candidate, v verdict, among string) Membership {
	m := Membership{In: v.in()}
	switch v {
	case outNotReady:
		m.Reason = Reason{"NotReady", "not ready"}
	case outEnded:
		m.Reason = Reason{"TerminatingNotServing", "terminating, and serves no more"}
	case outSpared:
		m.Reason = Reason{"TerminatingSpared", "terminating, and others" + among + " are ready"}
	case outForNodes:
		m.Reason = Reason{"HintedElsewhere", fmt.Sprintf("kept by hints for %s; this is %s", list("node", c.ForNodes), r.at.node)}
	case outForZones:
		m.Reason = Reason{"HintedElsewhere", fmt.Sprintf("kept by hints for %s; this node is in zone %s", list("zone", c.ForZones), r.at.zone)}
	case outElsewhere:
		m.Reason = Reason{"Remote", "on " + c.Node + ", not on this node"}
	case outUnplaced:
		m.Reason = Reason{"NodeUnknown", "it names no node, and so is not known to be on this one"}
	case inReady:
		m.Reason = Reason{"Ready", "ready" + among}
	case inForNode:
		m.Reason = Reason{"Hinted", "ready, and hints name this node"}
	case inForZone:
		m.Reason = Reason{"Hinted", "ready, and hints name zone " + r.at.zone}
	case inLeaving:
		m.Reason = Reason{"TerminatingServing", "terminating, but serves, and none" + among + " is ready"}
	}
	return m
}

// hintless says why the hints of a ready endpoint do not hold; "": it has none.
func (r reasoner) hintless(c candidate) string {
	kind, hints, here := "node", candidate.forNodes, r.at.node
	if len(c.ForNodes) == 0 {
		kind, hints, here = "zone", candidate.forZones, r.at.zone
	}
	if len(hints(c)) == 0 {
		return ""
	}
	if here == "" {
		return fmt.Sprintf("; hints do not count: the %s of this node is not known", kind)
	}
	lacks := func(c candidate) bool { return c.Ready && len(hints(c)) == 0 }
	if slices.ContainsFunc(r.all, lacks) {
		return "; hints do not count: a ready endpoint has none"
	}
	return fmt.Sprintf("; hints do not count: none is for %s %s", kind, here)
}

// list is "zone a" or "zones a, b".
func list(what string, names []string) string {
	if len(names) > 1 {
		what += "s"
	}
	return what + " " + strings.Join(names, ", ")
}

// unbalanced is Explanation.Unbalanced.
func (s *Store) unbalanced(svc Service) Reason {
	b := svc.Balancer
	pool, there := s.vips.pools[b.Pool]
	switch {
	case !b.Wanted || len(svc.LoadBalancerIPs) > 0:
		return Reason{}
	case b.Withheld:
		return Reason{"SourceRangesUnusable", "its source ranges cannot be read, so that nobody could be let in; correct them"}
	case len(b.Status) > 0:
		return Reason{"ThroughBalancer", fmt.Sprintf("%v: its ipMode is not VIP, so that traffic has to come through the load balancer itself", b.Status[0])}
	case b.Unclear:
		return Reason{"RequestUnclear", "it asks for addresses in a way that cannot be read; its Events say what is wrong"}
	case b.Pool != "" && !there:
		return Reason{"NoSuchPool", fmt.Sprintf("it asks for the AddressPool %s, which there is not", b.Pool)}
	case b.Pool != "" && pool.Disabled:
		return Reason{"PoolDisabled", fmt.Sprintf("it asks for the AddressPool %s, which gives nothing new (spec.disabled)", b.Pool)}
	case len(s.vips.pools) == 0 && b.Class == "":
		return Reason{"NoPool", "there is no AddressPool; make one, or have another load balancer give it an address"}
	case b.Class != "":
		return Reason{"NotGivenYet", fmt.Sprintf("whoever serves spec.loadBalancerClass %s has given it none yet; Events of the Service say why", b.Class)}
	}
	return Reason{"NotGivenYet", "sluice controller has given it none yet; Events of the Service say why"}
}
