// Package topo builds a small network out of namespaces and talks through it:
// nodes with pods, a router, and a client beyond the router. It is for tests
// and demos inside the lab, whose /run/netns and root namespace are private.
//
//	client 192.168.20.2 ── router ── root (the test itself; in a guest also vec0)
//	                         │ 192.168.10.1
//	              ───────────┴─── segment 192.168.10.0/24 ──────────
//	               │ .11                          │ .12
//	             node1                          node2        route to each other's
//	               │ 10.244.1.1                   │           pod network
//	      ┌────────┴────────┐                     │
//	   pod .1.2          pod .1.3              pod .2.2
//
// AddRouter attaches more routers to the segment, each with a client behind it.
//
// Every address has an IPv6 twin: fd00:192:168:10::b is node1 (11), the pods of
// node1 are in fd00:10:244:1::/64. The router has no route to pods: what leaves
// a node with a pod's address outside the cluster gets no answer, as in a
// cluster whose pods are masqueraded.
//
// A Host is one namespace. Sockets of any host are made by this one process, on
// a thread that is in the host's namespace for the moment of the system call:
// in a guest that costs microseconds, an exec costs tens of milliseconds.
//
// It configures links, addresses, routes and forwarding, nothing of the proxy.
package topo
