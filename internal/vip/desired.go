package vip

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Key is an address of a Service.
type Key struct{ Addr netip.Addr }

// String is the address.
func (k Key) String() string { return k.Addr.String() }

// Spec is how an address is set up.
type Spec struct {
	// Source is what the node uses as source when it talks to the address:
	// one of its own addresses of the same family. Invalid: none; then it is
	// the kernel's choice.
	Source netip.Addr
}

// Desired are the addresses that a Service needs delivered here.
func Desired(view model.View) map[Key]Spec {
	wish := map[Key]Spec{}
	for _, f := range view.Frontends {
		if f.Bound() {
			wish[Key{f.Addr.Addr()}] = Spec{Source: f.SourceIP}
		}
	}
	return wish
}
