// Package nodeport says which node addresses serve NodePorts, and what
// Services want of the packet filter: masquerading of what needs it, and a
// guard that lets a Service's address answer on the Service's ports only.
//
// # Rules and sets
//
// The rules depend on configuration alone and are O(1) in Services; Services
// put members into sets. In both families:
//
//	SLUICE-CLUSTER-IP  hash:ip,port     ClusterIP:port
//	SLUICE-EXTERNAL    hash:ip,port     node address:NodePort, external and
//	                                    load-balancer IP:port
//	SLUICE-HAIRPIN     hash:ip,port,ip  endpoint:port of this node, endpoint
//	SLUICE-VIPS        hash:ip          addresses on our device
//	SLUICE-PODS        hash:net         where pods are; only with a detector
//
//	nat PREROUTING, OUTPUT ─► SLUICE-SERVICES
//	    to CLUSTER-IP, not from PODS                 mark
//	    to EXTERNAL                                  mark
//	nat POSTROUTING ─► SLUICE-POSTROUTING
//	    to an endpoint from itself (HAIRPIN)         masquerade
//	    not marked                                   return
//	                                                 clear the mark
//	                                                 masquerade
//	filter INPUT ─► SLUICE-INPUT
//	    not to VIPS                                  return
//	    to CLUSTER-IP, to EXTERNAL                   return
//	    echo request (IPv6: all ICMP)                return
//	    a connection's first packet                  reject (TCP: reset)
//	filter FORWARD ─► SLUICE-FORWARD
//	    marked                                       accept
//	    of a known connection                        accept
//
// # The path of a packet
//
// IPVS takes a packet from outside after the filter table's INPUT, and one of
// the node's own after the nat table's OUTPUT. Up to there it carries the
// Service's address, which is what the first three rules match and what the
// guard in INPUT sees; then IPVS sends it through OUTPUT and POSTROUTING with
// the endpoint's address, which is what HAIRPIN matches. So the guard never
// sees a packet that IPVS took from a process of this node, and what it
// rejects is exactly what a listener on all addresses would have answered.
//
// The guard stands before a virtual server is made, and a virtual server
// before its address is bound: see package engine.
//
// # Masquerading
//
// Without a detector (no cluster CIDR of the family) nobody knows who is a
// pod, and ClusterIPs are not masqueraded for anyone. The node itself needs it
// no more: package vip makes it use its own address as source.
//
// It is not for Services of the policy Local nor for source ranges: their sets
// and rules come before those of EXTERNAL in SLUICE-SERVICES and before the
// returns in SLUICE-INPUT.
package nodeport
