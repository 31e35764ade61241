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
// its frontends, and behind it the endpoints that the frontend's policy allows.
// A frontend without any has no virtual server: the packet filter says what
// becomes of connections to it (package nodeport), in ways that IPVS has not.
func Desired(view model.View, opt Options) map[Key]Spec {
	wish := make(map[Key]Spec)
	for _, f := range view.Frontends {
		vs := VirtualServer{Addr: f.Addr, Protocol: f.Protocol}
		for _, b := range f.Backends() {
			wish[Key{VirtualServer: vs}] = Spec{VirtualServer: virtualServerSpec(f, opt)}
			wish[Key{VirtualServer: vs, RealServer: b.Addr}] = Spec{Destination: destinationSpec()}
		}
	}
	return wish
}

// Vacant are the virtual servers that a Service has no endpoints for. One may be
// there from before, and must not go until the packet filter stands in for it.
func Vacant(view model.View) map[Key]Spec {
	var vacant map[Key]Spec
	for _, f := range view.Frontends {
		if f.Vacancy() == model.Served {
			continue
		}
		if vacant == nil { // nearly always
			vacant = make(map[Key]Spec)
		}
		vacant[Key{VirtualServer: VirtualServer{Addr: f.Addr, Protocol: f.Protocol}}] = Spec{}
	}
	return vacant
}

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
