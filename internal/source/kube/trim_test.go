package kube

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/source/convert"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// clutter is a map as real objects have it: what is read, and more.
func clutter(read ...string) map[string]string {
	m := map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": "{}", "app": "a", "helm.sh/chart": "x",
		"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8",
	}
	for _, k := range read {
		m[k] = "0"
	}
	return m
}

func TestTrimKeepsNothingElse(t *testing.T) {
	check := func(what string, got map[string]string, want ...string) {
		t.Helper()
		slices.Sort(want)
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
			t.Errorf("%s: kept %q, want %q", what, keys, want)
		}
	}
	serviceAnnotations := []string{
		convert.SchedulerAnnotation, convert.SchedulerAnnotationAlias, convert.DrainAnnotation, convert.ReallocateAnnotation,
		convert.AddressesAnnotation, convert.AddressesAnnotationAlias, convert.PoolAnnotation, convert.PoolAnnotationAlias,
		convert.SharingAnnotation, convert.SharingAnnotationAlias,
	}
	s := service("a", "10.96.0.1")
	s.Labels, s.Annotations = clutter(), clutter(serviceAnnotations...)
	trimTwice(t, s)
	check("labels of a Service", s.Labels, slices.Sorted(maps.Keys(clutter()))...)
	check("annotations of a Service", s.Annotations, serviceAnnotations...)

	sliceLabels := []string{discoveryv1.LabelServiceName, convert.ProxyNameLabel, convert.HeadlessLabel}
	e := slice("x", "a")
	e.Labels, e.Annotations = clutter(sliceLabels...), clutter(convert.TriggerAnnotation, convert.DrainAnnotation)
	trimTwice(t, e)
	check("labels of a slice", e.Labels, sliceLabels...)
	check("annotations of a slice", e.Annotations, convert.TriggerAnnotation)

	for name, labels := range map[string][]string{
		"n1": slices.Sorted(maps.Keys(clutter(corev1.LabelTopologyZone, convert.ExcludeLabel))),
		"n2": {corev1.LabelTopologyZone, convert.ExcludeLabel},
	} {
		n := node(name)
		n.Labels, n.Annotations = clutter(corev1.LabelTopologyZone, convert.ExcludeLabel), clutter(convert.DrainNodeAnnotation)
		n.Spec.Taints = []corev1.Taint{{Key: "other"}, {Key: convert.LeavingTaint}, {Key: "another"}}
		n.DeletionTimestamp = new(metav1.Unix(1, 0))
		trimTwice(t, n)
		check("labels of Node "+name, n.Labels, labels...)
		check("annotations of Node "+name, n.Annotations, convert.DrainNodeAnnotation)
		if len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != convert.LeavingTaint || n.DeletionTimestamp == nil {
			t.Errorf("Node %s: taints %v, deleted %v", name, n.Spec.Taints, n.DeletionTimestamp)
		}
	}
}

// TestNodesOwnWrites: what a kubelet writes again and again is no news; what
// matters is.
func TestNodesOwnWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := node("n1")
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		n.Labels = map[string]string{corev1.LabelTopologyZone: "a"}
		b := start(t, nil, n)
		b.expect("put node n1", "synced")
		version := metav1.Unix(1e9, 0)
		write := func(change func(*corev1.Node)) {
			t.Helper()
			version = metav1.NewTime(version.Add(time.Minute))
			n.ResourceVersion = version.String()
			change(n)
			b.do(b.client.CoreV1().Nodes().Update(t.Context(), n.DeepCopy(), metav1.UpdateOptions{}))
		}
		for range 10 {
			write(func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{
					{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: version, LastTransitionTime: version},
					{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, LastTransitionTime: version},
				}
				n.Annotations = map[string]string{"ttl": version.String()}
				n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{version.String()}})
			})
		}
		b.expect()
		for range 10 {
			write(func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{{
					Type: corev1.NodeReady, Status: corev1.ConditionUnknown, LastHeartbeatTime: version, LastTransitionTime: metav1.Unix(1e9, 0),
				}}
			})
		}
		b.expect("put node n1") // it is not ready any more, once
		for name, change := range map[string]func(*corev1.Node){
			"label":    func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "b" },
			"address":  func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.0.2.2" },
			"kind":     func(n *corev1.Node) { n.Status.Addresses[0].Type = corev1.NodeExternalIP },
			"pods":     func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.1.0.0/24"} },
			"old pods": func(n *corev1.Node) { n.Spec.PodCIDR = "10.1.0.0/24" },
			"taint":    func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: convert.LeavingTaint}} },
			"deletion": func(n *corev1.Node) { n.DeletionTimestamp = &version },
			"identity": func(n *corev1.Node) { n.UID = "another" },
			"drain":    func(n *corev1.Node) { n.Annotations = map[string]string{convert.DrainNodeAnnotation: "now"} },
			"since": func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastTransitionTime: version}}
			},
			"ready": func(n *corev1.Node) { n.Status.Conditions = nil },
		} {
			write(change)
			synctest.Wait()
			if got := b.told.take(); !slices.Equal(got, []string{"put node n1"}) {
				t.Errorf("%s: told %q", name, got)
			}
		}
	})
}

// FuzzTrim: a trimmed object means what it meant before.
func FuzzTrim(f *testing.F) {
	for _, life := range sourcetest.Lives() {
		for _, step := range life.Steps {
			for _, o := range step.Objects {
				data, err := json.Marshal(o)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s corev1.Service
		if json.Unmarshal(data, &s) == nil {
			trimmed := s.DeepCopy()
			trimTwice(t, trimmed)
			same(t, means(convert.Service(&s, nil)), means(convert.Service(trimmed, nil)))
		}
		var e discoveryv1.EndpointSlice
		if json.Unmarshal(data, &e) == nil {
			trimmed := e.DeepCopy()
			trimTwice(t, trimmed)
			same(t, means(convert.EndpointSlice(&e)), means(convert.EndpointSlice(trimmed)))
		}
		var n corev1.Node
		if json.Unmarshal(data, &n) == nil {
			n.Name = "n1" // ours
			trimmed := n.DeepCopy()
			trimTwice(t, trimmed)
			same(t, means(convert.Node(&n)), means(convert.Node(trimmed)))
		}
		fuzzOwnKinds(t, data)
	})
}

func fuzzOwnKinds(t *testing.T, data []byte) {
	t.Helper()
	var secret corev1.Secret
	if json.Unmarshal(data, &secret) == nil && secret.StringData == nil { // no API server tells that
		trimmed := secret.DeepCopy()
		trimTwice(t, trimmed)
		same(t, means(convert.Secret(&secret)), means(convert.Secret(trimmed)))
	}
	var ns corev1.Namespace
	if json.Unmarshal(data, &ns) == nil {
		trimmed := ns.DeepCopy()
		trimTwice(t, trimmed)
		same(t, means(convert.Namespace(&ns)), means(convert.Namespace(trimmed)))
	}
	var pool v1alpha1.AddressPool
	if json.Unmarshal(data, &pool) == nil {
		trimmed := pool.DeepCopy()
		trimTwice(t, trimmed)
		same(t, means(convert.AddressPool(&pool)), means(convert.AddressPool(trimmed)))
	}
	var peer v1alpha1.BGPPeer
	if json.Unmarshal(data, &peer) == nil {
		trimmed := peer.DeepCopy()
		trimTwice(t, trimmed)
		same(t, means(convert.Peer(&peer, nil)), means(convert.Peer(trimmed, nil)))
	}
	var ad v1alpha1.BGPAdvertisement
	if json.Unmarshal(data, &ad) == nil {
		trimmed := ad.DeepCopy()
		trimTwice(t, trimmed)
		same(t, means(convert.Advertisement(&ad)), means(convert.Advertisement(trimmed)))
	}
}

// means are a conversion's results as one value.
func means(results ...any) []any { return results }

func same(t *testing.T, before, after []any) {
	t.Helper()
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
}
