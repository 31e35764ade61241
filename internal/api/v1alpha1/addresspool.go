package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AddressPool is a set of addresses that Services of type LoadBalancer are
// given.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Auto assign",type=boolean,JSONPath=`.spec.autoAssign`
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.spec.addresses`
// +kubebuilder:printcolumn:name="Assigned IPv4",type=integer,JSONPath=`.status.assignedIPv4`
// +kubebuilder:printcolumn:name="Free IPv4",type=integer,JSONPath=`.status.availableIPv4`
// +kubebuilder:printcolumn:name="Assigned IPv6",type=integer,JSONPath=`.status.assignedIPv6`,priority=1
// +kubebuilder:printcolumn:name="Free IPv6",type=integer,JSONPath=`.status.availableIPv6`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// +required
	Spec AddressPoolSpec `json:"spec"`
	// +optional
	Status AddressPoolStatus `json:"status,omitzero"`
}

// AddressRange is a CIDR ("192.0.2.0/24") or the first and the last address
// ("192.0.2.10-192.0.2.20").
//
// +kubebuilder:validation:MaxLength=100
// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f:.]+(/[0-9]{1,3}| *- *[0-9A-Fa-f:.]+)$`
type AddressRange string

// AddressPoolSpec is what is asked of a pool.
type AddressPoolSpec struct {
	// Addresses of either family, each entry a CIDR ("192.0.2.0/24") or the
	// first and the last address ("192.0.2.10-192.0.2.20").
	// +kubebuilder:validation:MinItems=1
	// +required
	Addresses []AddressRange `json:"addresses"`
	// AutoAssign: whether Services that name no pool and no address of it may
	// be given one.
	// +kubebuilder:default=true
	// +optional
	AutoAssign *bool `json:"autoAssign,omitempty"`
	// AvoidBuggyIPs leaves out IPv4 addresses that end in .0 and .255, which
	// some old devices take for a network's or broadcast address.
	// +optional
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`
	// Disabled: no Service is given an address of the pool any more. Those
	// that have one keep it.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
	// ServiceAllocation narrows down which Services may have an address of the
	// pool. Every condition that is given has to hold.
	// +optional
	ServiceAllocation *ServiceAllocation `json:"serviceAllocation,omitempty"`
}

// ServiceAllocation is which Services may have an address of a pool.
type ServiceAllocation struct {
	// Priority among pools that would do: the lowest number is asked first.
	// Pools without one, or with 0, come last.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Priority int32 `json:"priority,omitempty"`
	// Namespaces whose Services may have an address, in addition to those that
	// namespaceSelectors match.
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// NamespaceSelectors match the labels of namespaces; one of them has to.
	// +optional
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
	// ServiceSelectors match the labels of Services; one of them has to.
	// +optional
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`
	// EnforceNamespaces applies the conditions on namespaces also to Services
	// that ask for the pool, or an address of it, by name.
	// +optional
	EnforceNamespaces bool `json:"enforceNamespaces,omitempty"`
}

// AddressPoolStatus is how far a pool is used.
type AddressPoolStatus struct {
	// AssignedIPv4 is how many IPv4 addresses are in use.
	// +optional
	AssignedIPv4 int64 `json:"assignedIPv4"`
	// AssignedIPv6 is how many IPv6 addresses are in use.
	// +optional
	AssignedIPv6 int64 `json:"assignedIPv6"`
	// AvailableIPv4 is how many IPv4 addresses are free.
	// +optional
	AvailableIPv4 int64 `json:"availableIPv4"`
	// AvailableIPv6 is how many IPv6 addresses are free, at most what fits.
	// +optional
	AvailableIPv6 int64 `json:"availableIPv6"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AddressPoolList is a list of AddressPools.
//
// +kubebuilder:object:root=true
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []AddressPool `json:"items"`
}
