// Package nodeport says which node addresses serve NodePorts, and what
// Services want of the packet filter: masquerading of what needs it, and a
// guard that lets a Service's address answer on the Service's ports only.
//
// # Rules and sets
//
// The rules depend on configuration alone; Services put members into sets. Only
// the chain SHORTCUTS is a map of Services': one mapping for each frontend of
// externalTrafficPolicy Local, whatever its endpoints. In both families:
//
//	SLUICE-CLUSTER-IP  hash:ip,port      ClusterIP:port
//	SLUICE-EXTERNAL    hash:ip,port      node address:NodePort, external and
//	                                     load-balancer IP:port
//	SLUICE-LOCAL       hash:ip,port      of these, those of externalTrafficPolicy Local
//	SLUICE-SHORTCUT    hash:ip,port      what SHORTCUTS leads to, where that is
//	                                     no ClusterIP:port
//	SLUICE-REJECT      hash:ip,port      of these, what no endpoint could serve
//	SLUICE-DROP        hash:ip,port      and what only another node's could
//	SLUICE-RANGED      hash:ip,port      load-balancer IP:port with source ranges
//	SLUICE-ALLOWED     hash:ip,port,net  and who may come there
//	SLUICE-HEALTH      hash:ip,port      node address:healthCheckNodePort
//	SLUICE-HAIRPIN     hash:ip,port,ip   endpoint:port of this node, endpoint
//	SLUICE-VIPS        hash:ip           addresses on our device
//	SLUICE-PODS        hash:net          where pods are; only with ranges of theirs
//
//	mangle PREROUTING, OUTPUT ─► SLUICE-FIREWALL
//	    to RANGED, not ALLOWED from there            drop
//	nat PREROUTING ─► SLUICE-SERVICES
//	    to CLUSTER-IP, not from PODS                 mark
//	    to EXTERNAL, not to LOCAL                    mark
//	    to LOCAL, from PODS                          SLUICE-SHORTCUTS
//	nat OUTPUT ─► SLUICE-OUTPUT
//	    to LOCAL                                     mark
//	    to LOCAL                                     SLUICE-SHORTCUTS
//	                                                 SLUICE-SERVICES
//	nat SLUICE-SHORTCUTS
//	    to such a frontend                           DNAT to the ClusterIP:port
//	nat POSTROUTING ─► SLUICE-POSTROUTING
//	    to an endpoint from itself (HAIRPIN)         masquerade
//	    not marked                                   return
//	                                                 clear the mark
//	                                                 masquerade
//	filter INPUT ─► SLUICE-INPUT
//	    of a known connection                        return
//	    to HEALTH                                    accept
//	    a connection's first packet, to DROP         drop
//	    a connection's first packet, to REJECT       reject (TCP: reset)
//	    not to VIPS                                  return
//	    to CLUSTER-IP, to EXTERNAL                   return
//	    to SHORTCUT, by way of SHORTCUTS             return
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
// Where pods are told by the interface that their packets come in by, the rules
// name it in the place of PODS.
//
// Without a detector (no cluster CIDR of the family) nobody knows who is a
// pod, and ClusterIPs are not masqueraded for anyone. The node itself needs it
// no more: package vip makes it use its own address as source.
//
// Under externalTrafficPolicy Local a client from outside keeps its address, so
// nothing is marked; without a detector that is so of pods too, and they get
// this node's endpoints only. See docs/decisions/009-two-endpoint-lists.md.
package nodeport
