// Package healthcheck serves Services' health-check node ports: 200 only while this node
// has ready local endpoints (KEP-3836 and spec.healthCheckNodePort).
//
// It is planned and empty: nothing here is implemented yet.
package healthcheck
