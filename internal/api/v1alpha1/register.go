package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The group and version of all kinds here.
const (
	Group      = "sluice.dev"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version
)

// The kinds.
const (
	AddressPoolKind      = "AddressPool"
	AddressClaimKind     = "AddressClaim"
	BGPPeerKind          = "BGPPeer"
	BGPAdvertisementKind = "BGPAdvertisement"
)

// The resources, as URLs name the kinds.
const (
	AddressPools      = "addresspools"
	AddressClaims     = "addressclaims"
	BGPPeers          = "bgppeers"
	BGPAdvertisements = "bgpadvertisements"
)

// GroupVersion is the group and version of all kinds here.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// AddToScheme makes the kinds known to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(),
		&AddressPool{}, &AddressPoolList{},
		&AddressClaim{}, &AddressClaimList{},
		&BGPPeer{}, &BGPPeerList{},
		&BGPAdvertisement{}, &BGPAdvertisementList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
