package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/internal/model"
)

// EndpointSlice is an EndpointSlice as the proxy reads it. ok is false when it
// is not ours: it holds host names, belongs to no Service, or is marked as
// headless or another proxy's.
func EndpointSlice(s *discoveryv1.EndpointSlice) (slice model.EndpointSlice, ok bool, problems []model.Problem) {
	service := s.Labels[discoveryv1.LabelServiceName]
	if foreign(s.Labels) || service == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return model.EndpointSlice{}, false, nil
	}
	r := newReport(EndpointSliceKind, &s.ObjectMeta)
	family, ok := familyOf(s.AddressType)
	if !ok {
		r.add(InvalidAddressType, "addressType", s.AddressType, "is not an address type", `use "IPv4" or "IPv6"; until then the slice is not used`)
		return model.EndpointSlice{}, false, r.list()
	}
	return model.EndpointSlice{
		Name:      nameOf(&s.ObjectMeta),
		Service:   service,
		Family:    family,
		Ports:     endpointPorts(s.Ports, r),
		Endpoints: endpoints(s, family, r),
		Triggered: triggered(s, r),
	}, true, r.list()
}

// TriggerAnnotation is when the change happened that a slice tells of.
const TriggerAnnotation = corev1.EndpointsLastChangeTriggerTime

// triggered is zero when the time is not known. A wrong one costs nothing but a
// measurement.
func triggered(s *discoveryv1.EndpointSlice, r *report) time.Time {
	text := s.Annotations[TriggerAnnotation]
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.add(InvalidTriggerTime, fmt.Sprintf("metadata.annotations[%s]", TriggerAnnotation), text, "is not a time as in RFC 3339",
			"correct or remove it; until then the change is not in the measured latency")
		return time.Time{}
	}
	return t.UTC()
}

func familyOf(t discoveryv1.AddressType) (model.Family, bool) {
	switch t {
	case discoveryv1.AddressTypeIPv4:
		return model.IPv4, true
	case discoveryv1.AddressTypeIPv6:
		return model.IPv6, true
	}
	return 0, false
}

// endpointPorts leaves out ports without a number: they mean "all ports", which
// no virtual server can do.
func endpointPorts(given []discoveryv1.EndpointPort, r *report) []model.EndpointPort {
	var ports distinct[model.EndpointPort]
	for i := range given {
		if given[i].Port == nil {
			continue
		}
		if p, ok := endpointPort(&given[i], i, r); ok {
			ports.add(p)
		}
	}
	return ports.list
}

func endpointPort(p *discoveryv1.EndpointPort, i int, r *report) (model.EndpointPort, bool) {
	proto, ok := protocol(deref(p.Protocol))
	if !ok {
		r.add(InvalidProtocol, fmt.Sprintf("ports[%d].protocol", i), *p.Protocol, "is not a protocol of Services", remedyProtocol)
		return model.EndpointPort{}, false
	}
	n, ok := port(*p.Port)
	if !ok {
		r.add(InvalidPort, fmt.Sprintf("ports[%d].port", i), *p.Port, "is not a port number", remedyPort)
		return model.EndpointPort{}, false
	}
	return model.EndpointPort{Name: deref(p.Name), Protocol: proto, Port: n}, true
}

// endpoints leaves out what says the same of the same address twice. Records of
// one address that differ all stay: the model prefers one by rules of its own.
func endpoints(s *discoveryv1.EndpointSlice, family model.Family, r *report) []model.Endpoint {
	given := s.Endpoints
	list := make([]model.Endpoint, 0, len(given))
	first := make(map[netip.Addr]int, len(given))
	for i := range given {
		e := &given[i]
		a, err := endpointAddr(e.Addresses, family)
		if err != nil {
			r.add(InvalidAddress, fmt.Sprintf("endpoints[%d].addresses[0]", i), firstOf(e.Addresses), err.Error(), remedyAddress)
			continue
		}
		next := endpoint(a, e)
		next.Pod = PodOf(s, e)
		if at, twice := first[a]; !twice {
			first[a] = len(list)
		} else if same(list[at], next) {
			continue
		}
		list = append(list, next)
	}
	return list
}

// endpointAddr is an endpoint's address: by the API the others are the same
// endpoint's and not to be used by proxies.
func endpointAddr(addresses []string, family model.Family) (netip.Addr, error) {
	a, err := parseUnicast(firstOf(addresses))
	if err == nil && model.FamilyOf(a) != family {
		return netip.Addr{}, fmt.Errorf("is not an %s address, as addressType says", family)
	}
	return a, err
}

// endpoint reads one endpoint: unknown conditions mean ready, and serving as
// long as ready.
func endpoint(a netip.Addr, e *discoveryv1.Endpoint) model.Endpoint {
	next := model.Endpoint{
		Addr:        a,
		Node:        deref(e.NodeName),
		Zone:        deref(e.Zone),
		Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		Terminating: deref(e.Conditions.Terminating),
	}
	next.Serving = next.Ready
	if e.Conditions.Serving != nil {
		next.Serving = *e.Conditions.Serving
	}
	if e.Hints == nil {
		return next
	}
	for _, z := range e.Hints.ForZones {
		next.ForZones = append(next.ForZones, z.Name)
	}
	for _, n := range e.Hints.ForNodes {
		next.ForNodes = append(next.ForNodes, n.Name)
	}
	return next
}

// PodOf is the name of the pod that an endpoint of a slice refers to; "" when it
// refers to none, or to what could be no endpoint of that slice. Nothing depends
// on it but what people are shown.
func PodOf(s *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint) string {
	ref := e.TargetRef
	if ref == nil || ref.Kind != PodKind || ref.Namespace != "" && ref.Namespace != s.Namespace {
		return ""
	}
	return ref.Name
}

func same(a, b model.Endpoint) bool {
	if !slices.Equal(a.ForZones, b.ForZones) || !slices.Equal(a.ForNodes, b.ForNodes) {
		return false
	}
	return a.Node == b.Node && a.Zone == b.Zone && a.Pod == b.Pod &&
		a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func deref[T any](p *T) (value T) {
	if p != nil {
		return *p
	}
	return value
}
