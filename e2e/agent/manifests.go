package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"sluice.dev/sluice/e2e/topo"
)

// Manifests is a directory of objects that agents read, a file each.
type Manifests string

// Object is what a file holds.
type Object interface {
	metav1.Object
	runtime.Object
}

// path is an object's file.
func (m Manifests) path(o Object) string {
	kind := strings.ToLower(o.GetObjectKind().GroupVersionKind().Kind)
	return filepath.Join(string(m), fmt.Sprintf("%s-%s-%s.json", o.GetNamespace(), kind, o.GetName()))
}

// Write replaces objects' files, each in one step, as editors and kubelets do.
func (m Manifests) Write(objects ...Object) error {
	for _, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := replace(m.path(o), text); err != nil {
			return err
		}
	}
	return nil
}

// WriteText replaces a file of any text in one step.
func (m Manifests) WriteText(name, text string) error {
	return replace(filepath.Join(string(m), name), []byte(text))
}

func replace(path string, text []byte) error {
	return errors.Join(os.WriteFile(path+".new", text, 0o644), os.Rename(path+".new", path))
}

// Erase removes objects' files, those that are there.
func (m Manifests) Erase(objects ...Object) error {
	for _, o := range objects {
		if err := erase(m.path(o)); err != nil {
			return err
		}
	}
	return nil
}

// EraseText removes a file of WriteText's, if it is there.
func (m Manifests) EraseText(name string) error { return erase(filepath.Join(string(m), name)) }

func erase(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Node is the Node object that a kubelet would register for a host.
func Node(h *topo.Host) *corev1.Node {
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: h.Name, Labels: map[string]string{}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: h.V4.String()},
			{Type: corev1.NodeInternalIP, Address: h.V6.String()},
		}},
	}
}

// Endpoint is a pod in the state that its conditions say.
type Endpoint struct {
	Pod         *topo.Host
	Node        string // where it runs
	Unready     bool
	Terminating bool // and not ready; serving unless Unready is set too
	ForZones    []string
	ForNodes    []string
}

// Slice is what the endpoint slice controller makes of the pods behind a
// Service, whose ports all name their target by number.
func Slice(svc *corev1.Service, family discoveryv1.AddressType, endpoints []Endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name + "-" + strings.ToLower(string(family)),
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{},
	}
	for _, p := range svc.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: new(p.Name), Protocol: new(p.Protocol), Port: new(p.TargetPort.IntVal),
		})
	}
	for _, e := range endpoints {
		slice.Endpoints = append(slice.Endpoints, e.object(family))
	}
	return slice
}

func (e Endpoint) object(family discoveryv1.AddressType) discoveryv1.Endpoint {
	addr := e.Pod.V4
	if family == discoveryv1.AddressTypeIPv6 {
		addr = e.Pod.V6
	}
	one := discoveryv1.Endpoint{
		Addresses: []string{addr.String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready: new(!e.Unready && !e.Terminating), Serving: new(!e.Unready), Terminating: new(e.Terminating),
		},
		NodeName:  new(e.Node),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: e.Pod.Name},
	}
	if len(e.ForZones)+len(e.ForNodes) > 0 {
		one.Hints = &discoveryv1.EndpointHints{}
	}
	for _, z := range e.ForZones {
		one.Hints.ForZones = append(one.Hints.ForZones, discoveryv1.ForZone{Name: z})
	}
	for _, n := range e.ForNodes {
		one.Hints.ForNodes = append(one.Hints.ForNodes, discoveryv1.ForNode{Name: n})
	}
	return one
}
