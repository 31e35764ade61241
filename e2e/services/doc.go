// Package services tests sluice end to end: the built binary on three nodes of
// a topology, against a real etcd and kube-apiserver, judged by connections
// that are made and by what the system's own tools (ipvsadm, ipset,
// iptables-save, ip) say of the kernel. It imports nothing of sluice.
//
//	SLUICE_BIN=$PWD/bin/sluice go test -C e2e -tags lab -exec \
//	    "$PWD/bin/lab -companion $PWD/bin/controlplane" ./services
//
// No controller manager runs: the tests write EndpointSlices as the real
// controller would, and LoadBalancer addresses as a cloud would.
//
// All tests share one world, see world_lab_test.go; each leaves it as it found
// it, which is checked.
package services
