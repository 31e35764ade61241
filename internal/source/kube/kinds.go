package kube

import (
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

// Kinds is a set of kinds of objects.
type Kinds uint16

// The kinds that can be read.
const (
	Services Kinds = 1 << iota
	EndpointSlices
	Nodes
	AddressPools
	BGPPeers
	BGPAdvertisements
	Secrets
	Namespaces
	Pods
	NetworkPolicies
)

// The sets that have a use.
const (
	Proxy      = Services | EndpointSlices | Nodes
	Routing    = AddressPools | BGPPeers | BGPAdvertisements | Secrets // besides Proxy
	Allocation = Services | AddressPools | Namespaces
	Policing   = Pods | NetworkPolicies | Namespaces // besides Proxy
)

// ours selects Services and EndpointSlices that no other proxy claims, whatever
// the labels' values.
const ours = "!" + convert.ProxyNameLabel + ",!" + convert.HeadlessLabel

// feeds makes the informers, each with the handler that tells what it knows.
func (s *Source) feeds(sink source.Sink, logger logr.Logger) ([]feed, error) {
	makers := []struct {
		kind Kinds
		make func(source.Sink, logr.Logger) (feed, error)
	}{
		{Services, s.services},
		{EndpointSlices, s.endpointSlices},
		{Nodes, s.nodes},
		{AddressPools, s.pools},
		{BGPPeers, s.peers},
		{BGPAdvertisements, s.advertisements},
		{Secrets, s.secrets},
		{Namespaces, s.namespaces},
		{Pods, s.pods},
		{NetworkPolicies, s.policies},
	}
	var feeds []feed
	for _, m := range makers {
		if s.opts.Kinds&m.kind == 0 {
			continue
		}
		f, err := m.make(sink, logger)
		if err != nil {
			return nil, err
		}
		feeds = append(feeds, f)
	}
	return feeds, nil
}

func (s *Source) services(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Services(metav1.NamespaceAll)
	r := resource{
		name:    "services",
		example: &corev1.Service{},
		labels:  ours,
		fields:  fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String(),
		client:  s.opts.Client,
	}
	return s.open(r, reading(s.link, r, api), logger, &teller[*corev1.Service, model.Service]{
		sink: sink,
		key:  func(f model.Service) any { return model.ServiceKey{Name: f.Name} },
		convert: func(o *corev1.Service) (model.Service, bool, []model.Problem) {
			return convert.Service(o, s.opts.KnownScheduler)
		},
	})
}

func (s *Source) endpointSlices(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	r := resource{name: "endpointslices", example: &discoveryv1.EndpointSlice{}, labels: ours, client: s.opts.Client}
	return s.open(r, reading(s.link, r, api), logger, &teller[*discoveryv1.EndpointSlice, model.EndpointSlice]{
		sink:    sink,
		key:     func(f model.EndpointSlice) any { return model.EndpointSliceKey{Name: f.Name} },
		convert: convert.EndpointSlice,
	})
}

// nodes tells every Node, not only our own: an external or load-balancer IP
// that is another node's address must not be bound here, or we would lose that
// node (kubernetes #127410); and which of them leads traffic to an address
// depends on all.
func (s *Source) nodes(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Nodes()
	r := resource{name: nodesName, example: &corev1.Node{}, client: s.opts.Client}
	return s.open(r, reading(s.link, r, api), logger, &teller[*corev1.Node, model.Node]{
		sink:    sink,
		key:     func(f model.Node) any { return model.NodeKey{Name: f.Name} },
		convert: convert.Node,
		same:    sameNode,
	})
}

func (s *Source) pools(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.API.AddressPools()
	r := resource{name: v1alpha1.AddressPools, example: &v1alpha1.AddressPool{}, client: s.opts.API, optional: true}
	return s.open(r, reading(s.link, r, api), logger, &teller[*v1alpha1.AddressPool, model.AddressPool]{
		sink:    sink,
		key:     func(f model.AddressPool) any { return model.AddressPoolKey{Name: f.Name} },
		convert: convert.AddressPool,
		same:    samePool,
		keeps:   true,
	})
}

func (s *Source) peers(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.API.BGPPeers()
	r := resource{name: v1alpha1.BGPPeers, example: &v1alpha1.BGPPeer{}, client: s.opts.API, optional: true}
	return s.open(r, reading(s.link, r, api), logger, &teller[*v1alpha1.BGPPeer, model.Peer]{
		sink: sink,
		key:  func(f model.Peer) any { return model.PeerKey{Name: f.Name} },
		convert: func(o *v1alpha1.BGPPeer) (model.Peer, bool, []model.Problem) {
			return convert.Peer(o, nil)
		},
		same:  samePeer,
		keeps: true,
	})
}

func (s *Source) advertisements(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.API.BGPAdvertisements()
	r := resource{name: v1alpha1.BGPAdvertisements, example: &v1alpha1.BGPAdvertisement{}, client: s.opts.API, optional: true}
	return s.open(r, reading(s.link, r, api), logger, &teller[*v1alpha1.BGPAdvertisement, model.Advertisement]{
		sink:    sink,
		key:     func(f model.Advertisement) any { return model.AdvertisementKey{Name: f.Name} },
		convert: convert.Advertisement,
		same:    sameAdvertisement,
		keeps:   true,
	})
}

// secrets tells those that are made to hold a password, of one namespace: more
// of the cluster's Secrets is none of a node's business.
func (s *Source) secrets(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Secrets(s.opts.SecretNamespace)
	r := resource{
		name:     "secrets",
		example:  &corev1.Secret{},
		fields:   fields.OneTermEqualSelector("type", string(corev1.SecretTypeBasicAuth)).String(),
		client:   s.opts.Client,
		optional: true,
	}
	return s.open(r, reading(s.link, r, api), logger, &teller[*corev1.Secret, model.Secret]{
		sink:    sink,
		key:     func(f model.Secret) any { return model.SecretKey{Name: f.Name} },
		convert: convert.Secret,
		same:    sameSecret,
	})
}

func (s *Source) namespaces(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Namespaces()
	r := resource{name: "namespaces", example: &corev1.Namespace{}, client: s.opts.Client}
	return s.open(r, reading(s.link, r, api), logger, &teller[*corev1.Namespace, model.Namespace]{
		sink:    sink,
		key:     func(f model.Namespace) any { return model.NamespaceKey{Name: f.Name} },
		convert: convert.Namespace,
		same:    sameNamespace,
	})
}

// pods tells those that are not done: the others have given their addresses back.
// One that comes to be done leaves the selection, which a watch sees as a
// deletion.
func (s *Source) pods(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Pods(metav1.NamespaceAll)
	r := resource{
		name:    "pods",
		example: &corev1.Pod{},
		fields: fields.AndSelectors(
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed))).String(),
		client: s.opts.Client,
	}
	return s.open(r, reading(s.link, r, api), logger, &teller[*digest[model.Pod], model.Pod]{
		sink:    sink,
		key:     func(f model.Pod) any { return model.PodKey{Name: f.Name, UID: f.UID} },
		convert: (*digest[model.Pod]).meaning,
		same:    samePod,
	})
}

// policies tells NetworkPolicies, which are read without their type, so that
// fields that it does not have are seen: they may narrow what is allowed.
func (s *Source) policies(sink source.Sink, logger logr.Logger) (feed, error) {
	version := networkingv1.SchemeGroupVersion
	example := &unstructured.Unstructured{}
	example.SetGroupVersionKind(version.WithKind(convert.NetworkPolicyKind))
	r := resource{name: "networkpolicies", example: example, client: s.opts.Dynamic}
	return s.open(r, reading(s.link, r, s.opts.Dynamic.Resource(version.WithResource(r.name))), logger, &teller[*digest[model.NetworkPolicy], model.NetworkPolicy]{
		sink:    sink,
		key:     func(f model.NetworkPolicy) any { return model.NetworkPolicyKey{Name: f.Name} },
		convert: (*digest[model.NetworkPolicy]).meaning,
		same:    samePolicy,
		keeps:   true,
	})
}
