// Package v1alpha1 holds the objects of API group sluice.dev as users write
// them: AddressPool, BGPPeer and BGPAdvertisement, and AddressClaim, which the
// allocator writes. All of them are cluster-scoped. Fields have the names of
// MetalLB's where they mean the same.
//
// Nothing here knows what a field means to Sluice: package convert reads the
// values, since objects from files have met no API server. So values that need
// parsing (durations, ranges, communities) are strings, and one that is wrong
// spoils nothing but its own object. What an API server can refuse by itself it
// is told to in markers, from which deploy/crds is generated (make generate).
//
// +kubebuilder:object:generate=true
// +groupName=sluice.dev
package v1alpha1
