//go:build lab

package life

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"text/template"

	"sluice.dev/sluice/e2e/topo"
)

// nowhere is a kubeconfig of an API server that does not answer.
const nowhere = `{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}],
contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}], current-context: c}`

// TestMetrics: docs/metrics.md has every metric that agents and a controller show
// when a bit of everything has happened, with the words that they show of it.
func TestMetrics(t *testing.T) {
	w := enter(t)
	for _, file := range []string{"clusterip.yaml", "bgp.yaml", "loadbalancer-local.yaml", "db.yaml", "policy-db.yaml"} {
		if err := w.apply(file); err != nil {
			t.Fatal(err)
		}
	}
	vacate, err := w.Nodes[1].Serve(topo.TCP, 32083)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vacate() }()
	p := &page{world: w, t: t}
	if _, err := p.shell("frontend", 7, "for i in $(seq 100); do curl -sS -m 2 http://10.96.0.54:5432 || exit; sleep 0.1; done"); err != nil {
		t.Fatal(err)
	}
	text, err := w.controllerMetrics()
	if err != nil {
		t.Fatal(err)
	}
	shown := exposition{}
	shown.read(text)
	had, err := os.ReadFile(filepath.Join(docs, "metrics.md"))
	if err != nil && !writing() {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err = topo.Eventually(ctx, func() error {
		for _, a := range w.agents {
			text, err := a.Page(ctx, "/metrics")
			if err != nil {
				return err
			}
			shown.read(text)
		}
		return shown.lacks(string(had))
	})
	if err != nil {
		t.Log(err) // and the comparison of pages says what that means
	}
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	b := &book{exposition: shown, alerts: alerts(string(rules)), told: map[string]bool{}}
	produce(t, w, "metrics.md", template.FuncMap{"metrics": b.table})
	if left := b.left(); len(left) > 0 {
		t.Errorf("docs/metrics.md does not have %q: testdata/metrics.md.tmpl says which prefixes it has", left)
	}
}

// controllerMetrics are what `sluice controller` shows, here without a cluster.
func (w *world) controllerMetrics() (text string, err error) {
	config := filepath.Join(w.dir, "nowhere.yaml")
	if err := os.WriteFile(config, []byte(nowhere), 0o600); err != nil {
		return "", err
	}
	log, err := w.log("controller")
	if err != nil {
		return "", err
	}
	// The client's host: nothing else of Sluice's runs there.
	controller, err := w.Client.Start(log, w.bin, "controller", "--kubeconfig", config, "--metrics-bind-address", "127.0.0.1:10251")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, controller.Stop()) }()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	err = topo.Eventually(ctx, func() error {
		resp, err := w.Client.HTTPClient().Get("http://127.0.0.1:10251/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		text = string(body)
		return err
	})
	return text, err
}
