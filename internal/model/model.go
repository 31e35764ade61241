// Package model holds the facts Sluice knows (Services, EndpointSlices, Nodes,
// local addresses) and the pure function Resolve that says what one Service
// means on this node.
//
// Facts are plain comparable-friendly values on net/netip: nothing here knows
// Kubernetes' Go types, the kernel or the clock. Store has one owner, the
// engine's goroutine. It is not for decisions that depend on a table's state:
// those belong to the loops.
package model

import (
	"cmp"
	"net/netip"
	"strings"
	"time"
)

// Name is the namespaced name of an object.
type Name struct{ Namespace, Name string }

// String is "namespace/name", or the bare name of a cluster-wide object.
func (n Name) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// Compare orders names by namespace, then name.
func (n Name) Compare(o Name) int {
	return cmp.Or(strings.Compare(n.Namespace, o.Namespace), strings.Compare(n.Name, o.Name))
}

// Protocol is an IP protocol number, as the kernel wants it.
type Protocol uint8

// The protocols a Service port may have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the upper-case name Kubernetes and ipvsadm use.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "protocol " + itoa(uint8(p))
}

func itoa(n uint8) string {
	if n < 10 {
		return string('0' + rune(n))
	}
	return itoa(n/10) + string('0'+rune(n%10))
}

// Family is an IP family.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf is the family of an address (never a 4-in-6 form: sources unmap).
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// String is "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// Service is a Service as far as the node's proxy reads it. Sources leave out
// headless Services, ExternalName Services and those of another proxy.
type Service struct {
	Name    Name
	UID     string
	Created time.Time
	Labels  map[string]string

	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr // status addresses with ipMode VIP (or nil)
	Ports           []ServicePort

	ExternalLocal bool          // externalTrafficPolicy: Local
	InternalLocal bool          // internalTrafficPolicy: Local
	Affinity      time.Duration // sessionAffinity ClientIP's timeout; 0: none
	Scheduler     string        // annotation; "" when absent or refused
	HealthPort    uint16        // spec.healthCheckNodePort

	// SourceRanges are who may reach the load-balancer IPs; none: everyone.
	// Ranges of one family close the addresses of the other.
	SourceRanges []netip.Prefix
	// Drain bounds how long a leaving endpoint keeps its established
	// connections; 0: the node's default. A nanosecond is shorter than any
	// wait: connections are not waited for.
	Drain time.Duration
	// Urgent Services are programmed before all others when a node starts:
	// the API server's and the cluster's DNS, which the rest depends on.
	Urgent bool
	// Balancer is what it asks of whoever gives load-balancer addresses.
	Balancer Balancer
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16 // 0: none
}

// EndpointSlice is one EndpointSlice of one family.
type EndpointSlice struct {
	Name      Name
	Service   string // label kubernetes.io/service-name, same namespace
	Family    Family
	Ports     []EndpointPort
	Endpoints []Endpoint
	// Triggered is when the change happened that this slice tells of
	// (annotation endpoints.kubernetes.io/last-change-trigger-time); zero:
	// unknown.
	Triggered time.Time
}

// EndpointPort is one port that every endpoint of a slice serves.
type EndpointPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one endpoint's first address and its conditions, nil conditions
// already replaced by what the API says they mean.
type Endpoint struct {
	Addr        netip.Addr
	Node        string // nodeName; "" when unknown
	Pod         string // by name, of the slice's namespace; "" when unknown, or no pod. For people
	Zone        string
	Ready       bool // nil: true
	Serving     bool // nil: as Ready
	Terminating bool // nil: false
	ForZones    []string
	ForNodes    []string
}

// Node is a Node object.
type Node struct {
	Name     string
	Labels   map[string]string
	Addrs    []netip.Addr // InternalIP first, then ExternalIP, in the object's order
	PodCIDRs []netip.Prefix
	// Leaving says why load balancers are to use the node no more (it is
	// being deleted, or marked to be; KEP-3836); "" when they may.
	Leaving string
	// Drained says why no route may lead to the node: somebody has asked for
	// it, by our annotation or the label that keeps load balancers away.
	Drained string
	// NotReady is since when the kubelet has not said that the node is ready;
	// zero: it says so.
	NotReady time.Time
}

// LocalAddrs are the addresses found on this host's interfaces, without those
// of our own dummy device, loopback and link-local ones.
type LocalAddrs struct{ Addrs []netip.Addr }

// Problem is something wrong with an object that a person must hear of: it
// becomes a Warning Event on the object and a log line.
type Problem struct {
	Kind    string // Service, EndpointSlice, Node
	Object  Name
	UID     string
	Reason  string // CamelCase, as Events have it
	Message string // names the field, the value and the remedy
}
