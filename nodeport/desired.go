package nodeport

import (
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// Desired is what a Service wants in the fixed sets: see the package comment.
// An endpoint that comes or goes touches nothing but HAIRPIN, and that only
// on its own node.
func Desired(view model.View) map[netfilter.Key]netfilter.Spec {
	w := wishes{}
	for _, f := range view.Frontends {
		set := setExternal
		if f.Kind == model.ClusterIP {
			set = setClusterIP
		}
		w.member(set, netfilter.AddrPort(f.Addr, f.Protocol))
		if f.Bound() { // never a node's own address: the guard would cut off all else that listens there
			w.member(setVIPs, netfilter.Addr(f.Addr.Addr()))
		}
		w.hairpins(f.Protocol, f.Cluster)
		w.hairpins(f.Protocol, f.Local)
	}
	return w
}

// wishes collects members of sets.
type wishes map[netfilter.Key]netfilter.Spec

func (w wishes) member(set string, e netfilter.Entry) {
	w[netfilter.MemberKey(model.FamilyOf(e.First.Addr()), set, e)] = netfilter.Spec{}
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
