// Package policy tests NetworkPolicy where it counts: real connections through
// a real kernel, directly and through virtual addresses, in TCP, UDP and SCTP,
// IPv4 and IPv6.
//
// The world is the one that Kubernetes' own tests of NetworkPolicy have:
// namespaces x, y and z with pods a, b and c in each, here spread over two
// nodes. Cases are data: policies, and which of the connections between all
// pods they leave. Each case's complete matrix is tried, and what became of it
// is compared with the case's own words and with what the agent explains.
//
// The binary is a black box with the source "file". The expectations' language
// and the table of cases are tested without a kernel.
package policy
