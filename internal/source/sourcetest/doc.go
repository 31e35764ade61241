// Package sourcetest holds what every source of Kubernetes objects has to tell
// alike: lives of objects, step by step, and what a sink must know after each.
// The steps are about what comes and goes at run time: labels that make an
// object another proxy's, a Service's type and what a former type leaves
// behind, ipMode, source ranges, Nodes that are made anew, drained or not ready,
// pools, peers and the like, Pods that are made anew or done, and
// NetworkPolicies.
//
// Picture is the sink for it. It is strict: it complains of a deletion of what
// was never told, of a Synced that is said twice, and of whatever else breaks
// the contract in package source.
//
// It is for tests, and not for what one object means by itself: those tables
// are package convert's.
package sourcetest
