// Package file is the source that reads a directory of ordinary Kubernetes
// objects: Services, EndpointSlices and Nodes, AddressPools, BGPPeers and
// BGPAdvertisements, Namespaces, Pods and NetworkPolicies, and Secrets that hold a
// password, in YAML or JSON, several in a file or in a List. With it the proxy
// runs without a cluster. Pods have their addresses in status.podIPs and their node
// in spec.nodeName.
//
// A file is taken as a whole or not at all. One that cannot be read, or has a
// mistake in any document, is named with the line and the reason, and what its
// last good text said stays; the other files go on. An unknown field is such a
// mistake: a field that does nothing is seldom what was meant. An empty file is
// one too: it is what an editor or a full disk leaves behind, so the way to
// delete objects is to delete the file, or to leave a comment in it. Kinds of
// Kubernetes that are not used here, and kinds of other API groups, are passed
// over. A value that can be decoded but not used is no such mistake: it is told
// as a problem. If it makes an object of our own kinds or a NetworkPolicy unusable,
// what was told of the object before stays. An unknown field in the spec of a
// NetworkPolicy is such a value too, since a file that is refused isolates nobody:
// what it stands in allows nothing, and the rest is enforced.
//
// Of one object in two files the first by the files' names counts. When the
// directory vanishes, everything known stays.
//
// Synced is told when every file has been read successfully once. A file that
// is bad at the start has no last good text, and what it meant to say may be
// what the kernel serves from before; so one bad file keeps everything from
// being deleted, until it is corrected or removed.
//
// Files are read again shortly after the last change in the directory, and now
// and then without one (a symbolic link that leads elsewhere tells nothing).
// Only documents whose text changed are decoded, and BGPPeers whose password
// file did: one in the directory is noticed at once, one elsewhere when files
// are read again. Whoever writes large files should write them elsewhere and
// rename them into place.
package file
