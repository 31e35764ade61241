package model

// Event is one fact told by a source. Exactly one of Put, Delete, Problem and
// Synced is set.
type Event struct {
	// Source says who tells: "kube", "file" or "node".
	Source string
	// Put says that an object is now so: a Service, EndpointSlice, Node,
	// LocalAddrs, Namespace, AddressPool, Peer, Advertisement, Secret, Pod or
	// NetworkPolicy.
	Put any
	// Delete says that an object is gone: its key, such as a ServiceKey.
	Delete any
	// Problem is something wrong with an object. The object itself, as far
	// as it can be used, comes in an event of its own.
	Problem *Problem
	// Synced says that everything that existed when the source started has
	// been told. A source says it once.
	Synced bool
}

// ServiceKey names a deleted Service.
type ServiceKey struct{ Name Name }

// EndpointSliceKey names a deleted EndpointSlice.
type EndpointSliceKey struct{ Name Name }

// NodeKey names a deleted Node.
type NodeKey struct{ Name string }
