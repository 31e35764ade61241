package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
)

// askLimit is how long an agent may take to find out what it is asked.
const askLimit = 8 * time.Second

// Node is this node and the Services on it. All functions may be called from any
// goroutine, at every request.
type Node struct {
	Name     string
	Families []model.Family // that are served

	Service  func(context.Context, model.Name) (engine.ServiceState, error)
	Services func(ctx context.Context, choose func(model.Name) bool) ([]engine.ServiceSummary, error)
	Names    func(context.Context) ([]engine.ServiceNames, error)
	// Destinations are what the kernel has of the given frontends: one that is
	// not there has none. Nil: nobody looks.
	Destinations func(context.Context, []model.FrontendKey) (map[model.FrontendKey][]Destination, error)
}

// ServiceList is the JSON body of /services.
type ServiceList struct {
	Node     string    `json:"node"`
	Services []Service `json:"services"` // by namespace and name
}

// The states of a Service in a list. With several frontends it is the worst.
const (
	StateProgrammed = "programmed" // the tables hold what it means
	StatePending    = "pending"    // they do not yet
	StateWaiting    = "waiting"    // it has its turn later
)

// Service is a Service as it is served on this node.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Type is "ClusterIP", "NodePort" or "LoadBalancer": by what the Service has.
	Type    string    `json:"type"`
	Created time.Time `json:"created,omitzero"`
	Addresses
	Ports []ServicePort `json:"ports"`
	TrafficPolicies
	Known    int       `json:"endpointsKnown"`  // addresses of endpoints told of
	Used     int       `json:"endpointsUsed"`   // of these, those that a frontend leads to here
	State    string    `json:"state,omitempty"` // of a list only; see Frontend.State
	Problems []Problem `json:"problems"`
}

// Addresses are the addresses of a Service.
type Addresses struct {
	ClusterIPs      []netip.Addr `json:"clusterIPs"`
	ExternalIPs     []netip.Addr `json:"externalIPs,omitempty"`
	LoadBalancerIPs []netip.Addr `json:"loadBalancerIPs,omitempty"`
	// NoLoadBalancerIP says why a Service that asks for load-balancer addresses
	// has none that is served here.
	NoLoadBalancerIP *Reason `json:"noLoadBalancerIP,omitempty"`
}

// TrafficPolicies are a Service's, each Cluster or Local.
type TrafficPolicies struct {
	External string `json:"externalTrafficPolicy"`
	Internal string `json:"internalTrafficPolicy"`
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	NodePort uint16 `json:"nodePort,omitempty"`
}

// Reason is why something is as it is.
type Reason struct {
	Reason  string `json:"reason"`  // for programs
	Message string `json:"message"` // for people
}

// serve answers /services, /services/NAMESPACE/NAME and /names. Without a node
// none of them is there.
func (n *Node) serve(mux *http.ServeMux, b *BGP) {
	if n == nil {
		return
	}
	mux.HandleFunc("GET /services", n.serveList)
	mux.HandleFunc("GET /services/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) { n.serveOne(w, r, b) })
	mux.HandleFunc("GET /names", n.serveNames)
}

// serveList answers with all Services, or with those that the parameters
// namespace and name choose.
func (n *Node) serveList(w http.ResponseWriter, r *http.Request) {
	namespace, name := r.URL.Query().Get("namespace"), r.URL.Query().Get("name")
	ctx, cancel := context.WithTimeout(r.Context(), askLimit)
	defer cancel()
	all, err := n.Services(ctx, func(s model.Name) bool {
		return (namespace == "" || s.Namespace == namespace) && (name == "" || s.Name == name)
	})
	if err != nil {
		unanswered(w, err)
		return
	}
	list := ServiceList{Node: n.Name, Services: []Service{}}
	for _, s := range all {
		row := serviceOf(s.Service, s.View.Problems, s.Unbalanced)
		row.Known, row.Used, row.State = s.Told, s.Used, StateProgrammed
		switch {
		case s.Waiting:
			row.State = StateWaiting
		case len(s.Rising) > 0:
			row.State = StatePending
		}
		list.Services = append(list.Services, row)
	}
	writeJSON(w, list)
}

// unanswered says that there is no answer, and whose fault that is.
func unanswered(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if errors.Is(err, engine.ErrNoService) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}

func serviceOf(svc model.Service, problems []model.Problem, unbalanced model.Reason) Service {
	s := Service{
		Namespace: svc.Name.Namespace, Name: svc.Name.Name, Type: typeOf(svc), Created: svc.Created,
		Addresses: Addresses{
			ClusterIPs: append([]netip.Addr{}, svc.ClusterIPs...), ExternalIPs: svc.ExternalIPs, LoadBalancerIPs: svc.LoadBalancerIPs,
		},
		TrafficPolicies: TrafficPolicies{External: policyOf(svc.ExternalLocal), Internal: policyOf(svc.InternalLocal)},
		Ports:           []ServicePort{}, Problems: []Problem{},
	}
	for _, p := range svc.Ports {
		s.Ports = append(s.Ports, portOf(p))
	}
	for _, p := range problems {
		s.Problems = append(s.Problems, Problem{Kind: p.Kind, Object: p.Object.String(), Reason: p.Reason, Message: oneLine(p.Message)})
	}
	if unbalanced.Code != "" {
		s.NoLoadBalancerIP = reasonOf(unbalanced)
	}
	return s
}

func reasonOf(r model.Reason) *Reason { return &Reason{r.Code, oneLine(r.Text)} }

func portOf(p model.ServicePort) ServicePort {
	return ServicePort{Name: p.Name, Protocol: p.Protocol.String(), Port: p.Port, NodePort: p.NodePort}
}

// typeOf is the type that a Service has to have for what it has.
func typeOf(svc model.Service) string {
	switch {
	case svc.Balancer.Wanted:
		return "LoadBalancer"
	case slices.ContainsFunc(svc.Ports, func(p model.ServicePort) bool { return p.NodePort != 0 }):
		return "NodePort"
	}
	return "ClusterIP"
}

func policyOf(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

// NameList is the JSON body of /names: what people call what IPVS has by number.
type NameList struct {
	// Services are the names of virtual servers: "TCP 10.96.0.1:443" is
	// "default/kubernetes:https", or without a colon where the port has no name.
	Services map[string]string `json:"services"`
	// Endpoints are the names of real servers, by address. Where several pods
	// have one address, which is the node's, they are there by address and port.
	Endpoints map[string]EndpointName `json:"endpoints"`
}

// EndpointName is who an endpoint is.
type EndpointName struct {
	Pod  string `json:"pod,omitempty"` // "namespace/name"
	Node string `json:"node,omitempty"`
}

func (n *Node) serveNames(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askLimit)
	defer cancel()
	all, err := n.Names(ctx)
	if err != nil {
		unanswered(w, err)
		return
	}
	writeJSON(w, namesOf(all))
}

// namesOf joins the names of all Services.
func namesOf(all []engine.ServiceNames) NameList {
	list := NameList{Services: map[string]string{}, Endpoints: map[string]EndpointName{}}
	byPort := map[netip.AddrPort]EndpointName{}
	byAddr := map[netip.Addr]EndpointName{}
	shared := map[netip.Addr]bool{}
	for _, s := range all {
		for key, port := range s.Frontends {
			name := s.Service.String()
			if port != "" {
				name += ":" + port
			}
			list.Services[fmt.Sprintf("%s %s", key.Protocol, key.Addr)] = name
		}
		for _, e := range s.Endpoints {
			is := EndpointName{Node: e.Node}
			if e.Pod != "" {
				is.Pod = model.Name{Namespace: s.Service.Namespace, Name: e.Pod}.String()
			}
			byPort[e.Addr] = byPort[e.Addr].or(is)
			if was := byAddr[e.Addr.Addr()]; was.Pod != "" && is.Pod != "" && was.Pod != is.Pod {
				shared[e.Addr.Addr()] = true
			}
			byAddr[e.Addr.Addr()] = byAddr[e.Addr.Addr()].or(is)
		}
	}
	for at, is := range byPort {
		if shared[at.Addr()] {
			list.Endpoints[at.String()] = is
		}
	}
	for at, is := range byAddr {
		if !shared[at] {
			list.Endpoints[at.String()] = is
		}
	}
	return list
}

// or fills in what is not known from another source of the same. Of two pods the
// first by name is taken, whoever told first.
func (n EndpointName) or(o EndpointName) EndpointName {
	if n.Pod == "" || o.Pod != "" && o.Pod < n.Pod {
		n.Pod = o.Pod
	}
	if n.Node == "" || o.Node != "" && o.Node < n.Node {
		n.Node = o.Node
	}
	return n
}
