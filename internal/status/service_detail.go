package status

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
)

// ServiceDetail is the JSON body of /services/NAMESPACE/NAME.
type ServiceDetail struct {
	Node string `json:"node"`
	Service
	Affinity  string          `json:"sessionAffinity,omitempty"` // how long a client keeps its endpoint
	Scheduler string          `json:"scheduler,omitempty"`       // the Service's own
	Frontends []Frontend      `json:"frontends"`
	Endpoints []PortEndpoints `json:"endpoints"` // of each port and family
	Health    []HealthPort    `json:"healthCheck,omitempty"`
	Routes    []Route         `json:"routes,omitempty"` // of its load-balancer addresses
	// Unread says why connections and weights are missing.
	Unread string `json:"unread,omitempty"`
}

// The values of Frontend.Vacancy.
const (
	VacancyServed  = "served"  // an endpoint takes connections
	VacancyRefused = "refused" // there is none
	VacancyDropped = "dropped" // there are some, which the policy does not allow
)

// Frontend is one address, port and protocol that a Service asks for.
type Frontend struct {
	Address  netip.AddrPort `json:"address"`
	Protocol string         `json:"protocol"`
	Kind     string         `json:"kind"` // ClusterIP, NodePort, ExternalIP, LoadBalancer or Shortcut
	Port     string         `json:"portName,omitempty"`
	Policy   string         `json:"policy"` // Cluster or Local
	// Vacancy is what becomes of connections: "served", "refused" or "dropped";
	// none when the Service does not answer here at all.
	Vacancy   string `json:"vacancy,omitempty"`
	Endpoints int    `json:"endpoints"` // that connections are led to
	// SourceRanges are who may come in; none: everyone, unless Closed.
	SourceRanges []netip.Prefix `json:"sourceRanges,omitempty"`
	Closed       bool           `json:"closed,omitempty"` // nobody may: the ranges are of the other family
	// State is "programmed", "pending", "waiting", "withheld", "unserved",
	// "unknown" or "failing", Why the reason, unless it is "programmed".
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	// Destinations are what the kernel has, by address.
	Destinations []Destination `json:"destinations,omitempty"`
}

// Destination is what the kernel has of an endpoint behind a frontend.
type Destination struct {
	Address  netip.AddrPort `json:"address"`
	Weight   uint32         `json:"weight"`   // 0: it gets no new connections
	Active   uint32         `json:"active"`   // established connections; UDP has none
	Inactive uint32         `json:"inactive"` // all others
	// Leaving: it is not wanted any more, and keeps the connections it has.
	Leaving bool `json:"leaving,omitempty"`
}

// PortEndpoints are all endpoints of one port of a Service in one family.
type PortEndpoints struct {
	ServicePort
	Family    string     `json:"family"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is what one EndpointSlice says of an endpoint, and what becomes of it.
type Endpoint struct {
	Address    string     `json:"address"` // with the port that it serves, if it does
	Node       string     `json:"node,omitempty"`
	Zone       string     `json:"zone,omitempty"`
	Pod        string     `json:"pod,omitempty"` // in the Service's namespace
	Slice      string     `json:"slice"`
	Conditions Conditions `json:"conditions"`
	// Cluster and Local say whether it is in the list of the policy.
	Cluster Membership `json:"cluster"`
	Local   Membership `json:"local"`
}

// Conditions are an endpoint's.
type Conditions struct {
	Ready       bool `json:"ready"`
	Serving     bool `json:"serving"`
	Terminating bool `json:"terminating"`
}

// Membership is whether an endpoint is in a list, and why it is or is not.
type Membership struct {
	In bool `json:"in"`
	Reason
}

// HealthPort is where load balancers ask for the Service's endpoints here.
type HealthPort struct {
	Address   netip.AddrPort `json:"address"`
	Endpoints int            `json:"endpoints"` // ready ones here: with none the node gets no traffic
	State     string         `json:"state"`     // as Frontend's
	Why       string         `json:"why,omitempty"`
}

// serveOne answers what is known of one Service.
func (n *Node) serveOne(w http.ResponseWriter, r *http.Request, b *BGP) {
	ctx, cancel := context.WithTimeout(r.Context(), askLimit)
	defer cancel()
	name := model.Name{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	state, err := n.Service(ctx, name)
	if err != nil {
		unanswered(w, err)
		return
	}
	d := n.detail(state)
	if err := n.read(ctx, &d, state); err != nil {
		d.Unread = oneLine(err.Error())
	}
	if b != nil {
		d.Routes = b.routes().of(name)
	}
	writeJSON(w, d)
}

// of are the routes of a Service.
func (l RouteList) of(name model.Name) []Route {
	return slices.DeleteFunc(l.Routes, func(r Route) bool { return !slices.Contains(r.Services, name.String()) })
}

// detail is what the engine knows.
func (n *Node) detail(state engine.ServiceState) ServiceDetail {
	x := state.Explained
	d := ServiceDetail{
		Node: n.Name, Service: serviceOf(x.Service, x.Problems, x.Unbalanced), Scheduler: x.Service.Scheduler,
		Frontends: []Frontend{}, Endpoints: []PortEndpoints{},
	}
	if x.Service.Affinity > 0 {
		d.Affinity = x.Service.Affinity.Round(time.Second).String()
	}
	for i, f := range x.Frontends {
		d.Frontends = append(d.Frontends, frontendOf(f, state.Frontends[i].Stage))
	}
	for _, p := range x.Ports {
		group := PortEndpoints{ServicePort: portOf(p.ServicePort), Family: p.Family.String(), Endpoints: []Endpoint{}}
		for _, e := range p.Endpoints {
			group.Endpoints = append(group.Endpoints, endpointOf(e))
		}
		d.Endpoints = append(d.Endpoints, group)
	}
	for i, h := range x.Health {
		s := state.Health[i]
		d.Health = append(d.Health, HealthPort{h.Addr, h.Endpoints, string(s.Progress), oneLine(s.Why)})
	}
	d.Known, d.Used = addressesOf(x)
	return d
}

// addressesOf are how many addresses of endpoints are known of and used.
func addressesOf(x model.Explanation) (known, used int) {
	told, led := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, p := range x.Ports {
		for _, e := range p.Endpoints {
			told[e.Addr] = true
		}
	}
	for _, f := range x.Frontends {
		if f.Withheld.Code != "" {
			continue
		}
		for _, b := range f.Backends() {
			led[b.Addr.Addr()] = true
		}
	}
	return len(told), len(led)
}

func frontendOf(f model.ExplainedFrontend, s engine.Stage) Frontend {
	out := Frontend{
		Address: f.Addr, Protocol: f.Protocol.String(), Kind: f.Kind.String(), Port: f.PortName, Policy: policyOf(f.OnlyLocal),
		SourceRanges: f.SourceRanges, Closed: f.Restricted && len(f.SourceRanges) == 0,
		State: string(s.Progress), Why: oneLine(s.Why),
	}
	if f.Withheld.Code != "" {
		return out
	}
	out.Endpoints = len(f.Backends())
	switch f.Vacancy() {
	case model.Served:
		out.Vacancy = VacancyServed
	case model.Refused:
		out.Vacancy = VacancyRefused
	case model.Dropped:
		out.Vacancy = VacancyDropped
	}
	return out
}

func endpointOf(e model.ExplainedEndpoint) Endpoint {
	at := e.At.String()
	if e.At.Port() == 0 {
		at = e.Addr.String()
	}
	return Endpoint{
		Address: at, Node: e.Node, Zone: e.Zone, Pod: e.Pod, Slice: e.Slice.String(),
		Conditions: Conditions{e.Ready, e.Serving, e.Terminating},
		Cluster:    Membership{e.Cluster.In, *reasonOf(e.Cluster.Reason)},
		Local:      Membership{e.Local.In, *reasonOf(e.Local.Reason)},
	}
}

// read fills in what the kernel has of the frontends that are the Service's.
func (n *Node) read(ctx context.Context, d *ServiceDetail, state engine.ServiceState) error {
	if n.Destinations == nil {
		return nil
	}
	var keys []model.FrontendKey
	for _, f := range state.Explained.Frontends {
		if f.Withheld.Code == "" {
			keys = append(keys, f.FrontendKey)
		}
	}
	found, err := n.Destinations(ctx, keys)
	if err != nil {
		return fmt.Errorf("connections and weights cannot be read: %w", err)
	}
	for i, f := range state.Explained.Frontends {
		if f.Withheld.Code != "" {
			continue
		}
		list := slices.Clone(found[f.FrontendKey])
		for j := range list {
			list[j].Leaving = slices.Contains(state.Frontends[i].Leaving, list[j].Address)
		}
		slices.SortFunc(list, func(a, b Destination) int { return cmp.Or(a.Address.Compare(b.Address)) })
		d.Frontends[i].Destinations = list
	}
	return nil
}
