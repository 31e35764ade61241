package healthcheck

import (
	"maps"
	"net/http"
	"net/netip"
	"testing"

	"sluice.dev/sluice/internal/model"
)

func TestDesired(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:32000"), netip.MustParseAddrPort("[2001:db8::1]:32000")
	for name, c := range map[string]struct {
		health []model.HealthCheck
		want   map[Key]Spec
	}{
		"no health check": {nil, map[Key]Spec{}},
		"an address of each family, counted by itself": {
			[]model.HealthCheck{{Addr: v4, Endpoints: 2}, {Addr: v6, Endpoints: 1}},
			map[Key]Spec{{v4}: {web, "u1", 2}, {v6}: {web, "u1", 1}},
		},
		"without endpoints it is answered all the same": {
			[]model.HealthCheck{{Addr: v4}},
			map[Key]Spec{{v4}: {web, "u1", 0}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Desired(model.View{Service: web, UID: "u1", Health: c.health}); !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestTheLastEndpointTerminates: traffic still goes to an endpoint that serves
// while it terminates, and yet load balancers are sent away.
func TestTheLastEndpointTerminates(t *testing.T) {
	k := freeKey(t, "127.0.0.1")
	store := model.NewStore(model.StoreOptions{NodeName: "node1"})
	store.Apply(model.Event{Put: model.LocalAddrs{Addrs: []netip.Addr{k.Addr.Addr()}}})
	store.Apply(model.Event{Put: model.Service{
		Name: web, UID: "u1", ExternalLocal: true, HealthPort: k.Addr.Port(),
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Ports:      []model.ServicePort{{Protocol: model.TCP, Port: 80, NodePort: 30080}},
	}})
	here := model.Endpoint{Addr: netip.MustParseAddr("10.244.1.2"), Node: "node1", Ready: true, Serving: true}
	there := model.Endpoint{Addr: netip.MustParseAddr("10.244.2.2"), Node: "node2", Ready: true, Serving: true}
	leaving := here
	leaving.Ready, leaving.Terminating = false, true

	target, client := newTarget(t, Options{}), prober(t)
	for _, step := range []struct {
		name      string
		endpoints []model.Endpoint
		local     int // endpoints of the NodePort's
		code      int
	}{
		{"one here, one elsewhere", []model.Endpoint{here, there}, 1, http.StatusOK},
		{"the one here terminates", []model.Endpoint{leaving, there}, 1, http.StatusServiceUnavailable},
		{"it is gone", []model.Endpoint{there}, 0, http.StatusServiceUnavailable},
		{"it is back", []model.Endpoint{here, there}, 1, http.StatusOK},
	} {
		store.Apply(model.Event{Put: model.EndpointSlice{
			Name: web, Service: web.Name, Family: model.IPv4,
			Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}, Endpoints: step.endpoints,
		}})
		view := model.Resolve(store, web)
		local := 0
		for _, f := range view.Frontends {
			if f.Kind == model.NodePort {
				local += len(f.Backends())
			}
		}
		wish := Desired(view)
		if len(wish) != 1 || local != step.local {
			t.Fatalf("%s: wishes %v, %d endpoints serve the NodePort", step.name, wish, local)
		}
		put(t, target, k, wish[k])
		if code, _, body, err := probe(client, k, "/"); err != nil || code != step.code {
			t.Errorf("%s: %d %v %s, want %d", step.name, code, err, body, step.code)
		}
	}
}
