// Package semantics tests what a Service means: who reaches which endpoints by
// which address under which policy, and as whom the endpoints see it. Its
// oracle is the documentation of Kubernetes and the behaviour of kube-proxy,
// told as tables.
//
// The binary is a black box with the source "file": objects are files in one
// directory that the agents of three nodes read, connections are real, and so
// is the kernel. There is no API server, so that a change takes effect within a
// fraction of a second; what needs one is in package services.
package semantics
