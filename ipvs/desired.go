package ipvs

import (
	"time"

	"sluice.dev/sluice/internal/model"
)

// Options are the node-wide choices that Desired depends on.
type Options struct {
	// Scheduler is for services that ask for none; "" is DefaultScheduler.
	Scheduler string
}

// Desired says what a Service wants in the table: a virtual server for each of
// its frontends, and the endpoints behind it. A frontend without endpoints
// keeps its virtual server: the kernel refuses connections to it at once
// (spec 1.5), where an address without one would be left to the host.
func Desired(view model.View, opt Options) map[Key]Spec {
	wish := make(map[Key]Spec)
	for _, f := range view.Frontends {
		vs := VirtualServer{Addr: f.Addr, Protocol: f.Protocol}
		wish[Key{VirtualServer: vs}] = Spec{VirtualServer: virtualServerSpec(f, opt)}
		for _, b := range backends(f) {
			wish[Key{VirtualServer: vs, RealServer: b.Addr}] = Spec{Destination: destinationSpec()}
		}
	}
	return wish
}

// backends chooses the list of endpoints a frontend's virtual server holds.
// For now it is the one of the policy Cluster for every kind; the policies
// externalTrafficPolicy and internalTrafficPolicy Local will choose here.
func backends(f model.Frontend) []model.Backend { return f.Cluster }

// virtualServerSpec maps ClientIP affinity to persistence per client address.
// The template is the virtual server's own: affinity is not shared between the
// addresses of one Service (spec 1.6).
func virtualServerSpec(f model.Frontend, opt Options) VirtualServerSpec {
	spec := VirtualServerSpec{Scheduler: f.Scheduler, Netmask: HostMask4}
	if f.Addr.Addr().Is6() {
		spec.Netmask = HostMask6
	}
	if spec.Scheduler == "" {
		spec.Scheduler = opt.Scheduler
	}
	if spec.Scheduler == "" {
		spec.Scheduler = DefaultScheduler
	}
	// kube-proxy hashes the client's port too: without it mh sends all
	// connections of one client, or of all behind one NAT, to one endpoint,
	// which is what affinity is for and not what a scheduler is chosen for.
	if spec.Scheduler == "mh" {
		spec.Flags |= MHPort
	}
	if f.Affinity > 0 {
		spec.Flags |= Persistent
		spec.Timeout = seconds(f.Affinity)
	}
	return spec
}

// destinationSpec is the same for all endpoints: Kubernetes has no weights.
func destinationSpec() DestinationSpec {
	return DestinationSpec{Weight: 1, Forward: Masquerade}
}

// seconds rounds up: a fraction must not become 0, which the kernel would take
// for something else.
func seconds(d time.Duration) uint32 {
	return uint32((d + time.Second - 1) / time.Second) // affinity ends at a day, timeouts are checked
}
