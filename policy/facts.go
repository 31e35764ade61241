package policy

import (
	"net/netip"
	"sync"

	"sluice.dev/sluice/internal/model"
)

// Facts are what NetworkPolicy is judged by: pods, namespaces, policies, nodes
// and, to follow a packet through a virtual address, Services with their
// endpoints. One goroutine tells them; any may ask.
type Facts struct {
	node string
	mu   sync.RWMutex
}

// NewFacts makes empty facts, seen from a node; "": from none.
func NewFacts(node string) *Facts { return &Facts{node: node} }

// Apply takes one event's fact in.
func (f *Facts) Apply(ev model.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = ev
}

// Packet is the first packet of a connection as policy sees it: with the
// address of who sent it and of the endpoint it is for, before any masquerade
// and after every translation of the destination.
type Packet struct {
	Src, Dst netip.Addr
	Protocol model.Protocol // TCP, UDP, SCTP or another
	Port     uint16         // the destination's; 0 where the protocol has none
}

// Side is an end of a connection.
type Side uint8

// The sides.
const (
	Egress  Side = iota // of the pod that sends
	Ingress             // of the pod that it is for
)

// String is "egress" or "ingress".
func (s Side) String() string {
	if s == Ingress {
		return "ingress"
	}
	return "egress"
}

// Finding is what the policies of one end say of a packet.
type Finding struct {
	Side    Side
	Allowed bool
	Pod     model.Name   // whose policies were asked; zero: no pod that policies may select
	Isolate []model.Name // the policies that isolate it in this direction, in order
	Policy  model.Name   // that allows; zero: none had to, or none does
	Rule    int          // its rule
	// Why is one line for people: by which rule and peer it is allowed, or
	// what is missing.
	Why string
}

// Decision is what both ends say of a packet. Each node enforces that of the
// pods it has.
type Decision struct{ Egress, Ingress Finding }

// Allowed reports whether both ends allow the packet.
func (d Decision) Allowed() bool { return d.Egress.Allowed && d.Ingress.Allowed }
