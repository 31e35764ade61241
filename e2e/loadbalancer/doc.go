// Package loadbalancer tests what makes a Service of type LoadBalancer work on
// bare metal: an address from a pool, a route at the routers from every node
// that can serve it, and none from a node that cannot.
//
// The binary is a black box with the source "file", and the routers are real:
// FRR as top of rack with eBGP, BIRD as a second one with iBGP. What counts is
// what they say and have in their kernels, and whether clients behind them get
// answers. Where the issue at hand is time, a table of medians is printed; it is
// asserted only that they are not absurd. How to decide when a route stands is
// tested against scripts in package bgp; the allocator and its controller are
// tested in package ipam.
package loadbalancer
