// Package ipvsadm is ipvsadm's command line: the same options, output, error
// texts and exit codes as ipvsadm 1.31 has, for reading the kernel's table.
//
// # What it does not do
//
// It changes nothing, but for -R, which adds what it is given and refuses to
// where an agent serves the node. The other commands that write are refused by
// their names, with exit code 2: that is ipvsadm's for a command line that it
// does not take, and no script takes it for a table that was changed.
//
// # What it does beyond
//
// Options that ipvsadm has not (see `sluice ipvs --help`): they say whose a virtual server or a
// real server is, filter connections, write JSON, and repeat a listing.
//
// # Where it differs on purpose
//
//   - A destination's counters of connections and packets are of 64 bits;
//     ipvsadm cuts them to 32.
//   - -h and -v answer where the kernel has no IPVS, and say that this is Sluice; the words of -h
//     are our own.
//   - -R does not make virtual servers of addresses of the 4-in-6 form
//     (::ffff:192.0.2.1), which are two keys of one address elsewhere in Sluice;
//     they are listed and saved.
//   - -R takes a last line that has blanks behind it and no end of line, which
//     ipvsadm passes over without a word.
//   - Forwarding methods and tunnel flags that ipvsadm cannot set, and prints as
//     "(null)" or out of its own memory, are named.
//
// # How it is built
//
// popt.go takes arguments apart as libpopt does, options.go is the table of
// options, legal.go says which go together, parse.go puts an invocation
// together in the order in which ipvsadm looks at things, because that decides
// which of several errors is told. Program carries invocations out.
package ipvsadm
