package model

import "testing"

// TestDeletionsTogether: of several facts about the network that go between two
// looks at it, as when their file is removed, each is gone.
func TestDeletionsTogether(t *testing.T) {
	s := newStore(AddressPool{Name: "p"}, Peer{Name: "p"}, Advertisement{Name: "p"}, Secret{Name: "p"})
	s.TakeVIPs()
	for _, gone := range []any{AddressPoolKey{"p"}, PeerKey{"p"}, AdvertisementKey{"p"}, SecretKey{"p"}} {
		s.Apply(Event{Delete: gone})
	}
	if n := s.Network(); len(n.Pools)+len(n.Peers)+len(n.Advertisements)+len(n.Secrets) != 0 {
		t.Errorf("the network still has %+v", n)
	}
	if _, network := s.TakeVIPs(); !network {
		t.Error("nobody is told")
	}
}
