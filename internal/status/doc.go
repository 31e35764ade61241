// Package status serves what the loops publish: Prometheus metrics, health and
// readiness, and a text table for people.
//
//	:10249 (loopback)  /metrics  /proxyMode  /state
//	:10256             /healthz  /livez      /readyz
//
// Everything is read from reconcile.Status snapshots. Health comes from the
// state of the tables (what has failed to reach the kernel, and for how long),
// never from a loop having gone round.
package status
