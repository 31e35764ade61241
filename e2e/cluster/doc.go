// Package cluster tests sluice as it is installed: the manifests of deploy/base
// applied to a real API server with RBAC, and what the real controllers of
// kube-controller-manager make of them on three nodes. Agents and controllers
// are started with the arguments, files, capabilities and tokens that their
// Pods' specifications say.
//
//	deploy/image/rootfs.sh bin/sluice bin/rootfs
//	SLUICE_BIN=$PWD/bin/sluice SLUICE_ROOTFS=$PWD/bin/rootfs go test -C e2e -tags lab -v -exec \
//	    "$PWD/bin/lab -companion '$PWD/bin/controlplane -authorization RBAC -audit -controllers all'" ./cluster
//
// What a cluster has and this has not are a scheduler, kubelets and a container
// engine. The tests bind Pods to nodes and run them (kubelet_lab_test.go): those
// of sluice as processes whose root is what deploy/image/rootfs.sh makes, as its
// image does; others as servers of the topology.
//
// TestStory is a cluster's life from the installation to the removal, under
// load; it prints what it does and the requests that were lost. With SLUICE_STORY
// it is also written to that file, which is below SLUICE_LAB_OUT.
//
// TestRBAC is about what sluice may do: all that it does, and no more.
//
// TestVariants has the API server judge all that users may apply, as deploy/test
// renders it into the directory that SLUICE_RENDERED names.
package cluster
