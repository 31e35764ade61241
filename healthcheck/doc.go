// Package healthcheck is the reconcile target for Services' health-check node
// ports (spec.healthCheckNodePort): where a load balancer asks whether this
// node has endpoints for a Service of externalTrafficPolicy Local.
//
//	endpoints here   tables as wanted   answer
//	      > 0               yes           200
//	      > 0               no            503
//	        0               -             503
//
// Only ready endpoints that do not terminate count. So a node whose last
// endpoint terminates answers 503 while that endpoint still serves, and the load
// balancer goes elsewhere before it ends.
//
// Every path and method is answered, as kube-proxy does, with its body and
// headers byte for byte:
//
//	X-Load-Balancing-Endpoint-Weight: 2
//
//	{
//		"service": {
//			"namespace": "default",
//			"name": "web"
//		},
//		"localEndpoints": 2,
//		"serviceProxyHealthy": true
//	}
//
// # The table
//
// A key is an address and port of this node, its spec what is answered there.
// The table is this process's own listeners: all of them are ours, a listing is
// exact, and a start finds none. A changed spec changes the answer only: no
// listener is opened or closed, and connections live on.
//
// Of two Services that ask for the same port (the API server gives none away
// twice; files may), the loop's tracker gives the key to the first owner in its
// order. The other one is not told of, and follows when that one lets go.
//
// # When it cannot listen
//
// Another process may hold the port, or the node may have lost the address. The
// key fails, the loop tries it again with its backoff, and the Service is told
// of with the reason FailedToStartServiceHealthcheck, once for as long as it
// lasts. That is trouble of one Service, not of the node: whoever judges the
// node's health leaves this loop out, or one foreign process would take the
// node away from all the others (see package status).
//
// It is not for /healthz, which speaks for the node as a whole.
package healthcheck
