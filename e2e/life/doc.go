// Package life makes docs/life-of-a-packet.md, docs/troubleshooting.md and
// docs/metrics.md, and holds them true: the pages are templates, which stand in
// testdata, and every command and picture in them is what happens when the template
// is executed in the lab. `make docs` writes the pages; the test compares.
//
// The world is a cluster without an API server. Examples are the files of
// deploy/examples/life as a person would apply them; the test does what the cluster
// would: it runs the pods, says in their status that they run, and makes the
// EndpointSlices of the Services that select them.
//
// A packet is followed by its sequence number, which no translation changes, from
// interface to interface. Pictures are drawn of what was seen.
//
// Numbers that are different each time (ports that the kernel chose, counters,
// times) are printed as they were and not compared: see normal.
package life
