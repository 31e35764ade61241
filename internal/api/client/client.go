// Package client talks to an API server about the kinds of package v1alpha1, as
// client-go's clients do about its own.
//
// Whoever reads or writes such objects takes an Interface; tests give it package
// clienttest's. It is not for deciding what to do about a server that does not
// know the kinds: it answers "not found", as to any other unknown path.
package client

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"sluice.dev/sluice/internal/api/v1alpha1"
)

// Interface is a client of each kind.
type Interface interface {
	AddressPools() Resource[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList]
	AddressClaims() Resource[*v1alpha1.AddressClaim, *v1alpha1.AddressClaimList]
	BGPPeers() Resource[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList]
	BGPAdvertisements() Resource[*v1alpha1.BGPAdvertisement, *v1alpha1.BGPAdvertisementList]
}

// Client is an Interface that asks an API server.
type Client struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

// New makes a client of the server that config leads to; config is not changed.
func New(config *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("scheme of %s: %w", v1alpha1.APIVersion, err)
	}
	config = rest.CopyConfig(config)
	version := v1alpha1.GroupVersion()
	config.GroupVersion = &version
	config.APIPath = "/apis"
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	r, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of %s at %s: %w", v1alpha1.APIVersion, config.Host, err)
	}
	return &Client{rest: r, params: runtime.NewParameterCodec(scheme)}, nil
}

// AddressPools implements Interface.
func (c *Client) AddressPools() Resource[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList] {
	return gentype.NewClientWithList(v1alpha1.AddressPools, c.rest, c.params, "",
		func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
		func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} })
}

// AddressClaims implements Interface.
func (c *Client) AddressClaims() Resource[*v1alpha1.AddressClaim, *v1alpha1.AddressClaimList] {
	return gentype.NewClientWithList(v1alpha1.AddressClaims, c.rest, c.params, "",
		func() *v1alpha1.AddressClaim { return &v1alpha1.AddressClaim{} },
		func() *v1alpha1.AddressClaimList { return &v1alpha1.AddressClaimList{} })
}

// BGPPeers implements Interface.
func (c *Client) BGPPeers() Resource[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList] {
	return gentype.NewClientWithList(v1alpha1.BGPPeers, c.rest, c.params, "",
		func() *v1alpha1.BGPPeer { return &v1alpha1.BGPPeer{} },
		func() *v1alpha1.BGPPeerList { return &v1alpha1.BGPPeerList{} })
}

// BGPAdvertisements implements Interface.
func (c *Client) BGPAdvertisements() Resource[*v1alpha1.BGPAdvertisement, *v1alpha1.BGPAdvertisementList] {
	return gentype.NewClientWithList(v1alpha1.BGPAdvertisements, c.rest, c.params, "",
		func() *v1alpha1.BGPAdvertisement { return &v1alpha1.BGPAdvertisement{} },
		func() *v1alpha1.BGPAdvertisementList { return &v1alpha1.BGPAdvertisementList{} })
}
