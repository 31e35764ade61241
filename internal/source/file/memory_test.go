package file

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
)

// line is an event in one line.
func line(e model.Event) string {
	switch {
	case e.Source != "file":
		return "signed " + e.Source
	case e.Synced:
		return "synced"
	case e.Problem != nil:
		return fmt.Sprintf("problem %s %s: %s", e.Problem.Reason, e.Problem.Object, e.Problem.Message)
	case e.Delete != nil:
		return fmt.Sprintf("delete %T %v", e.Delete, e.Delete)
	}
	switch f := e.Put.(type) {
	case model.Service:
		return fmt.Sprintf("put service %s %v", f.Name, f.ClusterIPs)
	case model.EndpointSlice:
		return fmt.Sprintf("put slice %s", f.Name)
	case model.Node:
		return fmt.Sprintf("put node %s", f.Name)
	case model.Peer:
		return fmt.Sprintf("put peer %s %q", f.Name, string(f.Password))
	case model.AddressPool:
		return fmt.Sprintf("put pool %s %v", f.Name, f.Ranges)
	case model.Pod:
		return fmt.Sprintf("put pod %s %s %v", f.Name, f.UID, f.Addrs)
	case model.NetworkPolicy:
		types := map[[2]bool]string{{true, false}: "Ingress", {false, true}: "Egress", {true, true}: "both"}[[2]bool{f.Ingress, f.Egress}]
		return fmt.Sprintf("put policy %s: %s of %d rules", f.Name, types, len(f.IngressRules)+len(f.EgressRules))
	}
	return fmt.Sprintf("put %T", e.Put)
}

// step is what the files say at one moment, and what is told of it.
type step struct {
	name  string
	files []text
	told  []string // beginnings of lines, sorted
	never []string
}

func svc(n int) string { return serviceYAML(fmt.Sprintf("s%d", n), fmt.Sprintf("10.96.0.%d", n)) }

func at(path string, docs ...string) text {
	return text{path: path, data: []byte(strings.Join(docs, "---\n"))}
}

func TestMemory(t *testing.T) {
	typo := strings.Replace(svc(1), "protocol:", "prot:", 1)
	moved := strings.Replace(svc(1), "10.96.0.1", "10.96.0.101", 2)
	loop := strings.Replace(svc(1), "spec:", "spec:\n  externalIPs:\n  - 127.0.0.1", 1)
	rows := map[string][]step{
		"a life": {
			{"nothing", nil, nil, nil},
			{"a file", []text{at("a", svc(1), svc(2))}, []string{"put service default/s1", "put service default/s2"}, nil},
			{"the same", []text{at("a", svc(1), svc(2))}, nil, nil},
			{"turned", []text{at("a", svc(2), svc(1))}, nil, nil},
			{"a comment", []text{at("a", "# hello\n", svc(2), svc(1))}, nil, nil},
			{"one changed", []text{at("a", moved, svc(2))}, []string{"put service default/s1 [10.96.0.101]"}, nil},
			{"one gone", []text{at("a", moved)}, []string{"delete model.ServiceKey {default/s2}"}, nil},
			{"renamed", []text{at("b", moved)}, []string{"put service default/s1"}, nil},
			{"emptied by a comment", []text{at("b", "# none\n")}, []string{"delete model.ServiceKey {default/s1}"}, nil},
		},
		"a bad file keeps its last state, others go on": {
			{"good", []text{at("a", svc(1)), at("b", svc(2))}, []string{"put service default/s1", "put service default/s2"}, nil},
			{
				"bad", []text{at("a", typo, svc(3)), at("b", svc(2), svc(4))},
				[]string{`problem InvalidFile a: a:17: unknown field "spec.ports[0].prot"; the last good state of the file stays`, "put service default/s4"}, nil,
			},
			{"still bad", []text{at("a", typo, svc(3)), at("b", svc(2))}, []string{"delete model.ServiceKey {default/s4}"}, nil},
			{"bad elsewhere", []text{at("a", svc(3), typo), at("b", svc(2))}, []string{"problem InvalidFile a: a:37: unknown field"}, nil},
			{"good again", []text{at("a", svc(1)), at("b", svc(2))}, nil, nil},
			{"bad again", []text{at("a", svc(3), typo), at("b", svc(2))}, []string{"problem InvalidFile a: a:37: unknown field"}, nil},
			{"empty", []text{at("a", ""), at("b", svc(2))}, []string{"problem InvalidFile a: a: the file is empty"}, nil},
			{"unreadable", []text{{path: "a", err: errors.New("permission denied")}, at("b", svc(2))}, []string{"problem InvalidFile a: a: permission denied"}, nil},
			{"being written", []text{{path: "a", err: errBusy}, at("b", svc(2))}, nil, nil},
			{"gone", []text{at("b", svc(2))}, []string{"delete model.ServiceKey {default/s1}"}, nil},
		},
		"a file that is bad from the start": {
			{
				"bad", []text{at("a", typo), at("b", svc(2)), {path: "c", err: errBusy}},
				[]string{"problem InvalidFile a", "put service default/s2"}, []string{"a", "c"},
			},
			{"empty", []text{at("a", ""), at("b", svc(2)), at("c", svc(3))}, []string{"problem InvalidFile a", "put service default/s3"}, []string{"a"}},
			{"removed", []text{at("b", svc(2)), at("c", svc(3))}, nil, nil},
		},
		"one object in two files": {
			{
				"twice", []text{at("a", svc(1)), at("b", moved, svc(2))},
				[]string{"problem DefinedTwice b: b: Service default/s1 is already in a, which counts", "put service default/s1 [10.96.0.1]", "put service default/s2"}, nil,
			},
			{"the first is gone", []text{at("b", moved, svc(2))}, []string{"put service default/s1 [10.96.0.101]"}, nil},
			{
				"an earlier one comes", []text{at("a", svc(1)), at("b", moved, svc(2))},
				[]string{"problem DefinedTwice b", "put service default/s1 [10.96.0.1]"}, nil,
			},
			{"in one file", []text{at("a", svc(1), svc(1))}, []string{"delete model.ServiceKey {default/s2}", "problem DefinedTwice a: a: Service default/s1 stands there twice"}, nil},
		},
		"not to be proxied any more": {
			{"proxied", []text{at("a", svc(1), sliceYAML("e", "s1", 1))}, []string{"put service default/s1", "put slice default/e"}, nil},
			{
				"headless, and of another proxy",
				[]text{at("a", strings.ReplaceAll(svc(1), "10.96.0.1", "None"), strings.Replace(sliceYAML("e", "s1", 1), "labels:", "labels:\n    service.kubernetes.io/service-proxy-name: x", 1))},
				[]string{"delete model.EndpointSliceKey {default/e}", "delete model.ServiceKey {default/s1}"}, nil,
			},
			{"again", []text{at("a", svc(1), sliceYAML("e", "s1", 1))}, []string{"put service default/s1", "put slice default/e"}, nil},
		},
		"problems of objects": {
			{"loopback", []text{at("a", loop)}, []string{`problem InvalidAddress default/s1: spec.externalIPs[0]: "127.0.0.1" is a loopback address; correct or remove it (in a)`, "put service default/s1"}, nil},
			{"another change", []text{at("a", loop, svc(2))}, []string{"put service default/s2"}, nil},
			{"mended", []text{at("a", svc(1))}, []string{"delete model.ServiceKey {default/s2}", "put service default/s1"}, nil},
			{"back", []text{at("a", loop)}, []string{"problem InvalidAddress", "put service default/s1"}, nil},
		},
	}
	for name, steps := range rows {
		t.Run(name, func(t *testing.T) {
			m := newMemory(quiet())
			for _, s := range steps {
				m.take(s.files)
				var got []string
				for _, e := range m.events() {
					got = append(got, line(e))
				}
				slices.Sort(got)
				if !slices.EqualFunc(got, s.told, strings.HasPrefix) {
					t.Errorf("%s: told\n\t%s\nwant\n\t%s", s.name, strings.Join(got, "\n\t"), strings.Join(s.told, "\n\t"))
				}
				if never := m.neverGood(); !slices.Equal(never, s.never) {
					t.Errorf("%s: never good %q, want %q", s.name, never, s.never)
				}
			}
		})
	}
}

// big is n Services and n EndpointSlices of ten endpoints, in files files.
func big(files, n int, extension string) []text {
	texts := make([]text, files)
	for i := range texts {
		texts[i].path = fmt.Sprintf("%03d.%s", i, extension)
	}
	for i := range n {
		t := &texts[i*files/n]
		t.data = append(t.data, serviceYAML(fmt.Sprintf("svc-%d", i), fmt.Sprintf("10.%d.%d.%d", 96+i>>16, i>>8&255, i&255))...)
		t.data = append(t.data, "---\n"...)
		t.data = append(t.data, sliceYAML(fmt.Sprintf("svc-%d-x", i), fmt.Sprintf("svc-%d", i), 10)...)
		t.data = append(t.data, "---\n"...)
	}
	return texts
}

func TestOneLineOfABigFileIsOneDecoding(t *testing.T) {
	m := newMemory(quiet())
	texts := big(2, 200, "yaml")
	if c := m.take(texts); c.changed != 2 || c.decoded != 400 || len(c.bad) > 0 {
		t.Fatalf("first: %+v", c)
	}
	if n := len(m.events()); n != 400 {
		t.Fatalf("%d events", n)
	}
	texts[0].data = []byte(strings.Replace(string(texts[0].data), "port: 80\n", "port: 81\n", 1))
	if c := m.take(texts); c.changed != 1 || c.decoded != 1 {
		t.Errorf("one line: %+v", c)
	}
	if n := len(m.events()); n != 1 {
		t.Errorf("%d events", n)
	}
	texts[0].data = append([]byte("# a comment, that moves everything\n---\n"), texts[0].data...)
	if c := m.take(texts); c.changed != 1 || c.decoded != 0 {
		t.Errorf("a comment: %+v", c)
	}
}

func TestBadFileIsNotDecodedAgainWhole(t *testing.T) {
	m := newMemory(quiet())
	texts := big(1, 100, "yaml")
	good := string(texts[0].data)
	texts[0].data = []byte(good + "kind: Typo\n")
	if c := m.take(texts); c.decoded != 201 || len(c.bad) != 1 {
		t.Fatalf("first: %+v", c)
	}
	if c := m.take(texts); c.changed != 0 || c.decoded != 0 {
		t.Fatalf("unchanged: %+v", c)
	}
	texts[0].data = []byte(good)
	if c := m.take(texts); c.decoded != 0 || len(c.mended) != 1 {
		t.Errorf("mended: %+v", c)
	}
}
