package file

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
)

func quiet() decoder { return decoder{log: slog.New(slog.DiscardHandler)} }

// parse decodes a file by itself.
func parse(data string) *file {
	m := newMemory(quiet())
	m.take([]text{{path: "f", data: []byte(data)}})
	return m.files[0]
}

func lines(list ...string) string { return strings.Join(list, "\n") + "\n" }

// own is an object of our own kinds.
func own(kind, name string, spec ...string) string {
	return lines("apiVersion: sluice.dev/v1alpha1", "kind: "+kind, "metadata:", "  name: "+name, "spec:", "  "+strings.Join(spec, "\n  "))
}

func TestObjects(t *testing.T) {
	const js = `{"apiVersion":"v1","kind":"Service","metadata":{"name":"j"},"spec":{"clusterIP":"10.96.0.9"}}`
	rows := []struct {
		name, data string
		want       string // keys, with "+" if there is something to put
	}{
		{"Service", serviceYAML("a", "10.96.0.1"), "+{default/a}"},
		{"in the namespace default", "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1}}", "+{default/a}"},
		{"in a namespace", "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns}}", "{ns/a}"},
		{"headless", strings.ReplaceAll(serviceYAML("a", "None"), "10.96", ""), "{default/a}"},
		{"EndpointSlice", sliceYAML("a-1", "a", 2), "+{default/a-1}"},
		{"Node", "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n", "+{n1}"},
		{"JSON", js, "+{default/j}"},
		{"several", serviceYAML("a", "10.96.0.1") + "---\n" + sliceYAML("a-1", "a", 2) + "---\n" + js, "+{default/a} +{default/a-1} +{default/j}"},
		{"flow style one after another, as JSON may stand", "{apiVersion: v1, kind: Node, metadata: {name: 'n}'}}\n", "+{n}}"},
		{"List in JSON", `{"kind":"List","apiVersion":"v1","items":[` + js + "]}", "+{default/j}"},
		{"List in YAML", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: a\n  spec:\n    clusterIP: 10.96.0.1\n", "+{default/a}"},
		{"old line ends", "apiVersion: v1\rkind: Node\rmetadata:\r  name: n1\r", "+{n1}"},
		{"List with windows' line ends", "apiVersion: v1\r\nkind: NodeList\r\nitems:\r\n- metadata:\r\n    name: n1\r\n", "+{n1}"},
		{"in flow style over lines", "{apiVersion: v1,\n kind: Node,\n metadata: {name: n1}}\n# end\n", "+{n1}"},
		{"List in flow style", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: n1}}]\n", "+{n1}"},
		{"List of a kind", "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n  spec: {clusterIP: 10.96.0.1}\n", "+{default/a}"},
		{"List of a kind in flow style", "apiVersion: v1\nkind: NodeList\nitems: [{metadata: {name: n1}}]\n", "+{n1}"},
		{"List with an anchor across items", "apiVersion: v1\nkind: NodeList\nitems:\n- metadata: &m {name: n1}\n- metadata: *m\n", "+{n1} +{n1}"},
		{"empty List", "apiVersion: v1\nkind: List\nitems: []\n", ""},
		{"comments only", "# nothing yet\n", ""},
		{"null", "~\n", ""},
		{"kinds of Kubernetes that are not used", lines(
			"apiVersion: networking.k8s.io/v1", "kind: Ingress", "---", "apiVersion: v1", "kind: ConfigMap", "---",
			"apiVersion: apps/v1", "kind: Deployment", "whatever: 1"), ""},
		{"kinds of others", lines(
			"apiVersion: sluice.dev/v1alpha1", "kind: AddressClaim", "---", "apiVersion: metallb.io/v1beta1", "kind: IPAddressPool", "---",
			"apiVersion: serving.knative.dev/v1", "kind: Service", "---", "apiVersion: projectcalico.org/v3", "kind: NetworkPolicy"), ""},
		{"Pod", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  nodeName: n1\nstatus:\n  podIPs:\n  - ip: 10.1.0.1\n", "+{default/p }"},
		{"Pod of a UID", "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns, uid: u1}}", "+{ns/p u1}"},
		{"Pods as kubectl lists them", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p}\n- metadata: {name: q}\n", "+{default/p } +{default/q }"},
		{"NetworkPolicy", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: np\nspec: {}\n", "+{default/np}"},
		{"NetworkPolicies as kubectl lists them", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: a, namespace: x}\n- metadata: {name: b, namespace: x}\n  spec: {ingress: [{}]}\n", "+{x/a} +{x/b}"},
		{"NetworkPolicy with unknown fields in its spec", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np}, spec: {egress: [{namespaceSelector: {}}]}}", "+{default/np}"},
		{"NetworkPolicy that isolates who knows whom", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np}, spec: {podSelector: {matchLabels: {a: ' '}}}}", "{default/np}"},
		{"Namespace", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n", "+{shop}"},
		{"Secret with a password", "{apiVersion: v1, kind: Secret, metadata: {name: tor}, data: {password: cGFzcw==}}", "+{tor}"},
		{"Secret with a password in the clear", "{apiVersion: v1, kind: Secret, metadata: {name: tor}, stringData: {password: pass}}", "+{tor}"},
		{"Secret of another kind", "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: tor}, data: {tls.key: cGFzcw==}}", ""},
		{"Secret that should have a password", "{apiVersion: v1, kind: Secret, type: kubernetes.io/basic-auth, metadata: {name: tor}}", "{tor}"},
		{"AddressPool", own("AddressPool", "blue", "addresses: [192.0.2.0/24]"), "+{blue}"},
		{"AddressPools as kubectl lists them", "apiVersion: sluice.dev/v1alpha1\nkind: AddressPoolList\nitems:\n- metadata: {name: blue}\n  spec: {addresses: [192.0.2.0/24]}\n", "+{blue}"},
		{"AddressPool that cannot be used", own("AddressPool", "blue", "addresses: [192.0.2.0]"), "{blue}"},
		{"BGPPeer", own("BGPPeer", "tor", "peerAddress: 192.0.2.1", "peerASN: 64513", "myASN: 64512", "passwordSecret: tor"), "+{tor}"},
		{"BGPPeer without its password", own("BGPPeer", "tor", "peerAddress: 192.0.2.1", "peerASN: 64513", "myASN: 64512", "passwordFile: /nowhere"), "{tor}"},
		{"BGPAdvertisement", own("BGPAdvertisement", "all", "communities: ['64512:1']"), "+{all}"},
		{"BGPAdvertisement of everything", "apiVersion: sluice.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata:\n  name: all\n", "+{all}"},
		{"lists of them", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: p}\n", ""},
		{"an old version of Kubernetes' kinds", "apiVersion: policy/v1beta0\nkind: PodSecurityPolicy\n", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := parse(row.data)
			if len(f.faults) > 0 {
				t.Fatalf("faults %v", f.faults)
			}
			var got []string
			for _, o := range f.objects {
				sign := ""
				if o.put != nil {
					sign = "+"
				}
				got = append(got, fmt.Sprintf("%s%v", sign, o.key))
			}
			if s := strings.Join(got, " "); s != row.want {
				t.Errorf("got %q, want %q", s, row.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	good := serviceYAML("a", "10.96.0.1")
	at := strings.Count(good, "\n") + 1 // the line after it
	rows := []struct {
		name, data string
		want       []string
	}{
		{"empty", "", []string{"f: the file is empty"}},
		{"only space", " \n\n", []string{"f: the file is empty"}},
		{"unknown field", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "spec:", "  ports:", "  - port: 80", "  - port: 81", "    prot: TCP"),
			[]string{`f:9: unknown field "spec.ports[1].prot"`}},
		{"unknown field in the second document", good + lines("---", "apiVersion: v1", "kind: Node", "metadata:", "  name: n1", "specs: {}"),
			[]string{fmt.Sprintf(`f:%d: unknown field "specs"`, at+5)}},
		{"unknown field of a Pod", lines("apiVersion: v1", "kind: Pod", "metadata:", "  name: p", "spec:", "  node: n1"), []string{`f:6: unknown field "spec.node"`}},
		{"unknown fields of a NetworkPolicy outside of its spec", lines("apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy", "metadata:", "  name: np", "  label: {}", "specs:", "  ingress: []", "spec:", "  foo: 1"),
			[]string{`f:5: unknown field "metadata.label"`, `f:6: unknown field "specs"`}},
		{"NetworkPolicy without a name", lines("apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy", "metadata: {}", "spec:", "  foo: 1"), []string{"f:3: metadata.name is missing"}},
		{"NetworkPolicy of a wrong type", lines("apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy", "metadata:", "  name: np", "spec:", "  policyTypes: Ingress"), []string{"f:6: spec.policyTypes: cannot use a value of type string"}},
		{"field of a NetworkPolicy twice", "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{\"name\":\"np\"},\n\"spec\":{\"ingress\":[],\"ingress\":[{}]}}", []string{`f:2: duplicate field "spec.ingress"`}},
		{"old versions of NetworkPolicy", lines("apiVersion: networking.k8s.io/v1beta1", "kind: NetworkPolicy", "---", "apiVersion: extensions/v1beta1", "kind: NetworkPolicy"),
			[]string{"f:1: NetworkPolicies of networking.k8s.io/v1beta1 are not read; write apiVersion: networking.k8s.io/v1", "f:4: NetworkPolicies of extensions/v1beta1 are not read"}},
		{"unknown field in JSON", "{\"apiVersion\":\"v1\",\n\"kind\":\"Node\",\n\"metadata\":{\"name\":\"n\"},\n\"Spec\":{}}", []string{`f:4: unknown field "Spec"`}},
		{"case counts", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "spec:", "  clusterip: 10.96.0.1"),
			[]string{`f:6: unknown field "spec.clusterip"`}},
		{"field twice, plainly", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "spec:", "  clusterIP: 10.96.0.1", "  clusterIP: 10.96.0.2"),
			[]string{`f:7: duplicate field "spec.clusterIP"`}},
		{"field twice, else", lines("apiVersion: v1", "kind: Service # x", "metadata:", "  name: a", "  name: b"),
			[]string{`f:5: yaml: unmarshal errors:` + "\n  line 5: key \"name\" already set in map"}},
		{"wrong type", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "spec:", "  ports:", "  - port: 80", "  - port: eighty"),
			[]string{"f:8: spec.ports.port: cannot use a value of type string as int32"}},
		{"label that is a number", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "  labels:", "    v: 1"),
			[]string{"f:5: metadata.labels: cannot use a value of type number as string"}},
		{"mapping where a list should be", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "spec:", "  ports:", "    port: 80"),
			[]string{"f:6: spec.ports: cannot use a value of type object as []v1.ServicePort"}},
		{"YAML error", good + lines("---", "apiVersion: v1", "kind: [Service"), []string{fmt.Sprintf("f:%d: yaml: line", at+2)}},
		{"tab", lines("apiVersion: v1", "kind: Service", "metadata:", "\tname: a"), []string{"f:4: yaml: line 4: found character that cannot start any token"}},
		{"JSON error", "{\"apiVersion\":\"v1\",\n\"kind\":\"Node\"\n", []string{"f:"}},
		{"JSON error in an item", "{\"kind\":\"List\",\"items\":[\n{\"apiVersion\":\"v1\",\n\"kind\" \"Node\"}]}", []string{"f:2: yaml: line 2"}},
		{"comma too many", "{\"kind\":\"Node\",\n\"apiVersion\":\"v1\",}", []string{"f:1: metadata.name is missing"}},
		{"a scalar", "hello\n", []string{"f:1: is not an object"}},
		{"a list", "# x\n- a\n", []string{"f:1: is not an object"}},
		{"a number among items", `{"kind":"List","items":[1]}`, []string{"f:1: "}},
		{"no kind", lines("# c", "", "metadata:", "  name: a"), []string{"f:3: kind is missing"}},
		{"no apiVersion", lines("metadata:", "  name: a", "kind: Service"), []string{"f:3: apiVersion is missing"}},
		{"misspelt kind", lines("apiVersion: v1", "kind: Servce"), []string{`f:2: v1 has no kind "Servce"`}},
		{"misspelt version", lines("kind: EndpointSlice", "apiVersion: discovery.k8s.io/v1beta1"),
			[]string{"f:2: EndpointSlices of discovery.k8s.io/v1beta1 are not read; write apiVersion: discovery.k8s.io/v1"}},
		{"misspelt kind of ours", lines("apiVersion: sluice.dev/v1alpha1", "kind: BGPPeers"), []string{`f:2: sluice.dev/v1alpha1 has no kind "BGPPeers"`}},
		{"another version of ours", lines("apiVersion: sluice.dev/v1", "kind: BGPPeer"), []string{`f:2: sluice.dev/v1 has no kind "BGPPeer" that is read from files; those of sluice.dev/v1alpha1 are`}},
		{"unknown field of ours", own("BGPPeer", "tor", "peerAddress: 192.0.2.1", "peerAsn: 64513"), []string{`f:7: unknown field "spec.peerAsn"`}},
		{"wrong type of ours", own("BGPPeer", "tor", "peerAddress: 192.0.2.1", "peerASN: x"), []string{"f:7: spec.peerASN: cannot use a value of type string as int64"}},
		{"Secret that is not in base64", lines("apiVersion: v1", "kind: Secret", "metadata:", "  name: tor", "data:", "  password: geheim!"), []string{"f:1: illegal base64 data"}},
		{"strange version", lines("kind: Service", "apiVersion: a/b/c"), []string{"f:2: unexpected GroupVersion string: a/b/c"}},
		{"no name", lines("apiVersion: v1", "kind: Service", "metadata:", "  namespace: a"), []string{"f:3: metadata.name is missing"}},
		{"no metadata", lines("apiVersion: v1", "kind: Service"), []string{"f:1: metadata.name is missing"}},
		{"in a List", lines("apiVersion: v1", "items:", "- apiVersion: v1", "  kind: Node", "  metadata:", "    name: n1", "- apiVersion: v1", "  kind: Node", "  metadata:", "    nam: m", "kind: List"),
			[]string{`f:10: unknown field "metadata.nam"`}},
		{"kind twice", lines("apiVersion: v1", "kind: Service", "metadata:", "  name: a", "kind: Pod"),
			[]string{"f:5: yaml: unmarshal errors:"}},
		{"more after the end", "{apiVersion: v1, kind: Node, metadata: {name: n1}}\napiVersion: v1\n", []string{"f:1: there is more after the end"}},
		{"old line ends", "apiVersion: v1\rkind: Pod\r---\rapiVersion: v1\rkind: Pod\r", []string{"f:1: there is more after the end"}},
		{"several", lines("apiVersion: v1", "kind: Servce", "---", "apiVersion: v1", "kind: Nod"),
			[]string{`f:2: v1 has no kind "Servce"`, `f:5: v1 has no kind "Nod"`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := parse(row.data)
			if f.good || len(f.objects) > 0 {
				t.Errorf("good: %v", f.objects)
			}
			for i, fault := range f.faults {
				if got := fault.String("f"); i >= len(row.want) || !strings.HasPrefix(got, row.want[i]) {
					t.Errorf("unexpected fault %q", got)
				} else {
					t.Log(got)
				}
			}
			if len(f.faults) < len(row.want) {
				t.Errorf("missing faults %q", row.want[len(f.faults):])
			}
		})
	}
}

func TestDefaultsOfFiles(t *testing.T) {
	f := parse("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIPs: [10.96.0.1], ports: [{port: 80}]}}")
	svc, ok := f.objects[0].put.(model.Service)
	if !ok || svc.UID != "" || !svc.Created.IsZero() || len(svc.ClusterIPs) != 1 || svc.Ports[0].Protocol != model.TCP {
		t.Errorf("got %+v", svc)
	}
}
