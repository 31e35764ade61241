package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/sourcetest"
)

func podYAML(name, uid, addr string) string {
	return lines("apiVersion: v1", "kind: Pod", "metadata:", "  name: "+name, "  uid: "+uid, "spec:", "  nodeName: n1", "status:", "  podIPs:", "  - ip: "+addr)
}

func policyYAML(spec string) string {
	return lines("apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy", "metadata:", "  name: np", "spec: "+spec)
}

// TestPods: another pod under a name is the deletion of the first, then the
// second; two of a name are one too many, whatever their UIDs.
func TestPods(t *testing.T) {
	m := newMemory(quiet())
	for _, s := range []step{
		{"one", []text{at("a", podYAML("p", "u1", "10.1.0.1"))}, []string{"put pod default/p u1 [10.1.0.1]"}, nil},
		{"moved to another file", []text{at("b", podYAML("p", "u1", "10.1.0.1"))}, []string{"put pod default/p u1"}, nil},
		{"anew", []text{at("b", podYAML("p", "u2", "10.1.0.1"))}, []string{"delete model.PodKey {default/p u1}", "put pod default/p u2"}, nil},
		{"its address goes to another", []text{at("b", podYAML("q", "u3", "10.1.0.1"))}, []string{"delete model.PodKey {default/p u2}", "put pod default/q u3"}, nil},
		{
			"two of a name", []text{at("b", podYAML("q", "u3", "10.1.0.1")), at("c", podYAML("q", "u4", "10.1.0.2"))},
			[]string{"problem DefinedTwice c: c: Pod default/q is already in b, which counts"}, nil,
		},
		{"the first is gone", []text{at("c", podYAML("q", "u4", "10.1.0.2"))}, []string{"delete model.PodKey {default/q u3}", "put pod default/q u4"}, nil},
	} {
		m.take(s.files)
		var got []string
		for _, e := range m.events() {
			got = append(got, line(e))
		}
		if !slices.EqualFunc(got, s.told, strings.HasPrefix) {
			t.Errorf("%s: told\n\t%s\nwant\n\t%s", s.name, strings.Join(got, "\n\t"), strings.Join(s.told, "\n\t"))
		}
	}
}

// TestPolicies: an unknown field narrows a policy and is told; it stops neither
// the file nor Synced. What cannot be enforced as it says leaves what was before.
func TestPolicies(t *testing.T) {
	const unknown = `problem UnknownField default/np: spec.egress[0].namespaceSelector: "namespaceSelector" is not a field that is known here; ` +
		`correct its name or its indentation, or upgrade; until then this rule allows nothing (in a.yaml)`
	dir := mkdir(t, "a.yaml", policyYAML("{policyTypes: [Egress], egress: [{namespaceSelector: {}}, {}]}")+"---\n"+svc(1))
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.says("at first", unknown, "put policy default/np: Egress of 1 rules", "put service default/s1", "synced")
		change := func(data string, want ...string) {
			t.Helper()
			d.write("a.yaml", data)
			d.ring("a.yaml")
			time.Sleep(2 * settleDefault)
			d.says(data, want...)
		}
		change(policyYAML("{policyTypes: [Egress], egress: [{namespaceSelector: {}}]}"), "delete model.ServiceKey {default/s1}", "put policy default/np: Egress of 0 rules")
		change(policyYAML("{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}"), "put policy default/np: Egress of 1 rules")
		change(policyYAML("{podSelector: {matchLabels: {a: ' '}}}"), "problem InvalidSelector default/np: spec.podSelector: ")
		change(policyYAML("{podSelector: {matchLabels: {a: ' '}}, egress: [{}]}"))
		change(policyYAML("Egress"), "problem InvalidFile "+dir+"/a.yaml: "+dir+"/a.yaml:5: spec: cannot use a value of type string")
		change(policyYAML("{}"), "put policy default/np: Ingress of 0 rules")
		change("# none\n", "delete model.NetworkPolicyKey {default/np}")
	})
}

// TestLoad: a command sees what the source tells, and what is wrong beside it.
func TestLoad(t *testing.T) {
	dir := mkdir(t, "a.yaml", policyYAML("{egress: [{namespaceSelector: {}}]}")+"---\n"+podYAML("p", "u1", "10.1.0.1"),
		"b.yaml", "kind: nonsense\n", "c.json", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`, "d.txt", "nonsense")
	facts, problems, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	known := sourcetest.NewPicture(t, source.File)
	for _, e := range facts {
		known.Event(e)
	}
	known.Expect(t, "loaded", []string{
		"policy default/np: pods *, Ingress, Egress", "pod default/p u1: [10.1.0.1], on n1", "namespace shop: map[kubernetes.io/metadata.name:shop]",
	})
	var got []string
	for _, p := range problems {
		got = append(got, p.Reason)
	}
	if slices.Sort(got); !slices.Equal(got, []string{"InvalidFile", "UnknownField"}) || known.Synced() {
		t.Errorf("problems %v, synced %v", problems, known.Synced())
	}
}

func TestLoadFails(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no directory: %v", err)
	}
	dir := mkdir(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "a.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, problems, err := Load(dir); err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "is not a regular file") {
		t.Errorf("no file: %v, %v", problems, err)
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if facts, problems, err := Load(dir); err != nil || facts != nil || problems != nil {
		t.Errorf("nothing: %v, %v, %v", facts, problems, err)
	}
}

// TestPolicyExamples: what they say is what their comments promise.
func TestPolicyExamples(t *testing.T) {
	facts, problems, err := Load("../../../deploy/examples")
	if err != nil || problems != nil {
		t.Fatalf("problems %v, error %v", problems, err)
	}
	known := sourcetest.NewPicture(t, source.File)
	for _, e := range facts {
		switch e.Put.(type) {
		case model.Pod, model.NetworkPolicy, model.Namespace:
			known.Event(e)
		}
	}
	known.Expect(t, "the examples", []string{
		"namespace edge: map[kubernetes.io/metadata.name:edge team:edge]",
		"namespace shop: map[kubernetes.io/metadata.name:shop]",
		"pod edge/proxy-0 : [10.244.2.20 fd00:10:244:2::20], on node2, labels map[app:proxy]",
		"pod kube-system/coredns-0 : [10.244.2.53 fd00:10:244:2::53], on node2, labels map[k8s-app:kube-dns], dns 53/UDP, dns-tcp 53/TCP",
		"pod shop/web-0 : [10.244.1.20 fd00:10:244:1::20], on node1, labels map[app:web], http 8080/TCP",
		"policy shop/default-deny: pods *, Ingress, Egress",
		"policy shop/dns: pods *, Egress, out 0: 0:pods k8s-app=kube-dns in namespaces kubernetes.io/metadata.name=kube-system at 0:53/UDP or 1:53/TCP",
		"policy shop/web-from-edge: pods app=web, Ingress, in 0: 0:pods app=proxy in namespaces team=edge at 0:http/TCP",
		"policy shop/web-outside: pods app=web, Ingress, Egress, in 0: 0:172.20.0.0/16 but [172.20.66.0/24] or 1:2001:db8:20::/48 but [2001:db8:20:66::/64] at 0:8080/TCP, " +
			"out 0: 0:198.51.100.0/24 at 0:8443-8453/TCP",
	})
}
