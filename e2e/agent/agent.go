// Package agent runs the sluice binary on a host of a topology, as a node would,
// and asks it over HTTP how it is. It is for tests and demos; it knows the
// binary's flags and metrics, and nothing of its insides.
package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// Where the binary serves unless its flags say otherwise; the node's own
// loopback, which every namespace has for itself.
const (
	health  = "http://127.0.0.1:10256"
	metrics = "http://127.0.0.1:10249"
)

// Agent is a running `sluice run`.
type Agent struct {
	Host *topo.Host

	process *topo.Process
	client  *http.Client
}

// Start runs `bin run args...` on a host. Its output goes to log, which must
// take writes while others are made if it is shared.
func Start(h *topo.Host, bin string, log io.Writer, args ...string) (*Agent, error) {
	p, err := h.Start(log, bin, append([]string{"run"}, args...)...)
	if err != nil {
		return nil, err
	}
	return &Agent{Host: h, process: p, client: h.HTTPClient()}, nil
}

// Ready waits until every kernel table holds what is wanted. It fails at once
// when the program ends.
func (a *Agent) Ready(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-a.process.Done():
			cancel(fmt.Errorf("sluice ended: %w", a.process.Err()))
		case <-ctx.Done():
		}
	}()
	err := topo.Eventually(ctx, func() error { return a.Probe(ctx, "/readyz") })
	if err != nil {
		return fmt.Errorf("agent: %s is not ready: %w", a.Host.Name, err)
	}
	return nil
}

// Probe asks for the program's own opinion, as a kubelet does: "/livez", "/readyz",
// "/healthz".
func (a *Agent) Probe(ctx context.Context, path string) error {
	_, err := a.get(ctx, health+path)
	return err
}

// State is the text of /state: one line per kernel table, and what fails.
func (a *Agent) State(ctx context.Context) (string, error) { return a.get(ctx, metrics+"/state") }

// Page is what the program serves beside its metrics, for instance "/bgp/peers".
func (a *Agent) Page(ctx context.Context, path string) (string, error) {
	return a.get(ctx, metrics+path)
}

// Metric is the sum of all series of a name that have these labels, and maybe
// others. That there is none is an error, not 0.
func (a *Agent) Metric(ctx context.Context, name string, labels map[string]string) (float64, error) {
	text, err := a.get(ctx, metrics+"/metrics")
	if err != nil {
		return 0, fmt.Errorf("agent: metrics of %s: %w", a.Host.Name, err)
	}
	return sum(text, name, labels)
}

func sum(text, name string, labels map[string]string) (float64, error) {
	total, found := 0.0, false
	for line := range strings.Lines(text) {
		series, value, ok := cutLast(strings.TrimSpace(line), " ")
		if !ok || !matches(series, name, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("agent: %q: %w", line, err)
		}
		total, found = total+v, true
	}
	if !found {
		return 0, fmt.Errorf("agent: no metric %s %v", name, labels)
	}
	return total, nil
}

// matches looks at a series as Prometheus's text format has it,
// name{a="b",c="d"}. The values of ours need no escapes.
func matches(series, name string, labels map[string]string) bool {
	is, has, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	if is != name {
		return false
	}
	has = "," + has + ","
	for k, v := range labels {
		if !strings.Contains(has, fmt.Sprintf(",%s=%q,", k, v)) {
			return false
		}
	}
	return true
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (a *Agent) get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// Pid is the program's process id.
func (a *Agent) Pid() int { return a.process.Pid() }

// Done is closed when the program has ended.
func (a *Agent) Done() <-chan struct{} { return a.process.Done() }

// Stop asks the program to end and waits for it.
func (a *Agent) Stop() error { return a.process.Stop() }

// Kill ends the program without warning, as a crash would.
func (a *Agent) Kill() error { return a.process.Kill() }

// Freeze stops the program where it is, as on a machine that hangs.
func (a *Agent) Freeze() error { return a.process.Freeze() }

// Thaw ends a Freeze.
func (a *Agent) Thaw() error { return a.process.Thaw() }
