package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AddressClaim says which Services hold one address. Its name is the address
// (IPv6: all eight groups in full, with "-" for ":"), so that two allocators
// cannot both take it. It is the allocator's alone to write.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.holders[0].namespace`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.holders[0].name`
// +kubebuilder:printcolumn:name="Sharing key",type=string,JSONPath=`.spec.sharingKey`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AddressClaim struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec AddressClaimSpec `json:"spec"`
}

// AddressClaimSpec is an address and who holds it.
type AddressClaimSpec struct {
	// Address is the address, in its usual form.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f:.]+$`
	// +required
	Address string `json:"address"`
	// SharingKey is the key that the holders have in common; empty: there may
	// be one holder only.
	// +optional
	SharingKey string `json:"sharingKey,omitempty"`
	// Holders are the Services that have the address.
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +optional
	Holders []AddressHolder `json:"holders,omitempty"`
}

// AddressHolder is a Service that has an address.
type AddressHolder struct {
	// +required
	Namespace string `json:"namespace"`
	// +required
	Name string `json:"name"`
	// +optional
	UID types.UID `json:"uid,omitempty"`
}

// AddressClaimList is a list of AddressClaims.
//
// +kubebuilder:object:root=true
type AddressClaimList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []AddressClaim `json:"items"`
}
