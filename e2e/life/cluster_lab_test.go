//go:build lab

package life

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// examples is where the files are that people apply.
const examples = "../../deploy/examples/life"

// cluster is what the API server would have: the files that were applied, and
// what controllers and kubelets make of them.
type cluster struct {
	manifests agent.Manifests // the directory that all agents read
	applied   map[string]string
	services  map[string]*corev1.Service // by "namespace/name"
	pods      []*corev1.Pod
	unready   map[string]bool                         // pods, by name
	zone      atomic.Pointer[map[string][]netip.Addr] // what the DNS knows
}

func newCluster(dir agent.Manifests) *cluster {
	return &cluster{manifests: dir, applied: map[string]string{}, services: map[string]*corev1.Service{}, unready: map[string]bool{}}
}

// apply applies a file of the examples: its pods are started where they are to
// run, its Services get their endpoints.
func (w *world) apply(file string) error {
	text, err := os.ReadFile(filepath.Join(examples, file))
	if err != nil {
		return err
	}
	return w.applyText(file, string(text))
}

func (w *world) applyText(file, text string) error {
	pods, services, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, p := range pods {
		if err := w.startPod(p); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, s := range services {
		w.services[s.Namespace+"/"+s.Name] = s
		if err := numberTargets(s); err != nil {
			return err
		}
	}
	if len(pods) == 0 {
		w.applied[file] = text
		return errors.Join(w.manifests.WriteText(file, text), w.slices())
	}
	// Of the pods their kubelets have more to say, see startPod: the file as it
	// is would be in their way.
	for _, s := range services {
		if err := w.manifests.Write(s); err != nil {
			return err
		}
	}
	return w.slices()
}

// numberTargets has a Service name the targets of all its ports, by number.
func numberTargets(s *corev1.Service) error {
	for i, p := range s.Spec.Ports {
		if p.TargetPort.Type == intstr.String {
			return fmt.Errorf("port %s of %s: targetPort has to be a number here", p.Name, s.Name)
		}
		if p.TargetPort.IntVal == 0 {
			s.Spec.Ports[i].TargetPort = intstr.FromInt32(p.Port)
		}
		if p.Protocol == "" {
			s.Spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
	return nil
}

// parse finds the pods and Services of a file.
func parse(text string) (pods []*corev1.Pod, services []*corev1.Service, err error) {
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var raw map[string]any
		err := documents.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return pods, services, nil
		}
		if err != nil {
			return nil, nil, err
		}
		switch raw["kind"] {
		case "Pod":
			p := &corev1.Pod{}
			pods, err = append(pods, p), runtime.DefaultUnstructuredConverter.FromUnstructured(raw, p)
		case "Service":
			s := &corev1.Service{}
			services, err = append(services, s), runtime.DefaultUnstructuredConverter.FromUnstructured(raw, s)
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// startPod runs a pod, unless it runs, and reports its state as a kubelet would.
func (w *world) startPod(p *corev1.Pod) error {
	h := w.hosts[p.Name]
	if h == nil {
		var err error
		if h, err = w.AddPod(w.hosts[p.Spec.NodeName], p.Name); err != nil {
			return err
		}
		if err := w.serve(h, p); err != nil {
			return err
		}
		w.hosts[p.Name], w.pods = h, append(w.pods, p)
	}
	o := agent.Pod(h, p.Namespace, p.Name, p.Spec.NodeName)
	o.Labels, o.Spec.Containers = p.Labels, p.Spec.Containers
	namespace := agent.Namespace(p.Namespace, nil)
	return w.manifests.Write(namespace, o)
}

// serve has a pod answer on its containers' ports, and gives it the cluster's DNS.
func (w *world) serve(h *topo.Host, p *corev1.Pod) error {
	for _, port := range p.Spec.Containers[0].Ports {
		protocol := topo.HTTP
		if port.Protocol == corev1.ProtocolUDP {
			if err := w.serveDNS(h, uint16(port.ContainerPort)); err != nil {
				return err
			}
			continue
		}
		if _, err := h.Serve(protocol, uint16(port.ContainerPort)); err != nil {
			return err
		}
	}
	dir := filepath.Join(netnsEtc, h.Name)
	resolver := fmt.Sprintf("nameserver 10.96.0.10\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:1 attempts:1\n", p.Namespace)
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(resolver), 0o644))
}

// remove deletes what a file says.
func (w *world) remove(file string) error {
	text, there := w.applied[file]
	if !there {
		return fmt.Errorf("%s is not applied", file)
	}
	_, services, err := parse(text)
	if err != nil {
		return err
	}
	for _, s := range services {
		if err := w.manifests.Erase(agent.Slice(s, discoveryv1.AddressTypeIPv4, nil)); err != nil {
			return err
		}
		delete(w.services, s.Namespace+"/"+s.Name)
	}
	delete(w.applied, file)
	return w.manifests.EraseText(file)
}

// reset deletes everything but the pods and their DNS, and has all pods ready.
func (w *world) reset() error {
	var errs []error
	for file := range w.applied {
		if file != "dns.yaml" {
			errs = append(errs, w.remove(file))
		}
	}
	clear(w.unready)
	return errors.Join(append(errs, w.slices())...)
}

// slices makes the EndpointSlices of all Services anew, and what the DNS knows.
func (w *world) slices() error {
	var errs []error
	zone := map[string][]netip.Addr{}
	for _, s := range w.services {
		name := s.Name + "." + s.Namespace + ".svc.cluster.local."
		if s.Spec.ClusterIP != corev1.ClusterIPNone {
			zone[name] = []netip.Addr{netip.MustParseAddr(s.Spec.ClusterIP)}
		}
		pods := w.behind(s)
		var endpoints []agent.Endpoint
		for _, p := range pods {
			endpoints = append(endpoints, agent.Endpoint{Pod: w.hosts[p.Name], Node: p.Spec.NodeName, Unready: w.unready[p.Name]})
			if s.Spec.ClusterIP == corev1.ClusterIPNone && !w.unready[p.Name] {
				zone[name] = append(zone[name], w.hosts[p.Name].V4)
			}
		}
		slice := agent.Slice(s, discoveryv1.AddressTypeIPv4, endpoints)
		for i, p := range pods {
			slice.Endpoints[i].TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		}
		errs = append(errs, w.manifests.Write(slice))
	}
	w.zone.Store(&zone)
	return errors.Join(errs...)
}

// behind are the pods that a Service selects.
func (w *world) behind(s *corev1.Service) (pods []*corev1.Pod) {
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for _, p := range w.pods {
		if p.Namespace == s.Namespace && selector.Matches(labels.Set(p.Labels)) {
			pods = append(pods, p)
		}
	}
	return pods
}

// setReady has a pod pass its readiness probe.
func (w *world) setReady(pod string) error { return w.probed(pod, true) }

// setUnready has a pod fail it.
func (w *world) setUnready(pod string) error { return w.probed(pod, false) }

func (w *world) probed(pod string, ready bool) error {
	if !slices.ContainsFunc(w.pods, func(p *corev1.Pod) bool { return p.Name == pod }) {
		return fmt.Errorf("there is no pod %s", pod)
	}
	w.unready[pod] = !ready
	return w.slices()
}

// markAt is the address of a mark, see settle.
func markAt(number int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 97, byte(number / 250), byte(1 + number%250)})
}

func mark(number int) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "zz-mark", Name: "mark", UID: types.UID("uid-mark")},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: markAt(number).String(), ClusterIPs: []string{markAt(number).String()},
			Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(80)}},
		},
	}
}

// writeMark writes the mark last of all.
func (w *world) writeMark(number int) error { return w.manifests.Write(mark(number)) }

func (w *world) eraseMark() error { return w.manifests.Erase(mark(0)) }
