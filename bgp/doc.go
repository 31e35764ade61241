// Package bgp advertises LoadBalancer and external IPs over BGP from the nodes that
// can serve them.
//
// It is planned and empty: nothing here is implemented yet.
package bgp
