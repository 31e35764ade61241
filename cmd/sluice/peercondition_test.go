package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/model"
)

// TestPeerConditions: the condition sums up what nodes say, is written when it
// changes, and what nodes said that are gone is taken back.
func TestPeerConditions(t *testing.T) {
	api := &peersAPI{}
	own, err := client.New(&rest.Config{Host: "http://api", Transport: api, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	c := newPeerConditions(own.BGPPeers(), slog.New(slog.DiscardHandler))
	tell := func(facts ...any) {
		for _, f := range facts {
			c.Event(model.Event{Put: f})
		}
	}
	pass := func(when string, want ...string) {
		t.Helper()
		if err := c.pass(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		var got []string
		for _, r := range api.take() {
			if strings.HasPrefix(r, "apply") {
				before, _, _ := strings.Cut(r, `"lastTransitionTime"`)
				got = append(got, before)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	pass("no peer is known")
	tell(model.Peer{Name: "tor"}, model.Node{Name: "n1"}, model.Node{Name: "n2"})
	const said = `apply tor fieldManager=sluice-controller&force=true {"conditions":[{"type":"Established","status":`
	api.list = `{"metadata":{"name":"tor","generation":3}},{"metadata":{"name":"broken"}}`
	pass("nobody fails", said+`"True","observedGeneration":3,`)
	stands := `"status":{"conditions":[{"type":"Established","status":"True","observedGeneration":3,"reason":"Established","message":"none of 2 nodes misses its session","lastTransitionTime":"2026-01-01T00:00:00Z"}]`
	api.list = `{"metadata":{"name":"tor","generation":3},` + stands + `}}`
	pass("it says so already")
	api.list = `{"metadata":{"name":"tor","generation":3},` + stands + `,"failing":[{"node":"n1","since":"` + time.Now().UTC().Format(time.RFC3339) + `","error":"no answer"},{"node":"gone","since":"2026-01-01T00:00:00Z"}]}}`
	pass("one fails, and one that is gone did",
		"apply tor fieldManager=sluice-gone&force=true", said+`"False","observedGeneration":3,`)
}
