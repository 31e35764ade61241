// Package clienttest is a fake API server for the kinds of package v1alpha1, in
// the manner of client-go's fake Clientset: objects in a tracker, and reactors
// that tests may put in front of it. As there, resource versions are not
// checked, and nothing is validated or defaulted.
package clienttest

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	clienttesting "k8s.io/client-go/testing"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/api/v1alpha1"
)

// Client is a client.Interface over objects in memory.
type Client struct {
	clienttesting.Fake
	tracker clienttesting.ObjectTracker
}

// New makes a client of a server that holds these objects.
func New(tb testing.TB, objects ...runtime.Object) *Client {
	tb.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		tb.Fatal(err)
	}
	c := &Client{tracker: clienttesting.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())}
	for _, o := range objects {
		if err := c.tracker.Add(o); err != nil {
			tb.Fatal(err)
		}
	}
	c.AddReactor("*", "*", clienttesting.ObjectReaction(c.tracker))
	c.AddWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		var opts metav1.ListOptions
		if w, ok := a.(clienttesting.WatchActionImpl); ok {
			opts = w.ListOptions
		}
		w, err := c.tracker.Watch(a.GetResource(), a.GetNamespace(), opts)
		return true, w, err
	})
	return c
}

// Tracker holds the objects.
func (c *Client) Tracker() clienttesting.ObjectTracker { return c.tracker }

// IsWatchListSemanticsUnSupported tells reflectors that there are no lists by way
// of a watch.
func (c *Client) IsWatchListSemanticsUnSupported() bool { return true }

// AddressPools implements client.Interface.
func (c *Client) AddressPools() client.Resource[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList] {
	version := v1alpha1.GroupVersion()
	return gentype.NewFakeClientWithList(
		&c.Fake, "", version.WithResource(v1alpha1.AddressPools), version.WithKind(v1alpha1.AddressPoolKind),
		func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
		func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} },
		func(to, from *v1alpha1.AddressPoolList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.AddressPoolList) []*v1alpha1.AddressPool { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.AddressPoolList, items []*v1alpha1.AddressPool) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// AddressClaims implements client.Interface.
func (c *Client) AddressClaims() client.Resource[*v1alpha1.AddressClaim, *v1alpha1.AddressClaimList] {
	version := v1alpha1.GroupVersion()
	return gentype.NewFakeClientWithList(
		&c.Fake, "", version.WithResource(v1alpha1.AddressClaims), version.WithKind(v1alpha1.AddressClaimKind),
		func() *v1alpha1.AddressClaim { return &v1alpha1.AddressClaim{} },
		func() *v1alpha1.AddressClaimList { return &v1alpha1.AddressClaimList{} },
		func(to, from *v1alpha1.AddressClaimList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.AddressClaimList) []*v1alpha1.AddressClaim { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.AddressClaimList, items []*v1alpha1.AddressClaim) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// BGPPeers implements client.Interface.
func (c *Client) BGPPeers() client.Resource[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList] {
	version := v1alpha1.GroupVersion()
	return gentype.NewFakeClientWithList(
		&c.Fake, "", version.WithResource(v1alpha1.BGPPeers), version.WithKind(v1alpha1.BGPPeerKind),
		func() *v1alpha1.BGPPeer { return &v1alpha1.BGPPeer{} },
		func() *v1alpha1.BGPPeerList { return &v1alpha1.BGPPeerList{} },
		func(to, from *v1alpha1.BGPPeerList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.BGPPeerList) []*v1alpha1.BGPPeer { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.BGPPeerList, items []*v1alpha1.BGPPeer) { l.Items = gentype.FromPointerSlice(items) })
}

// BGPAdvertisements implements client.Interface.
func (c *Client) BGPAdvertisements() client.Resource[*v1alpha1.BGPAdvertisement, *v1alpha1.BGPAdvertisementList] {
	version := v1alpha1.GroupVersion()
	return gentype.NewFakeClientWithList(
		&c.Fake, "", version.WithResource(v1alpha1.BGPAdvertisements), version.WithKind(v1alpha1.BGPAdvertisementKind),
		func() *v1alpha1.BGPAdvertisement { return &v1alpha1.BGPAdvertisement{} },
		func() *v1alpha1.BGPAdvertisementList { return &v1alpha1.BGPAdvertisementList{} },
		func(to, from *v1alpha1.BGPAdvertisementList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.BGPAdvertisementList) []*v1alpha1.BGPAdvertisement {
			return gentype.ToPointerSlice(l.Items)
		},
		func(l *v1alpha1.BGPAdvertisementList, items []*v1alpha1.BGPAdvertisement) {
			l.Items = gentype.FromPointerSlice(items)
		})
}
