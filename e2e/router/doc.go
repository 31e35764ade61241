// Package router runs FRR and BIRD on hosts of a topology: as the routers that
// nodes tell their routes to over BGP, and, for tests of what is measured here,
// as somebody who tells. What they have learned is read from their own output,
// over the sockets that vtysh and birdc use; a client's exec would cost tens of
// milliseconds in a guest. What has come of it in the host's kernel is for
// topo.RouteWatch.
//
// As routers they only listen, take routes of both families over one session,
// spread over all equal ways, and keep the routes of a neighbor that restarts
// gracefully.
package router
