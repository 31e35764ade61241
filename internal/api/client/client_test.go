package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/api/clienttest"
	"sluice.dev/sluice/internal/api/v1alpha1"
)

// TestClient: what is asked of a server, and how its answers are read.
func TestClient(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.String())
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/apis/sluice.dev/v1alpha1/bgppeers":
			http.NotFound(w, r)
		case r.Method == http.MethodGet:
			_, _ = w.Write([]byte(`{"kind":"AddressPoolList","apiVersion":"sluice.dev/v1alpha1","metadata":{"resourceVersion":"7"},
				"items":[{"metadata":{"name":"blue"},"spec":{"addresses":["192.0.2.0/24"]}}]}`))
		case !strings.Contains(string(body), `"apiVersion":"sluice.dev/v1alpha1"`):
			t.Errorf("sent %s", body)
		default:
			_, _ = w.Write(body)
		}
	}))
	defer server.Close()
	c, err := client.New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	list, err := c.AddressPools().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil || len(list.Items) != 1 || list.Items[0].Spec.Addresses[0] != "192.0.2.0/24" || list.ResourceVersion != "7" {
		t.Errorf("list %+v, %v", list, err)
	}
	if _, err := c.BGPPeers().List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unknown kind: %v", err)
	}
	claim := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "192.0.2.1"}, Spec: v1alpha1.AddressClaimSpec{Address: "192.0.2.1"}}
	if got, err := c.AddressClaims().Create(ctx, claim, metav1.CreateOptions{}); err != nil || got.Spec.Address != "192.0.2.1" {
		t.Errorf("created %+v, %v", got, err)
	}
	ad := &v1alpha1.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	if _, err := c.BGPAdvertisements().Update(ctx, ad, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
	peer := &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}}
	if _, err := c.BGPPeers().UpdateStatus(ctx, peer, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
	want := []string{
		"GET /apis/sluice.dev/v1alpha1/addresspools?limit=1", "GET /apis/sluice.dev/v1alpha1/bgppeers",
		"POST /apis/sluice.dev/v1alpha1/addressclaims", "PUT /apis/sluice.dev/v1alpha1/bgpadvertisements/all",
		"PUT /apis/sluice.dev/v1alpha1/bgppeers/tor/status",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// TestFake: the fake answers as a server does where it matters to its users.
func TestFake(t *testing.T) {
	var c client.Interface = clienttest.New(t, &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "blue", Labels: map[string]string{"a": "b"}}})
	ctx := t.Context()
	list, err := c.AddressPools().List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "blue" {
		t.Errorf("list %+v, %v", list, err)
	}
	claim := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "192.0.2.1"}}
	w, err := c.AddressClaims().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := c.AddressClaims().Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if e := <-w.ResultChan(); e.Object.(*v1alpha1.AddressClaim).Name != "192.0.2.1" {
		t.Errorf("watched %+v", e)
	}
	if _, err := c.AddressClaims().Create(ctx, claim, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := c.BGPPeers().Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got what is not there: %v", err)
	}
	if err := c.BGPAdvertisements().Delete(ctx, "none", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("deleted what is not there: %v", err)
	}
}
