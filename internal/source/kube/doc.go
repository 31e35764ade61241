// Package kube is the source that reads an API server: Services,
// EndpointSlices and Nodes, and where it is asked to our own kinds, Namespaces,
// Pods, NetworkPolicies and the Secrets with peers' passwords, through client-go's
// informers. Load reads the same once, for commands.
//
// The server is asked to leave out what is not ours (headless Services, those
// of another proxy, Secrets of other types and namespaces), and the objects that
// stay are trimmed to what package convert reads; of other Nodes' labels only
// those that say where they stand remain, unless selectors may ask for any. An object that stops or starts being ours at run time, be it by label
// or by type, is told as a deletion or as a fact. A Node that is written without
// news, as every kubelet does every few minutes, is not told again; one that was
// made anew while nobody watched is told as it is now.
//
// Of Pods, of which there are many, only what they mean is kept, and only news of
// that are told. One that is done is told as gone, and one that was made anew under
// its name as the deletion of the first, by its UID, before the second.
// NetworkPolicies are read without their type, so that fields which a newer server
// knows and we do not are seen: package convert has what they stand in allow nothing.
// Both kinds hold Synced back until they can be read: a cluster whose policies we
// may not see is not one without.
//
// A server that does not answer changes nothing: informers retry with backoff
// and keep what they know, and nothing is told as deleted until a complete
// list says so. Synced follows when every handler, not merely every cache, has
// told its initial list. The list of Nodes counts as complete when ours is
// not in it: Services are served without the Node, only without
// topology and the Node's addresses.
//
// Our own kinds and Secrets need not be there, or for us to see: such a kind
// does not hold back Synced, and is looked for again every half minute (see
// gate). Nobody's session is closed by that, since before Synced nobody has one;
// the sessions of a kind that is not there yet begin when it is. An object of
// our own kinds, or a NetworkPolicy, that cannot be used any more, after an edit, is
// told as a problem and not as gone.
//
// It is not for writing: but for Recorder, which makes Events of problems,
// nothing here changes the cluster.
package kube
