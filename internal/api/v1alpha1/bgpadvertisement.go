package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPAdvertisement says which addresses are told to which peers, from which
// nodes, with which attributes.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.spec.addressPools`
// +kubebuilder:printcolumn:name="Peers",type=string,JSONPath=`.spec.peers`
// +kubebuilder:printcolumn:name="Communities",type=string,JSONPath=`.spec.communities`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPAdvertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +optional
	Spec BGPAdvertisementSpec `json:"spec,omitzero"`
}

// Community is an RFC 1997 community ("64512:1") or an RFC 8092 large community
// ("large:64512:1:2").
//
// +kubebuilder:validation:Pattern=`^([0-9]{1,5}:[0-9]{1,5}|large:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10})$`
type Community string

// LargeCommunity is an RFC 8092 large community ("64512:1:2").
//
// +kubebuilder:validation:Pattern=`^(large:)?[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$`
type LargeCommunity string

// BGPAdvertisementSpec is what is told to whom. Without any selector, every
// address is told to every peer from every node.
type BGPAdvertisementSpec struct {
	// AddressPools are the names of pools whose addresses are meant, in
	// addition to those that addressPoolSelectors match. With neither, every
	// load-balancer address is meant, that of no pool included.
	// +optional
	AddressPools []string `json:"addressPools,omitempty"`
	// AddressPoolSelectors match the labels of AddressPools; one of them has to.
	// +optional
	AddressPoolSelectors []metav1.LabelSelector `json:"addressPoolSelectors,omitempty"`
	// ServiceSelectors match the labels of Services; one of them has to.
	// Default: all Services.
	// +optional
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`
	// NodeSelectors match the labels of the nodes that tell the routes; one of
	// them has to. Default: all nodes.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`
	// Peers are the names of the BGPPeers that are told. Default: all.
	// +optional
	Peers []string `json:"peers,omitempty"`

	// Communities of the routes: "64512:1", or "large:64512:1:2".
	// +optional
	Communities []Community `json:"communities,omitempty"`
	// LargeCommunities of the routes: "64512:1:2".
	// +optional
	LargeCommunities []LargeCommunity `json:"largeCommunities,omitempty"`
	// LocalPref of the routes, for peers of our own ASN. Default: not said.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// MED of the routes. Default: not said.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	// +optional
	MED *int64 `json:"med,omitempty"`
	// AggregationLength is the length of the IPv4 prefixes that are told in the
	// place of single addresses. Default: 32.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +optional
	AggregationLength *int32 `json:"aggregationLength,omitempty"`
	// AggregationLengthV6 is the length of the IPv6 prefixes that are told in
	// the place of single addresses. Default: 128.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	// +optional
	AggregationLengthV6 *int32 `json:"aggregationLengthV6,omitempty"`
	// KeepWithoutEndpoints keeps the route of an address whose Services (of
	// externalTrafficPolicy Cluster) have no endpoint at all: nodes refuse its
	// clients, rather than routers telling them that there is no route.
	// +optional
	KeepWithoutEndpoints bool `json:"keepWithoutEndpoints,omitempty"`
}

// BGPAdvertisementList is a list of BGPAdvertisements.
//
// +kubebuilder:object:root=true
type BGPAdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []BGPAdvertisement `json:"items"`
}
