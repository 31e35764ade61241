package bgp

import (
	"fmt"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
)

// site is what decides besides the address: this node, and who else there is.
type site struct {
	// node is this node; no more than its name when there is no such object.
	node model.Node
	now  time.Time
	// patience is how long a node may be NotReady before its routes go.
	patience time.Duration
	// keepEmpty says that an advertisement keeps the address although no
	// endpoint is left.
	keepEmpty bool
	// others are the nodes that would tell the address if its policy had them:
	// ready, not drained, not leaving, and chosen by the nodeSelectors of an
	// advertisement of the address and of a peer of that. One set for each
	// advertisement; this node is in none. They are looked at only while this
	// node is NotReady.
	others []map[string]struct{}
}

// verdict says whether this node leads traffic to an address.
type verdict struct {
	leads   bool
	drained bool      // it does not, because somebody asked for that
	reason  string    // one line
	again   time.Time // when the verdict may change by itself; zero: never
}

// decide says whether this node leads traffic to an address, and why. It is a
// table; the first row that fits decides:
//
//	of the Node
//	  drained: annotation sluice.dev/drain, or the label        no, even as the last
//	    node.kubernetes.io/exclude-from-external-load-balancers
//	  leaving: being deleted, or the autoscaler's taint         no, even as the last
//	of the Services that share the address
//	  all of policy Cluster
//	    one has an endpoint, on whatever node (union)           yes
//	    none has one; the advertisement keeps empty addresses   yes
//	    none has one                                            no
//	  some of policy Local, whatever else there is
//	    every Local one stands here (intersection)              yes
//	    one of them does not                                    no
//	of the Node, when the Services say yes
//	  ready, or NotReady for less than --not-ready-after        yes
//	  NotReady for longer; another node could lead (*)          no
//	  NotReady for longer; no other could                       yes, never nobody
//	  unknown: there is no such object                          yes
//
// A Service of policy Local stands on the nodes that have a ready endpoint of it.
// When no node of the cluster has a ready one, it stands on those whose
// endpoints serve until they terminate. Endpoints that name no node count for
// nobody; with policy Cluster they count like all others.
//
// Where policies are mixed, those of policy Local decide alone: every node can
// serve the Cluster ones, but only these nodes can serve the Local ones. A Local
// Service without endpoints takes the address from those it shares it with,
// because there is no node that serves all of them.
//
// (*) Another node counts when it is Ready at this moment, not just NotReady for
// less long, and when the same rules have it lead: then it does so, whatever
// else happens. It counts whichever peer it talks to, since routers share what
// they learn; a rack whose only node is NotReady would else never be left. What
// nobody here can know is whether the other's session is up.
//
// Nothing here asks whether the API server answers: without new facts nothing
// changes. An unknown Node stays for the same reason, and because sources
// without Nodes (files) are not to need them. Its labels are unknown too, so
// that peers and advertisements with nodeSelectors leave it out.
func decide(v model.VIP, s site) verdict {
	switch name := s.node.Name; {
	case s.node.Drained != "":
		return verdict{drained: true, reason: "Node " + name + " is drained: " + s.node.Drained}
	case s.node.Leaving != "":
		return verdict{drained: true, reason: "Node " + name + " is leaving: " + s.node.Leaving}
	}
	stands, reason := policy(v.Services, s.node.Name, s.keepEmpty)
	if !stands || s.node.NotReady.IsZero() {
		return verdict{leads: stands, reason: reason}
	}
	return patient(v, s, reason)
}

// patient is the verdict on a node that is NotReady and that the Services would
// have lead for a reason.
func patient(v model.VIP, s site, reason string) verdict {
	limit := s.node.NotReady.Add(s.patience)
	if s.now.Before(limit) {
		return verdict{leads: true, again: limit, reason: fmt.Sprintf(
			"%s; until %s, when Node %s has been NotReady for %v", reason, limit.Format(time.TimeOnly), s.node.Name, s.patience)}
	}
	if other, any := another(v.Services, s); any {
		return verdict{reason: fmt.Sprintf("Node %s is NotReady for longer than %v, and %s could lead", s.node.Name, s.patience, other)}
	}
	return verdict{leads: true, reason: fmt.Sprintf(
		"%s; Node %s is NotReady for longer than %v, but no other could lead", reason, s.node.Name, s.patience)}
}

// another is a node that leads traffic to the address when this one does not:
// the first by name, or "others" where no policy tells nodes apart.
func another(services []model.Share, s site) (name string, any bool) {
	all := locals(services)
	if len(all) == 0 {
		// What has this node lead has each of them lead.
		return "others", slices.ContainsFunc(s.others, func(nodes map[string]struct{}) bool { return len(nodes) > 0 })
	}
	for node := range least(all).Usable {
		there := func(nodes map[string]struct{}) bool { _, there := nodes[node]; return there }
		if (!any || node < name) && slices.ContainsFunc(s.others, there) && stand(all, node) {
			name, any = node, true
		}
	}
	return name, any
}

// local is a Service of policy Local.
type local struct {
	*model.Share
	ready bool // some node has a ready endpoint
}

// locals are the Services of policy Local.
func locals(services []model.Share) (out []local) {
	for i := range services {
		if s := &services[i]; s.Local {
			out = append(out, local{s, readyAnywhere(s)})
		}
	}
	return out
}

// readyAnywhere reports whether any node has a ready endpoint of a Service.
func readyAnywhere(s *model.Share) bool {
	for node, ready := range s.Usable {
		if ready && node != "" {
			return true
		}
	}
	return false
}

// stands reports whether the Service has a node lead traffic.
func (l local) stands(node string) bool {
	ready, serving := l.Usable[node]
	return serving && node != "" && (ready || !l.ready)
}

// stand reports whether all of several Services stand on a node.
func stand(all []local, node string) bool {
	return !slices.ContainsFunc(all, func(l local) bool { return !l.stands(node) })
}

// least is the Service with endpoints on the fewest nodes.
func least(all []local) local {
	return slices.MinFunc(all, func(a, b local) int { return len(a.Usable) - len(b.Usable) })
}

// policy applies the rows of the table that are about Services.
func policy(services []model.Share, node string, keepEmpty bool) (stands bool, reason string) {
	all := locals(services)
	if len(all) == 0 {
		return union(services, keepEmpty)
	}
	for _, l := range all {
		if !l.stands(node) {
			return false, l.absence(node)
		}
	}
	return true, presence(all, node)
}

// union is the policy of an address that only has Services of policy Cluster.
func union(services []model.Share, keepEmpty bool) (stands bool, reason string) {
	served, one := 0, model.Name{}
	for _, s := range services {
		if len(s.Usable) > 0 {
			served, one = served+1, s.Service
		}
	}
	switch n := len(services); {
	case served == 0 && keepEmpty:
		return true, "kept without endpoints, as a BGPAdvertisement has keepWithoutEndpoints"
	case served == 0 && n == 1:
		return false, services[0].Service.String() + " has no endpoints"
	case served == 0:
		return false, fmt.Sprintf("none of %d Services has endpoints", n)
	case n == 1:
		return true, one.String() + " has endpoints"
	case served == n:
		return true, fmt.Sprintf("%d Services, all with endpoints", n)
	case served == 1:
		return true, fmt.Sprintf("%s has endpoints, as the only one of %d Services", one, n)
	default:
		return true, fmt.Sprintf("%d of %d Services have endpoints", served, n)
	}
}

// vacant reports whether no Service has an endpoint. Those of policy Cluster may
// be kept by an advertisement then.
func vacant(services []model.Share) bool {
	return !slices.ContainsFunc(services, func(s model.Share) bool { return len(s.Usable) > 0 })
}

// presence is why all Services of policy Local stand here.
func presence(all []local, node string) string {
	one := all[0]
	switch {
	case len(all) > 1:
		return fmt.Sprintf("%d Services of policy Local, all with endpoints here", len(all))
	case one.Usable[node]:
		return "ready endpoint here (" + one.Service.String() + ")"
	}
	return "terminating endpoint here, and no ready one anywhere (" + one.Service.String() + ")"
}

// absence is why a Service of policy Local does not stand here.
func (l local) absence(node string) string {
	name := l.Service.String()
	_, serving := l.Usable[node]
	switch {
	case len(l.Usable) == 0:
		return name + " (policy Local) has no endpoints"
	case l.nowhere():
		return "no endpoint of " + name + " (policy Local) says on which node it is"
	case serving:
		return "only a terminating endpoint here, and ready ones on other nodes (" + name + ", policy Local)"
	}
	return "no endpoint here (" + name + ", policy Local)"
}

// nowhere reports whether no node at all has endpoints of the Service.
func (l local) nowhere() bool {
	_, unnamed := l.Usable[""]
	return len(l.Usable) == 0 || len(l.Usable) == 1 && unnamed
}

// apart is the problem of Services of policy Local that share an address and
// all have endpoints, but on no node all together: then no node leads traffic
// to it. It is the youngest Service's, which came to share last. ok is false when
// there is no such problem.
func apart(v model.VIP) (p model.Problem, ok bool) {
	all := locals(v.Services)
	if len(all) < 2 || slices.ContainsFunc(all, local.nowhere) {
		return p, false
	}
	for node := range least(all).Usable {
		if stand(all, node) {
			return p, false
		}
	}
	youngest, with := all[len(all)-1], all[0].Service.String()
	if n := len(all) - 2; n > 0 {
		with += fmt.Sprintf(" and %d more", n)
	}
	return model.Problem{
		Kind: "Service", Object: youngest.Service, UID: youngest.UID, Reason: "NoCommonNode",
		Message: fmt.Sprintf("no node has endpoints of all Services of externalTrafficPolicy Local that share %s (with %s), so no node advertises it; "+
			"have their endpoints on the same nodes, make the policy Cluster, or give this Service an address of its own", v.Addr, with),
	}, true
}
