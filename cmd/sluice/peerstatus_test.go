package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/status"
)

// peersAPI is an API server as far as the status of BGPPeers goes. Requests go
// to it without a network.
type peersAPI struct {
	mu       sync.Mutex
	list     string // the items
	failing  int    // nodes in the status of a peer that is read alone
	refuse   int    // status code of every answer
	requests []string
}

// RoundTrip answers like an API server.
func (a *peersAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	const path = "/apis/sluice.dev/v1alpha1/bgppeers"
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	peer, applies := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, path+"/"), "/status")
	switch {
	case a.refuse != 0:
		a.requests = append(a.requests, r.Method)
		w.WriteHeader(a.refuse)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, a.refuse,
			map[int]string{http.StatusNotFound: "NotFound", http.StatusForbidden: "Forbidden"}[a.refuse])
	case r.Method == http.MethodGet && r.URL.Path == path:
		a.requests = append(a.requests, "list "+r.URL.RawQuery)
		fmt.Fprintf(w, `{"kind":"BGPPeerList","apiVersion":"sluice.dev/v1alpha1","metadata":{},"items":[%s]}`, a.list)
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, path+"/"):
		a.requests = append(a.requests, fmt.Sprintf("get %s %s", peer, r.URL.RawQuery))
		var object v1alpha1.BGPPeer
		for i := range a.failing {
			object.Status.Failing = append(object.Status.Failing, v1alpha1.FailingNode{Node: fmt.Sprint("n", 10+i)})
		}
		object.Kind, object.APIVersion = v1alpha1.BGPPeerKind, v1alpha1.APIVersion
		_ = json.NewEncoder(w).Encode(object)
	case r.Method == http.MethodPatch && applies && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		body, _ := io.ReadAll(r.Body)
		var said struct{ Status json.RawMessage }
		_ = json.Unmarshal(body, &said)
		a.requests = append(a.requests, strings.TrimSpace(fmt.Sprintf("apply %s %s %s", peer, r.URL.RawQuery, said.Status)))
		_, _ = w.Write(body)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
	return w.Result(), nil
}

func (a *peersAPI) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.requests = nil }()
	return slices.Clone(a.requests)
}

func (a *peersAPI) answer(code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = code
}

// reporting runs a reporter of node n1 in a bubble. Sessions are down as set
// says.
func reporting(t *testing.T, a *peersAPI, script func(set func(...status.Down), expect func(...string), logs *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api, err := client.New(&rest.Config{Host: "http://api", Transport: a, QPS: -1})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var down []status.Down
		var logs bytes.Buffer
		r := newPeerReporter(api, "n1", func() []status.Down {
			mu.Lock()
			defer mu.Unlock()
			return down
		}, slog.New(slog.NewTextHandler(&logs, nil)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.run(ctx) }()
		set := func(now ...status.Down) {
			mu.Lock()
			defer mu.Unlock()
			down = now
		}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := a.take(); !slices.Equal(got, want) {
				t.Errorf("asked\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		}
		script(set, expect, &logs)
		stop()
		<-done
	})
}

// since is so long after the start of a bubble's clock.
func since(d time.Duration) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d)
}

const (
	listed  = "list resourceVersion=0"
	asked   = "get tor1 resourceVersion=0"
	applied = "apply tor1 fieldManager=sluice-n1&force=true "
	removed = "apply tor1 fieldManager=sluice-n1&force=true"
)

func TestHealthyNodeWritesNothing(t *testing.T) {
	reporting(t, &peersAPI{}, func(set func(...status.Down), expect func(...string), _ *bytes.Buffer) {
		set(status.Down{Peer: "tor1", Since: since(0), Error: "starting"}) // not for long
		time.Sleep(14 * time.Second)
		expect() // nor at once
		time.Sleep(time.Minute)
		expect(listed)
		time.Sleep(24 * time.Hour)
		expect()
	})
}

func TestPeerStatus(t *testing.T) {
	a := &peersAPI{}
	reporting(t, a, func(set func(...status.Down), expect func(...string), logs *bytes.Buffer) {
		const entry = `{"failing":[{"node":"n1","since":"2000-01-01T00:00:01Z","error":"connection refused"}]}`
		down := status.Down{Peer: "tor1", Since: since(1700 * time.Millisecond), Error: "connection refused", Long: true}
		set(down)
		time.Sleep(time.Minute)
		expect(listed, asked, applied+entry)
		time.Sleep(time.Hour)
		expect() // said once

		down.Error = "bad AS"
		set(down)
		time.Sleep(time.Minute)
		other := strings.Replace(entry, "connection refused", "bad AS", 1)
		expect(applied + other)
		down.Error = "connection refused" // to and fro
		set(down)
		time.Sleep(4 * time.Minute)
		expect()
		time.Sleep(2 * time.Minute)
		expect(applied + entry)

		set(down, status.Down{Peer: "tor2", Since: since(time.Hour)}) // tor2 not for long
		time.Sleep(time.Minute)
		expect()
		set()
		time.Sleep(time.Hour)
		expect(removed)
		if logs.Len() > 0 {
			t.Errorf("logged %s", logs)
		}
	})
}

// TestWhatAFormerRunReported is taken back, or kept with its time.
func TestWhatAFormerRunReported(t *testing.T) {
	const item = `{"apiVersion":"sluice.dev/v1alpha1","kind":"BGPPeer","metadata":{"name":"%s"},"spec":{"peerAddress":"192.0.2.1","peerASN":1,"myASN":2},` +
		`"status":{"failing":[{"node":"n0","since":"1999-12-31T00:00:00Z"},{"node":"%s","since":"1999-12-31T00:00:00Z","error":"bad AS"}]}}`
	a := &peersAPI{list: strings.Join([]string{fmt.Sprintf(item, "tor1", "n1"), fmt.Sprintf(item, "tor2", "n1"), fmt.Sprintf(item, "tor3", "n2")}, ",")}
	reporting(t, a, func(set func(...status.Down), expect func(...string), _ *bytes.Buffer) {
		set(status.Down{Peer: "tor2", Since: since(0), Error: "bad AS"})
		time.Sleep(time.Minute)
		expect(listed, removed)
		set(status.Down{Peer: "tor2", Since: since(0), Error: "bad AS", Long: true})
		time.Sleep(time.Minute)
		expect() // as it stands
		set(status.Down{Peer: "tor2", Since: since(0), Error: "connection refused", Long: true})
		time.Sleep(time.Minute)
		expect(strings.Replace(applied, "tor1", "tor2", 1) + `{"failing":[{"node":"n1","since":"1999-12-31T00:00:00Z","error":"connection refused"}]}`)
	})
}

// TestEnoughOthersSaySo: a router that many nodes lose is not written to by all.
func TestEnoughOthersSaySo(t *testing.T) {
	a := &peersAPI{failing: status.FailingLimit}
	reporting(t, a, func(set func(...status.Down), expect func(...string), _ *bytes.Buffer) {
		set(status.Down{Peer: "tor1", Since: since(0), Long: true})
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, request := range a.take() {
			if want := map[bool]string{true: listed, false: asked}[i == 0]; request != want {
				t.Errorf("asked %q", request)
			}
		}
		a.mu.Lock()
		a.failing--
		a.mu.Unlock()
		time.Sleep(time.Minute)
		expect(asked, applied+`{"failing":[{"node":"n1","since":"2000-01-01T00:00:00Z"}]}`)
	})
}

// TestAPIServerRefuses: it is asked less and less often, and one line says so;
// none where the kinds are missing.
func TestAPIServerRefuses(t *testing.T) {
	for code, lines := range map[int]int{http.StatusForbidden: 1, http.StatusNotFound: 0} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			a := &peersAPI{refuse: code}
			reporting(t, a, func(set func(...status.Down), expect func(...string), logs *bytes.Buffer) {
				set(status.Down{Peer: "tor1", Since: since(0), Long: true})
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := len(a.take()); n < 8 || n > 30 {
					t.Errorf("asked %d times in an hour", n)
				}
				if got := strings.Count(logs.String(), "cannot report sessions"); got != lines {
					t.Errorf("logged\n%s", logs)
				}
				a.answer(0)
				time.Sleep(10 * time.Minute)
				expect(listed, asked, applied+`{"failing":[{"node":"n1","since":"2000-01-01T00:00:00Z"}]}`)
				a.answer(code)
				set()
				time.Sleep(time.Minute)
				a.answer(0)
				a.take()
				time.Sleep(10 * time.Minute)
				if code == http.StatusNotFound { // the peer was gone: nothing to take back
					expect()
				} else {
					expect(removed)
				}
			})
		})
	}
}

func TestFieldManager(t *testing.T) {
	long := strings.Repeat("a", 253)
	if got := fieldManager("n1"); got != "sluice-n1" {
		t.Error(got)
	}
	if a, b := fieldManager(long+"a"), fieldManager(long+"b"); a == b || len(a) > managerLimit {
		t.Error(a, b)
	}
}
