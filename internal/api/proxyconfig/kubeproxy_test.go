package proxyconfig

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

const kubeProxyHead = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// TestEveryFieldIsInTheTable: a field that a new version of the type brings has
// to be given a flag, or a reason why it is ignored.
func TestEveryFieldIsInTheTable(t *testing.T) {
	var inType, inTable []string
	for _, l := range leaves(reflect.ValueOf(v1alpha1.KubeProxyConfiguration{}), "") {
		inType = append(inType, l.path)
	}
	for _, f := range Fields() {
		inTable = append(inTable, f.Path)
		if f.Flag == "" && f.Why == "" {
			t.Errorf("%s is ignored without a reason", f.Path)
		}
		if f.Flag == "" && f.Modes != nil {
			t.Errorf("%s has modes without a flag", f.Path)
		}
	}
	slices.Sort(inType)
	slices.Sort(inTable)
	if !slices.Equal(inType, inTable) {
		t.Errorf("the type has\n%q\nand the table\n%q", inType, inTable)
	}
	if len(inType) < 60 {
		t.Errorf("only %d fields found", len(inType))
	}
}

// fill gives a leaf a value that is none's default, and its words.
func fill(t *testing.T, v reflect.Value) string {
	t.Helper()
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		return fill(t, v.Elem())
	}
	switch p := v.Addr().Interface().(type) {
	case *metav1.Duration:
		p.Duration = 77 * time.Second
		return "1m17s"
	case *map[string]bool:
		*p = map[string]bool{"B": true, "A": false}
		return "A=false,B=true"
	case *resource.QuantityValue:
		p.Quantity = resource.MustParse("4Ki")
		return "4Ki"
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
		return "true"
	case reflect.Int32:
		v.SetInt(7)
		return "7"
	case reflect.Uint32:
		v.SetUint(7)
		return "7"
	case reflect.Float32:
		v.SetFloat(7.5)
		return "7.5"
	case reflect.String:
		v.SetString("word")
		return "word"
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		if v.Type().Elem().Kind() == reflect.String {
			v.Index(0).SetString("one")
			v.Index(1).SetString("two")
			return "one,two"
		}
		return `[{"filePattern":"","verbosity":0},{"filePattern":"","verbosity":0}]`
	}
	if d := v.FieldByName("Duration"); d.IsValid() { // TimeOrMetaDuration
		v.FieldByName("SerializeAsString").SetBool(true)
		return fill(t, d)
	}
	t.Fatalf("%s: give it a value here", v.Type())
	return ""
}

// TestEveryFieldIsHeard: each field alone, set to something, is one setting or
// one note with its value and its line; and in the modes that do not read it a
// note.
func TestEveryFieldIsHeard(t *testing.T) {
	for i, f := range Fields() {
		modes := []string{"", ModeIPVS, ModeIPTables, ModeNFTables}
		if f.Path == "mode" {
			modes = []string{""}
		}
		for _, mode := range modes {
			var c v1alpha1.KubeProxyConfiguration
			c.APIVersion, c.Kind = KubeProxyVersion, KubeProxyKind
			c.Mode = v1alpha1.ProxyMode(mode)
			all := leaves(reflect.ValueOf(&c).Elem(), "")
			at := slices.IndexFunc(all, func(l leaf) bool { return l.path == f.Path })
			want := fill(t, all[at].value)
			text, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := Read("file", text, nil)
			if err != nil || len(docs) != 1 {
				t.Errorf("%d %s: %v\n%s", i, f.Path, err, text)
				continue
			}
			got := heard(docs[0], f.Path)
			read := f.Flag != "" && (f.Modes == nil || slices.Contains(f.Modes, mode) || mode == "" && slices.Contains(f.Modes, ModeIPTables))
			says := fmt.Sprintf("note %s", want)
			if read {
				says = fmt.Sprintf("--%s=%s", f.Flag, want)
			}
			if got != says {
				t.Errorf("mode %q, %s: %q, want %q", mode, f.Path, got, says)
			}
		}
	}
}

// heard is what a document has of a field, and an error in words if it is on
// another line than the field's name.
func heard(d Document, path string) string {
	var out []string
	for _, s := range d.Settings {
		if s.At.Field == path {
			out = append(out, "--"+s.Flag+"="+strings.Join(s.Values, ","))
		} else if s.At.Field != "mode" {
			out = append(out, "stranger "+s.At.String())
		}
	}
	for _, n := range d.Notes {
		if n.At.Field == path && n.Why != "" && !n.Unknown {
			out = append(out, "note "+n.Value)
		} else {
			out = append(out, "stranger "+n.At.String()+" "+n.Why)
		}
	}
	return strings.Join(out, "; ")
}

// TestKubeadmsFile reads what kubeadm v1.36.3 writes into the ConfigMap
// kube-proxy: as it is by default, and with much of it set by hand.
func TestKubeadmsFile(t *testing.T) {
	for _, name := range []string{"kubeadm", "kubeadm-tuned"} {
		path := "testdata/" + name + ".conf"
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := Read(name+".conf", data, nil)
		if err != nil || len(docs) != 1 {
			t.Fatalf("%s: %d documents, %v", path, len(docs), err)
		}
		var got strings.Builder
		lines := strings.Split(string(data), "\n")
		at := func(p Place) string {
			last := p.Field[strings.LastIndex(p.Field, ".")+1:]
			if !strings.HasPrefix(strings.TrimSpace(lines[p.Line-1]), last+":") {
				t.Errorf("%s: there stands %q", p, lines[p.Line-1])
			}
			return p.String()
		}
		for _, s := range docs[0].Settings {
			fmt.Fprintf(&got, "%s is --%s=%s\n", at(s.At), s.Flag, strings.Join(s.Values, ","))
		}
		for _, n := range docs[0].Notes {
			fmt.Fprintf(&got, "%s = %s is ignored: %s\n", at(n.At), n.Value, n.Why)
		}
		t.Logf("\n%s", &got)
		want, err := os.ReadFile("testdata/" + name + ".want")
		if err != nil || got.String() != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", path, err, &got, want)
		}
	}
}

// TestLenient: what kube-proxy passes over is no error here either.
func TestLenient(t *testing.T) {
	text := kubeProxyHead + `clusterCIDR: 10.244.0.0/16
clusterCidr: 10.0.0.0/8
ipvs:
  scheduler: lc
  strictArp: true
  scheduler: rr
  own: {a: 1}
future:
  field: [1]
metadata: {name: x}
resourceContainer: /kube-proxy
`
	docs, err := Read("f", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range docs[0].Settings {
		got = append(got, fmt.Sprintf("%s=%s", s.At, strings.Join(s.Values, ",")))
	}
	for _, n := range docs[0].Notes {
		got = append(got, fmt.Sprintf("%s=%s %t %s", n.At, n.Value, n.Unknown, n.Why))
	}
	want := []string{
		"f:8: ipvs.scheduler=rr",
		"f:3: clusterCIDR=10.244.0.0/16",
		"f:4: clusterCidr=10.0.0.0/8 true kube-proxy has no such field; is clusterCIDR meant?",
		"f:7: ipvs.strictArp=true true kube-proxy has no such field; is ipvs.strictARP meant?",
		"f:8: ipvs.scheduler=rr true it stands in this object twice, and the last one counts",
		"f:9: ipvs.own=an object true kube-proxy has no such field",
		"f:10: future=an object true kube-proxy has no such field",
		"f:12: metadata=an object true kube-proxy has no such field",
		"f:13: resourceContainer=/kube-proxy true kube-proxy has no such field",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestWrongTypes: what cannot be decoded is an error with its line, all at once.
func TestWrongTypes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"ipvs:\n  strictARP: \"yes\"\n", "f:4: ipvs.strictARP: yes: it is of type string, and bool is needed"},
		{"ipvs:\n  syncPeriod: 30\n", "f:4: ipvs.syncPeriod: 30: it is of type number, and string is needed"},
		{"ipvs:\n  scheduler: rr\n  syncPeriod: 30 s\n", "f:5: ipvs.syncPeriod: 30 s: time: unknown unit \" s\" in duration \"30 s\""},
		{"clusterCIDR: [10.0.0.0/8]\nconntrack:\n  min: many\n",
			"f:3: clusterCIDR: a list: it is of type array, and string is needed\nf:5: conntrack.min: many: it is of type string, and int32 is needed"},
		{"ipvs: on\nhostnameOverride: a\n", "f:3: ipvs: on: it is of type bool, and v1alpha1.KubeProxyIPVSConfiguration is needed"},
		{"nodePortAddresses: primary\n", "f:3: nodePortAddresses: primary: it is of type string, and []string is needed"},
		{"conntrack: {min: 99999999999}\n", "f:3: conntrack.min: 99999999999: it is of type number 99999999999, and int32 is needed"},
	} {
		_, err := Read("f", []byte(kubeProxyHead+c.text), nil)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q:\n%v\nwant\n%s", c.text, err, c.want)
		}
	}
}

// TestWhatKubeProxyTakes: YAML 1.1's words for true, JSON, anchors.
func TestWhatKubeProxyTakes(t *testing.T) {
	js, err := yaml.YAMLToJSON([]byte(kubeProxyHead + "clusterCIDR: 10.0.0.0/8\n"))
	if err != nil || !json.Valid(js) {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		kubeProxyHead + "ipvs: {strictARP: yes}\n": "ipvs-strict-arp=true",
		string(js): "cluster-cidr=10.0.0.0/8",
		kubeProxyHead + "ipvs: &a {scheduler: lc}\nfeatureGates: {}\n":                                "ipvs-scheduler=lc",
		kubeProxyHead + "iptables: {syncPeriod: &p 45s, minSyncPeriod: 0s}\nipvs: {syncPeriod: *p}\n": "audit-period=45s",
	} {
		docs, err := Read("f", []byte(text), nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if s := docs[0].Settings; len(s) != 1 || s[0].Flag+"="+s[0].Values[0] != want {
			t.Errorf("%q: %+v, want %s", text, s, want)
		}
	}
}
