package nodeport

import (
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// Desired is what a Service wants in the fixed sets and the map of shortcuts:
// see the package comment.
// An endpoint that comes or goes touches nothing but HAIRPIN, and that only
// on its own node; unless it is the first or the last one.
func Desired(view model.View) map[netfilter.Key]netfilter.Spec {
	w := wishes{}
	for _, f := range view.Frontends {
		at := netfilter.AddrPort(f.Addr, f.Protocol)
		w.member(setOf(f.Kind), at)
		if f.OnlyLocal && f.Kind != model.ClusterIP {
			w.member(setLocal, at)
		}
		switch f.Vacancy() {
		case model.Refused:
			w.member(setReject, at)
		case model.Dropped:
			w.member(setDrop, at)
		case model.Served:
		}
		if f.Bound() { // never a node's own address: the guard would cut off all else that listens there
			w.member(setVIPs, netfilter.Addr(f.Addr.Addr()))
		}
		if f.Restricted {
			w.restrict(f)
		}
		if f.Shortcut.IsValid() {
			w.shorten(f)
		}
		w.hairpins(f.Protocol, f.Cluster)
		w.hairpins(f.Protocol, f.Local)
	}
	for _, h := range view.Health {
		w.member(setHealth, netfilter.AddrPort(h.Addr, model.TCP))
	}
	return w
}

// setOf is the set that every frontend of a kind is in. These sets name our
// virtual servers: see Frontends.
func setOf(kind model.FrontendKind) string {
	switch kind {
	case model.ClusterIP:
		return setClusterIP
	case model.Shortcut:
		return setShortcut
	case model.NodePort, model.ExternalIP, model.LoadBalancerIP:
	}
	return setExternal
}

// naming are the sets that name our virtual servers.
func naming() []string { return []string{setClusterIP, setExternal, setShortcut} }

// Free reports whether a key bears on a frontend that stays, so that it may go
// as soon as what comes in its place stands: what refuses connections, what
// restricts who may come, what says who is masqueraded or sent elsewhere. The
// keys of a frontend that goes have to outlive its virtual server. wished tells
// which keys are.
func Free(k netfilter.Key, wished func(netfilter.Key) bool) bool {
	if k.Kind != netfilter.KindMember && k.Kind != netfilter.KindMapping || k.Entry.Port == 0 || k.Name == setHairpin {
		return false
	}
	at := k.Entry
	at.Second = netip.Prefix{}
	return slices.ContainsFunc(naming(), func(set string) bool { return wished(netfilter.MemberKey(k.Family, set, at)) })
}

// wishes collects members of sets.
type wishes map[netfilter.Key]netfilter.Spec

func (w wishes) member(set string, e netfilter.Entry) {
	w[netfilter.MemberKey(model.FamilyOf(e.First.Addr()), set, e)] = netfilter.Spec{}
}

// shorten sends in-cluster clients of a frontend of externalTrafficPolicy Local
// elsewhere. Its virtual server holds this node's endpoints alone, for clients
// from outside, whose address is kept and who would get no answer from other
// nodes'. In-cluster clients are entitled to all endpoints (spec 1.4) and find
// them behind the cluster IP.
func (w wishes) shorten(f model.Frontend) {
	k := netfilter.MappingKey(model.FamilyOf(f.Addr.Addr()), chainShortcuts, netfilter.AddrPort(f.Addr, f.Protocol))
	w[k] = netfilter.MappingSpec(f.Shortcut)
}

// restrict closes a frontend to all but its source ranges. An allowed member
// is wished together with the one that closes and written before it (sets are
// filled in the order of their names): nobody is shut out for a moment.
func (w wishes) restrict(f model.Frontend) {
	w.member(setRanged, netfilter.AddrPort(f.Addr, f.Protocol))
	for _, given := range f.SourceRanges {
		for _, p := range settable(given) {
			w.member(setAllowed, netfilter.AddrPortNet(f.Addr, f.Protocol, p))
		}
	}
}

// hairpins adds the endpoints that may reach themselves: only those on this
// node, because the packet of any other's comes from its own node.
func (w wishes) hairpins(p model.Protocol, backends []model.Backend) {
	for _, b := range backends {
		if b.Local {
			w.member(setHairpin, netfilter.AddrPortAddr(b.Addr, p, b.Addr.Addr()))
		}
	}
}
