// Package ipam tests the promise of `sluice controller`: whatever becomes of
// leaders, no address is ever in the status of two Services. Two controllers,
// the built binary, give addresses against a real etcd and kube-apiserver, and
// are killed and frozen at random moments, while a watch compares every state
// that the API server ever had.
//
//	SLUICE_BIN=$PWD/bin/sluice CONTROLPLANE_BIN=$PWD/bin/controlplane \
//	    go test -C e2e -count=1 -v ./ipam
//
// It needs no kernel lab and no root: everything listens on the loopback. The
// package imports nothing of sluice.
package ipam
