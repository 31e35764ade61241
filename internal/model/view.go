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
	// Health is where load balancers ask whether this node has endpoints.
	Health   []HealthCheck
	Problems []Problem
}

// Only is the view with what is of one family.
func (v View) Only(f Family) View {
	only := make([]Frontend, 0, len(v.Frontends))
	for _, fe := range v.Frontends {
		if FamilyOf(fe.Addr.Addr()) == f {
			only = append(only, fe)
		}
	}
	v.Frontends = only
	var health []HealthCheck
	for _, h := range v.Health {
		if FamilyOf(h.Addr.Addr()) == f {
			health = append(health, h)
		}
	}
	v.Health = health
	return v
}

// HealthCheck is one address of this node on which a Service's
// healthCheckNodePort answers (KEP-1669 and spec.healthCheckNodePort).
type HealthCheck struct {
	Addr netip.AddrPort
	// Endpoints counts the Service's endpoints of the address's family that
	// are on this node, ready and not terminating. At 0 the node is to get no
	// traffic from load balancers, even while terminating endpoints serve.
	Endpoints int
}

// key is the check as Services contend for it: it listens as a frontend does.
func (h HealthCheck) key() FrontendKey { return FrontendKey{Addr: h.Addr, Protocol: TCP} }

// FrontendKind says which field of the Service a frontend comes from.
type FrontendKind uint8

// The kinds of frontend, in the order they are looked at.
const (
	ClusterIP FrontendKind = iota
	NodePort
	ExternalIP
	LoadBalancerIP
	// Shortcut is a frontend that no client knows: where in-cluster traffic to
	// a frontend of externalTrafficPolicy Local is sent when the ClusterIP's
	// own frontend cannot take it, its policy being Local too.
	Shortcut
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
	case Shortcut:
		return "Shortcut"
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
	Drain     time.Duration // see Service

	// Cluster serves traffic under the policy Cluster, Local what may only
	// reach endpoints of this node. Both are ordered by address and hold no
	// duplicates; either may be empty while the other is not.
	Cluster []Backend
	Local   []Backend
	// OnlyLocal says that the frontend's policy is Local.
	OnlyLocal bool
	// Shortcut is the frontend that in-cluster clients are sent to, who get
	// all endpoints whatever the policy; invalid when this one serves them.
	Shortcut netip.AddrPort

	// Restricted says that only clients in SourceRanges may come in. These
	// are the ranges of the frontend's own family, and may be none.
	Restricted   bool
	SourceRanges []netip.Prefix

	// SourceIP is the node's own address of the frontend's family: what the
	// host uses as source when it talks to the frontend. Invalid when the
	// node has none.
	SourceIP netip.Addr
}

// Backends are the endpoints that the frontend's policy allows.
func (f Frontend) Backends() []Backend {
	if f.OnlyLocal {
		return f.Local
	}
	return f.Cluster
}

// Vacancy is what becomes of connections to a frontend.
type Vacancy uint8

// The vacancies (spec 1.5).
const (
	// Served: an endpoint takes them.
	Served Vacancy = iota
	// Refused: no endpoint anywhere could, and the client had better know.
	Refused
	// Dropped: an endpoint on another node could. Silence has the client, or
	// the load balancer before it, try there.
	Dropped
)

// Vacancy says what becomes of connections.
func (f Frontend) Vacancy() Vacancy {
	switch {
	case len(f.Backends()) > 0:
		return Served
	case len(f.Cluster) > 0:
		return Dropped
	}
	return Refused
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
