// Package convert turns Kubernetes objects into the model's facts. It is the
// one place that knows what a field of the API means to a proxy, shared by the
// sources that read such objects from an API server and from files.
//
// Every function is pure and total: it never fails as a whole. A value that
// cannot be used is left out with a Problem that names the field, the value and
// what to do, and the rest of the object stands. Where the rest would be more
// than was asked for (a session without its password, a pool open to everyone),
// the whole object is left out: ok is false; of a NetworkPolicy only the part that
// would allow more. The objects given are only read, and the facts share no
// memory with them but strings.
//
// It is not for rules that need more than one object (a contested address, an
// address that is a node's): those are the model's.
package convert
