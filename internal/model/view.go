package model

import (
	"net/netip"
	"time"
)

// View is what one Service means on this node. It depends on the facts alone:
// not on history, clock or the order in which facts came.
type View struct {
	Service   Name
	UID       string
	Created   time.Time
	Frontends []Frontend // ordered by kind, then as the Service names them
	Problems  []Problem
}

// Only is the view with the frontends of one family.
func (v View) Only(f Family) View {
	only := make([]Frontend, 0, len(v.Frontends))
	for _, fe := range v.Frontends {
		if FamilyOf(fe.Addr.Addr()) == f {
			only = append(only, fe)
		}
	}
	v.Frontends = only
	return v
}

// FrontendKind says which field of the Service a frontend comes from.
type FrontendKind uint8

// The kinds of frontend, in the order they are looked at.
const (
	ClusterIP FrontendKind = iota
	NodePort
	ExternalIP
	LoadBalancerIP
)

// String is the API's name of the kind.
func (k FrontendKind) String() string {
	switch k {
	case ClusterIP:
		return "ClusterIP"
	case NodePort:
		return "NodePort"
	case ExternalIP:
		return "ExternalIP"
	}
	return "LoadBalancer"
}

// FrontendKey is where a frontend listens. No two Services may share one.
type FrontendKey struct {
	Addr     netip.AddrPort
	Protocol Protocol
}

// Frontend is one address, port and protocol that a Service answers on, with
// the endpoints behind it.
type Frontend struct {
	FrontendKey
	Kind     FrontendKind
	PortName string

	Scheduler string        // the Service's own, or "" for the node's default
	Affinity  time.Duration // 0: none

	// Cluster serves traffic under the policy Cluster, Local what may only
	// reach endpoints of this node. Both are ordered by address and hold no
	// duplicates; either may be empty while the other is not.
	Cluster []Backend
	Local   []Backend

	// SourceIP is the node's own address of the frontend's family: what the
	// host uses as source when it talks to the frontend. Invalid when the
	// node has none.
	SourceIP netip.Addr
}

// Bound reports whether the frontend's address has to be put on our device:
// true of every kind but NodePort, whose address is the node's.
func (f Frontend) Bound() bool { return f.Kind != NodePort }

// Backend is one endpoint of a frontend.
type Backend struct {
	Addr        netip.AddrPort
	Local       bool // on this node
	Terminating bool // serving until it ends, because no ready one is left
}
