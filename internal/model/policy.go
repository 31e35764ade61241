package model

import (
	"net/netip"
	"time"
)

// Pod is a Pod as far as NetworkPolicy reads it.
type Pod struct {
	Name   Name
	UID    string // tells it from an earlier pod of the same name
	Node   string // spec.nodeName; "": none yet
	Labels map[string]string
	Addrs  []netip.Addr // status.podIPs
	// HostNetwork pods have their node's addresses: no policy selects them and
	// no selector of a peer means them.
	HostNetwork bool
	// Done pods have Succeeded or Failed: their addresses are given back, and
	// may be another pod's already.
	Done  bool
	Ports []ContainerPort // those that have a name
	Grace time.Duration   // spec.terminationGracePeriodSeconds
}

// ContainerPort is a named port of a pod's containers.
type ContainerPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// NetworkPolicy is a NetworkPolicy with the API's defaults applied. What of it
// cannot be used is left out in such a way that it allows less, never more.
type NetworkPolicy struct {
	Name Name
	Pods Selector // of its namespace
	// Ingress and Egress are the policyTypes: in which directions it isolates
	// the pods it selects.
	Ingress, Egress           bool
	IngressRules, EgressRules []PolicyRule
}

// PolicyRule allows traffic between any of its peers and the pods selected, on
// any of its ports.
type PolicyRule struct {
	Index   int  // in the object's list, from 0
	AnyPort bool // no ports were given: every port of every protocol
	Ports   []PolicyPort
	AnyPeer bool // no peers were given: everybody, be it outside of the cluster
	Peers   []PolicyPeer
}

// PolicyPort is a port of a rule: a range of numbers, a name, or neither: all
// ports of the protocol.
type PolicyPort struct {
	Index       int // in the rule's list
	Protocol    Protocol
	First, Last uint16 // both included; 0: no numbers
	Name        string // of a container port of the destination; "": none
}

// PolicyPeer is a peer of a rule: pods by selectors, or a range of addresses.
// Of Pods, Namespaces and Block at least one is set, and Block alone.
type PolicyPeer struct {
	Index int // in the rule's list
	// Pods selects among the pods of the policy's own namespace, or of those
	// that Namespaces selects; nil: all of these.
	Pods       *Selector
	Namespaces *Selector
	// Block is an ipBlock's cidr, without host bits; Except are ranges strictly
	// inside that this peer does not mean, though another may.
	Block  netip.Prefix
	Except []netip.Prefix
}

// PodKey names a deleted Pod. Another pod of that name is not meant.
type PodKey struct {
	Name Name
	UID  string
}

// NetworkPolicyKey names a deleted NetworkPolicy.
type NetworkPolicyKey struct{ Name Name }
