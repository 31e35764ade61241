package convert

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// TestLives converts each step of the lives by itself: what an object means does
// not depend on what it was.
func TestLives(t *testing.T) {
	for _, life := range sourcetest.Lives() {
		t.Run(life.Name, func(t *testing.T) {
			for _, step := range life.Steps {
				p := sourcetest.NewPicture(t, "convert")
				for _, o := range step.Objects {
					var fact any
					var ok bool
					switch o := o.(type) {
					case *corev1.Service:
						fact, ok, _ = Service(o, nil)
					case *discoveryv1.EndpointSlice:
						fact, ok, _ = EndpointSlice(o)
					case *corev1.Node:
						fact, ok, _ = Node(o)
					case *corev1.Secret:
						fact, ok, _ = Secret(o)
					case *corev1.Namespace:
						fact, ok, _ = Namespace(o)
					case *corev1.Pod:
						fact, ok, _ = Pod(o)
					case *networkingv1.NetworkPolicy:
						fact, ok, _ = NetworkPolicy(o, nil)
					case *v1alpha1.AddressPool:
						fact, ok, _ = AddressPool(o)
					case *v1alpha1.BGPPeer:
						fact, ok, _ = Peer(o, nil)
					case *v1alpha1.BGPAdvertisement:
						fact, ok, _ = Advertisement(o)
					}
					if ok {
						p.Event(model.Event{Source: "convert", Put: fact})
					}
				}
				p.Expect(t, step.Name, step.Want)
			}
		})
	}
}
