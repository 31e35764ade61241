package healthcheck

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Key is where a health check listens.
type Key struct{ Addr netip.AddrPort }

// String is the address and port.
func (k Key) String() string { return k.Addr.String() }

// Spec is what a health check answers.
type Spec struct {
	Service   model.Name
	UID       string // of the Service, for the Event when it cannot listen
	Endpoints int    // ready ones on this node that do not terminate
}

// Desired are the health checks that a Service wants answered here.
func Desired(view model.View) map[Key]Spec {
	wish := make(map[Key]Spec, len(view.Health))
	for _, h := range view.Health {
		wish[Key{h.Addr}] = Spec{Service: view.Service, UID: view.UID, Endpoints: h.Endpoints}
	}
	return wish
}
