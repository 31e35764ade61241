package status

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/policy"
)

// policing enforces policy on one node: namespace shop has pods web-0
// (10.244.1.5), isolated for egress, and free-0 (10.244.1.9).
func policing() *Policy {
	f := policy.NewFacts("n1")
	for i, n := range []string{"web-0", "free-0"} {
		f.Apply(model.Event{Put: model.Pod{
			Name: model.Name{Namespace: "shop", Name: n}, UID: n, Node: "n1", Labels: map[string]string{"pod": n},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(5 + 4*i)})},
		}})
	}
	f.Apply(model.Event{Put: model.NetworkPolicy{
		Name: model.Name{Namespace: "shop", Name: "closed"}, Egress: true,
		Pods: model.Selector{Requirements: []model.Requirement{{Key: "pod", Values: []string{"web-0"}}}},
	}})
	return &Policy{
		Explain: f.Explain,
		Denials: policy.NewDenials(policy.DenialOptions{Facts: f, Node: "n1"}),
		Status: func() policy.Status {
			return policy.Status{Policies: 1, LocalPods: 2, IsolatedEgress: 1, Classes: 1, Sets: 3}
		},
		Revoked: func() uint64 { return 7 },
	}
}

// deny tells of a packet from web-0 to a port of free-0, at a time after t0.
func (p *Policy) deny(port uint16, after time.Duration) {
	p.Denials.Tell(policy.Refused{
		At: t0.Add(after), Prefix: "sluice-egress", Protocol: model.TCP, In: "veth1",
		Src: netip.MustParseAddrPort("10.244.1.5:40000"), Dst: netip.AddrPortFrom(netip.MustParseAddr("10.244.1.9"), port),
	})
}

func policyHandler(p *Policy) http.Handler {
	return MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }, Policy: p, Meter: NewMeter(nil)})
}

func TestExplainOverHTTP(t *testing.T) {
	server := httptest.NewServer(policyHandler(policing()))
	t.Cleanup(server.Close) // after those who follow have gone
	post := func(body string) (int, string) {
		resp, err := http.Post(server.URL+"/policy/explain", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	code, body := post(`[{"from": "shop/free-0", "to": "shop/web-0:80"}, {"from": "shop/web-0", "to": "10.244.1.9", "protocol": "udp", "port": 53}, {"from": "shop/no", "to": "10.0.0.1:1"}]`)
	var answers []policy.Explanation
	if err := json.Unmarshal([]byte(body), &answers); err != nil || code != http.StatusOK || len(answers) != 3 {
		t.Fatalf("%d %v: %s", code, err, body)
	}
	if a, b, c := answers[0], answers[1], answers[2]; !a.Allowed || a.Error != "" || b.Allowed || b.Error != "" || c.Error == "" {
		t.Errorf("allowed, denied and unknown pod: %s", body)
	}
	if code, body = post(`[]`); code != http.StatusOK || body != "[]\n" {
		t.Errorf("no question: %d %s", code, body)
	}

	many := `[` + strings.Repeat(`{"from":"a/b","to":"10.0.0.1:1"},`, queriesMost) + `{"from":"a/b","to":"10.0.0.1:1"}]`
	for name, c := range map[string]struct {
		body string
		code int
		want string
	}{
		"no list":           {`{"from":"a/b","to":"c/d"}`, http.StatusBadRequest, "the body is no list of queries"},
		"no JSON":           {`from=a`, http.StatusBadRequest, "the body is no list of queries"},
		"a protocol":        {`[{"from":"a/b","to":"c/d","protocol":"http"}]`, http.StatusBadRequest, `protocol "http" is none; use TCP`},
		"too many at once":  {many, http.StatusBadRequest, "1001 queries: ask 1000 at most"},
		"too long a body":   {`[{"from":"` + strings.Repeat("x", queryBytes) + `"}]`, http.StatusRequestEntityTooLarge, "ask in several requests"},
		"a port beyond all": {`[{"from":"a/b","to":"c/d","port":70000}]`, http.StatusBadRequest, "port"},
	} {
		if code, body := post(c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %.300s, want %d with %q", name, code, body, c.code, c.want)
		}
	}
}

func TestExplainByParameters(t *testing.T) {
	h := policyHandler(policing())
	for parameters, c := range map[string]struct {
		code int
		want string
	}{
		"from=shop/free-0&to=shop/web-0&port=80":         {http.StatusOK, `"allowed":true`},
		"from=shop/web-0&to=shop/free-0:53&protocol=UDP": {http.StatusOK, `"allowed":false`},
		"from=shop/web-0&to=shop/free-0&protocol=icmp":   {http.StatusOK, `"allowed":false`},
		"from=shop/web-0":                                  {http.StatusOK, `"error":"to: `},
		"from=shop/web-0&to=10.0.0.1&port=http":            {http.StatusBadRequest, `port "http": use a number`},
		"from=shop/web-0&to=10.0.0.1&port=1&protocol=quic": {http.StatusBadRequest, `protocol "quic" is none; use TCP`},
	} {
		if code, body := get(t, h, "/policy/explain?"+parameters); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d with %q", parameters, code, body, c.code, c.want)
		}
	}
}

func TestWithoutPolicy(t *testing.T) {
	h := policyHandler(nil)
	for _, path := range []string{"/policy/explain", "/policy/denied", "/policy/"} {
		if code, body := get(t, h, path); code != http.StatusNotFound || !strings.Contains(body, "--enable-policy=false") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, metrics := get(t, h, "/metrics"); strings.Contains(metrics, "sluice_policy_") {
		t.Error("metrics of a policy that is off")
	}
}

// ports are the destination ports of the lines of an answer.
func ports(t *testing.T, body string) (list []uint16) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(body))
	for {
		var line Denied
		err := d.Decode(&line)
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		list = append(list, line.Dst.Port())
	}
}

func TestWhatWasDenied(t *testing.T) {
	p := policing()
	for i := range 4 {
		p.deny(uint16(80+i), time.Duration(i)*time.Second)
	}
	h := policyHandler(p)
	since := func(d time.Duration) string { return t0.Add(d).UTC().Format(time.RFC3339Nano) }
	for parameters, want := range map[string][]uint16{
		"":                               {80, 81, 82, 83},
		"?last=2":                        {82, 83},
		"?last=0":                        nil,
		"?last=9":                        {80, 81, 82, 83},
		"?since=" + since(time.Second):   {82, 83},
		"?since=" + since(0) + "&last=1": {83},
		"?pod=shop/free-0":               {80, 81, 82, 83},
		"?pod=shop/web-0&last=1":         {83},
		"?pod=shop/web":                  nil,
		"?" + (DeniedQuery{Last: 3}).Values().Encode():                                                     {81, 82, 83},
		"?" + (DeniedQuery{Last: -1, Since: t0.Add(2 * time.Second), Pod: "shop/web-0"}).Values().Encode(): {83},
	} {
		code, body := get(t, h, "/policy/denied"+parameters)
		if got := ports(t, body); code != http.StatusOK || !slices.Equal(got, want) {
			t.Errorf("%s: %d %v, want %v", parameters, code, got, want)
		}
	}
	for parameters, want := range map[string]string{
		"follow=yes!": `follow "yes!": use 1`, "last=-1": `last "-1": use a number`, "since=yesterday": `since "yesterday": use a time such as`,
	} {
		if code, body := get(t, h, "/policy/denied?"+parameters); code != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", parameters, code, body)
		}
	}
}

// reader follows denials until ctx ends.
func reader(ctx context.Context, t *testing.T, url string) (*http.Response, *bufio.Scanner) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response, bufio.NewScanner(response.Body)
}

// TestFollowingDenials: who follows gets what was and then each denial as it
// comes, longer than the server lets other answers last.
func TestFollowingDenials(t *testing.T) {
	p := policing()
	p.deny(80, 0)
	server := httptest.NewUnstartedServer(policyHandler(p))
	server.Config.WriteTimeout = 100 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close) // after those who follow have gone
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	response, lines := reader(ctx, t, server.URL+"/policy/denied?"+DeniedQuery{Follow: true, Last: -1, Pod: "shop/free-0"}.Values().Encode())
	if got := response.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("type %q", got)
	}
	next := func() (d Denied) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream has ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		return d
	}
	if d := next(); d.Dst.Port() != 80 || d.SrcPod != "shop/web-0" || d.Side != policy.DeniedEgress || d.Missed != 0 {
		t.Errorf("%+v", d)
	}
	<-time.After(2 * server.Config.WriteTimeout) // what is waited for is this time
	p.deny(81, time.Second)
	if d := next(); d.Dst.Port() != 81 {
		t.Errorf("%+v", d)
	}
}

// stalled is a writer whose reader stands still until it is let go.
type stalled struct {
	http.ResponseWriter
	at, goOn chan struct{}
}

func (s stalled) Write(b []byte) (int, error) {
	s.at <- struct{}{}
	<-s.goOn
	return s.ResponseWriter.Write(b)
}

func (s stalled) Flush() {}

// TestASlowFollower: it holds nobody up, and is told how many it has missed.
func TestASlowFollower(t *testing.T) {
	p := policing()
	p.deny(1, 0)
	w := stalled{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		policyHandler(p).ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/policy/denied?follow=1", nil))
	}()
	<-w.at
	const kept, more = 1024, 6
	for port := range kept + more {
		p.deny(uint16(port+2), time.Duration(port+1)*time.Minute)
	}
	w.goOn <- struct{}{}
	for range kept {
		<-w.at
		w.goOn <- struct{}{}
	}
	cancel()
	<-done
	lines := strings.Split(strings.TrimSpace(w.ResponseWriter.(*httptest.ResponseRecorder).Body.String()), "\n")
	var missed []string
	for _, line := range lines {
		var d Denied
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		if d.Missed > 0 {
			missed = append(missed, fmt.Sprint(d.Missed, " before ", d.Dst.Port()))
		}
	}
	if want := []string{fmt.Sprint(more, " before ", 2+more)}; len(lines) != 1+kept || !slices.Equal(missed, want) {
		t.Errorf("%d lines, missed %v; want %d and %v", len(lines), missed, 1+kept, want)
	}
}

// TestFollowersAreBounded: one too many is refused, until another goes.
func TestFollowersAreBounded(t *testing.T) {
	server := httptest.NewServer(policyHandler(policing()))
	t.Cleanup(server.Close) // after those who follow have gone
	url := server.URL + "/policy/denied?follow=1"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range followersMost {
		if r, _ := reader(ctx, t, url); r.StatusCode != http.StatusOK {
			t.Fatalf("%s", r.Status)
		}
	}
	if r, lines := reader(t.Context(), t, url); r.StatusCode != http.StatusServiceUnavailable || !lines.Scan() || !strings.Contains(lines.Text(), "32 follow already") {
		t.Errorf("one too many: %s %s", r.Status, lines.Text())
	}
	if r, _ := reader(t.Context(), t, server.URL+"/policy/denied"); r.StatusCode != http.StatusOK {
		t.Errorf("one who does not follow: %s", r.Status)
	}
	cancel()
	for {
		r, _ := reader(t.Context(), t, url)
		if r.StatusCode == http.StatusOK {
			return // the test's own deadline bounds this
		}
	}
}

func TestPolicyMetrics(t *testing.T) {
	p := policing()
	for i := range 3 {
		p.deny(80, time.Duration(i)*time.Second)
	}
	meter := NewMeter(nil)
	meter.Enforced(30 * time.Millisecond)
	meter.Enforced(-time.Second) // a clock that was set back
	_, metrics := get(t, MetricsHandler(Metrics{
		Loops: func() []reconcile.Status { return nil }, Policy: p, Meter: meter,
		Calls: func() []Calls { return []Calls{{Table: "netfilter", Commands: 4, Execs: 2}} },
	}), "/metrics")
	for _, want := range []string{
		"sluice_policy_policies 1", "sluice_policy_pods 2", "sluice_policy_classes 1", "sluice_policy_sets 3",
		`sluice_policy_isolated_pods{direction="egress"} 1`, `sluice_policy_isolated_pods{direction="ingress"} 0`,
		`sluice_policy_denied_packets_total{side="egress"} 3`, `sluice_policy_denied_packets_total{side="unknown"} 0`,
		`sluice_policy_denied_packets_by_policy_total{policy="shop/closed",side="egress"} 3`,
		"sluice_policy_denied_packets_by_other_policies_total 0", "sluice_policy_revoked_connections_total 7",
		"sluice_policy_enforcement_seconds_count 2", `sluice_policy_enforcement_seconds_bucket{le="0.032"} 2`,
		`sluice_execs_total{table="netfilter"} 2`,
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestProblemsOfTheNode: load balancers leave it, it is not ready, and nobody
// restarts the agent.
func TestProblemsOfTheNode(t *testing.T) {
	var problems []string
	h := Health{Loops: func() []reconcile.Status { return []reconcile.Status{good()} }, Problems: func() []string { return problems }}
	for _, c := range []struct {
		problems []string
		code     int
		reason   string
	}{
		{nil, http.StatusOK, ""},
		{[]string{"pods sit on a bridge", "and more"}, http.StatusServiceUnavailable, "pods sit on a bridge; and more"},
		{nil, http.StatusOK, ""},
	} {
		problems = c.problems
		code, body := get(t, HealthHandler(h), "/healthz")
		var r Report
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Reasons, "; "); code != c.code || got != c.reason || r.Healthy != (c.code == http.StatusOK) || !*r.NodeEligible {
			t.Errorf("healthz with %q: %d %s", c.problems, code, body)
		}
		if code, body := get(t, HealthHandler(h), "/readyz"); code != c.code || c.problems != nil && body != c.problems[0]+"\n" {
			t.Errorf("readyz with %q: %d %s", c.problems, code, body)
		}
		if code, body := get(t, HealthHandler(h), "/livez"); code != http.StatusOK {
			t.Errorf("livez with %q: %d %s", c.problems, code, body)
		}
		if h.Healthy(t0) != (c.code == http.StatusOK) {
			t.Errorf("healthy %v with %q", h.Healthy(t0), c.problems)
		}
	}
}
