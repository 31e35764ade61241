package healthcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

var web = model.Name{Namespace: "default", Name: "web"}

// freeKey is an address of this host that nothing listens on.
func freeKey(t *testing.T, host string) Key {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("no %s here: %v", host, err)
	}
	defer l.Close()
	return keyOf(l)
}

func keyOf(l net.Listener) Key { return Key{netip.MustParseAddrPort(l.Addr().String())} }

func newTarget(t *testing.T, opts Options) *Target {
	t.Helper()
	target := New(opts)
	t.Cleanup(target.Close)
	return target
}

func put(t *testing.T, target *Target, k Key, spec Spec) {
	t.Helper()
	if errs := target.Apply(t.Context(), change{Puts: []reconcile.Put[Key, Spec]{{Key: k, Spec: spec}}}); len(errs) > 0 {
		t.Fatal(errs)
	}
}

func del(t *testing.T, target *Target, k Key) {
	t.Helper()
	if errs := target.Apply(t.Context(), change{Dels: []Key{k}}); len(errs) > 0 {
		t.Fatal(errs)
	}
}

func listed(t *testing.T, target *Target) map[Key]Spec {
	t.Helper()
	present := map[Key]Spec{}
	for section, err := range target.List(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(present, section.Present)
	}
	return present
}

// prober is a load balancer that asks over a connection it keeps.
func prober(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// probe is one answer: its status, the weight and the body.
func probe(c *http.Client, k Key, path string) (code int, weight, body string, err error) {
	resp, err := c.Get("http://" + k.String() + path)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), string(b), err
}

func TestAnswers(t *testing.T) {
	var healthy atomic.Bool
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			target, client, k := newTarget(t, Options{Healthy: healthy.Load}), prober(t), freeKey(t, host)
			for _, step := range []struct {
				name      string
				endpoints int
				healthy   bool
				code      int
			}{
				{"two endpoints", 2, true, http.StatusOK},
				{"one", 1, true, http.StatusOK},
				{"the last one terminates", 0, true, http.StatusServiceUnavailable},
				{"endpoints, but the tables are not as wanted", 3, false, http.StatusServiceUnavailable},
				{"neither", 0, false, http.StatusServiceUnavailable},
				{"all is well again", 3, true, http.StatusOK},
			} {
				healthy.Store(step.healthy)
				put(t, target, k, Spec{Service: web, Endpoints: step.endpoints})
				code, weight, body, err := probe(client, k, "/healthz")
				want := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n"+
					"\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}", step.endpoints, step.healthy)
				if err != nil || code != step.code || weight != fmt.Sprint(step.endpoints) || body != want {
					t.Errorf("%s: %d, weight %s (%v):\n%s\nwant %d:\n%s", step.name, code, weight, err, body, step.code, want)
				}
			}
		})
	}
}

func TestEveryPathAndMethodIsAnswered(t *testing.T) {
	target, k := newTarget(t, Options{}), freeKey(t, "127.0.0.1")
	put(t, target, k, Spec{Service: web, Endpoints: 1})
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		for _, path := range []string{"/", "/healthz", "/any/thing?x=y"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+k.String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := prober(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			h := resp.Header
			if resp.StatusCode != http.StatusOK || h.Get("Content-Type") != "application/json" || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: %d %v", method, path, resp.StatusCode, h)
			}
		}
	}
}

// TestAChangeRebindsNothing: the listener stays and so does an idle connection.
func TestAChangeRebindsNothing(t *testing.T) {
	listens := 0
	target := newTarget(t, Options{Listen: func(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
		listens++
		return listen(ctx, a)
	}})
	k := freeKey(t, "127.0.0.1")
	put(t, target, k, Spec{Service: web, Endpoints: 1})
	conn, err := net.Dial("tcp", k.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for _, spec := range []Spec{
		{Service: web, Endpoints: 1},
		{Service: web, Endpoints: 5},
		{Service: web},
		{Service: model.Name{Namespace: "other", Name: "heir"}, Endpoints: 1},
	} {
		put(t, target, k, spec)
		if got := listed(t, target); !maps.Equal(got, map[Key]Spec{k: spec}) {
			t.Errorf("listed %v, want %v", got, spec)
		}
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: node\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("the connection did not live on: %v", err)
		}
		body, _ := io.ReadAll(resp.Body)
		if !strings.Contains(string(body), fmt.Sprintf("%q", spec.Service.Name)) ||
			resp.Header.Get("X-Load-Balancing-Endpoint-Weight") != fmt.Sprint(spec.Endpoints) {
			t.Errorf("%v: %v %s", spec, resp.Header, body)
		}
	}
	if listens != 1 {
		t.Errorf("listened %d times", listens)
	}
}

// TestADeletionCloses at once, whatever clients do, and leaves nothing behind:
// the port is free and no goroutine runs on.
func TestADeletionCloses(t *testing.T) {
	before := runtime.NumGoroutine()
	target, k := newTarget(t, Options{}), freeKey(t, "127.0.0.1")
	put(t, target, k, Spec{Service: web, Endpoints: 1})
	client := prober(t)
	if code, _, _, err := probe(client, k, "/"); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	slow, err := net.Dial("tcp", k.String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET / HTTP/1.1\r\n") // and no more

	began := time.Now()
	del(t, target, k)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
	if l, err := net.Listen("tcp", k.String()); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		l.Close()
	}
	if code, _, _, err := probe(client, k, "/"); err == nil {
		t.Errorf("answered %d after its deletion", code)
	}
	if _, err := slow.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived the deletion")
	}
	if got := listed(t, target); len(got) > 0 {
		t.Errorf("listed %v", got)
	}
	del(t, target, k) // what is absent
	client.CloseIdleConnections()
	for limit := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestABrokenListener is not listed, so that an audit finds it missing, and is
// opened anew.
func TestABrokenListener(t *testing.T) {
	var opened []net.Listener
	target := newTarget(t, Options{Listen: func(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
		l, err := listen(ctx, a)
		opened = append(opened, l)
		return l, err
	}})
	k, spec := freeKey(t, "127.0.0.1"), Spec{Service: web, Endpoints: 1}
	put(t, target, k, spec)
	opened[0].Close()
	<-target.open[k].done
	if got := listed(t, target); len(got) > 0 {
		t.Errorf("listed %v", got)
	}
	put(t, target, k, spec)
	if code, _, _, err := probe(prober(t), k, "/"); err != nil || code != http.StatusOK {
		t.Errorf("%d %v", code, err)
	}
}

// running is a loop over a target. settled has what came true.
func running(t *testing.T, target *Target) (loop *reconcile.Loop[string, Key, Spec], settled chan uint64) {
	t.Helper()
	settled = make(chan uint64, 100)
	loop = reconcile.NewLoop(target, reconcile.Options[string, Key]{
		Name: "healthcheck",
		Less: func(a, b string) bool { return a < b },
		Settled: func(s []reconcile.Settlement[string]) {
			for _, one := range s {
				settled <- one.Version
			}
		},
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { loop.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	loop.Synced()
	return loop, settled
}

func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// TestAPortThatIsTaken fails alone, is told of once although it is tried again
// and again, and is answered when the port is free.
func TestAPortThatIsTaken(t *testing.T) {
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken, free := keyOf(foreign), freeKey(t, "127.0.0.1")
	problems, tries := make(chan model.Problem, 100), make(chan struct{}, 10_000)
	target := newTarget(t, Options{
		Problem: func(p model.Problem) { problems <- p },
		Listen: func(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
			if a == taken.Addr {
				tries <- struct{}{}
			}
			return listen(ctx, a)
		},
	})
	loop, settled := running(t, target)
	other := model.Name{Namespace: "default", Name: "other"}
	loop.Claim("web", reconcile.Claim[Key, Spec]{Version: 1, Put: map[Key]Spec{taken: {web, "u1", 1}}})
	loop.Claim("other", reconcile.Claim[Key, Spec]{Version: 2, Put: map[Key]Spec{free: {other, "u2", 1}}})
	if v := within(t, settled, "the other Service's health check"); v != 2 {
		t.Errorf("settled %d first", v)
	}
	for range 5 {
		within(t, tries, "another try")
	}
	p := <-problems
	want := model.Problem{
		Kind: "Service", Object: web, UID: "u1", Reason: "FailedToStartServiceHealthcheck",
		Message: fmt.Sprintf("spec.healthCheckNodePort: cannot answer load balancers' health checks on %[1]s: listen tcp %[1]s: bind: address already in use; "+
			"stop what listens on port %[2]d of this node (ss -ltnp shows it), or make the Service anew with another port; it is tried again until it succeeds",
			taken, taken.Addr.Port()),
	}
	if p != want {
		t.Errorf("told of %+v\nwant %+v", p, want)
	}
	s := loop.Status()
	if s.FailingCount != 1 || s.Present != 1 {
		t.Errorf("%d fail, %d present", s.FailingCount, s.Present)
	}
	if want := "health check of Service default/web on " + taken.String() + ": "; !strings.HasPrefix(s.Failing[0].Error, want) {
		t.Errorf("fails with %q, want %q", s.Failing[0].Error, want)
	}
	foreign.Close()
	if v := within(t, settled, "success after the port is free"); v != 1 {
		t.Errorf("settled %d", v)
	}
	if code, _, _, err := probe(prober(t), taken, "/"); err != nil || code != http.StatusOK {
		t.Errorf("%d %v", code, err)
	}
	if len(problems) > 0 {
		t.Errorf("told again: %+v", <-problems)
	}
}

// TestToldOnce says how long a failure is the same one.
func TestToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		var fails error
		target := New(Options{
			Problem: func(p model.Problem) { told = append(told, p.Object.Name+p.UID) },
			Listen: func(context.Context, netip.AddrPort) (net.Listener, error) {
				return nil, fails
			},
		})
		k := Key{netip.MustParseAddrPort("192.0.2.1:32000")}
		try := func(uid string, want int) {
			t.Helper()
			errs := target.Apply(t.Context(), change{Puts: []reconcile.Put[Key, Spec]{{Key: k, Spec: Spec{Service: web, UID: uid}}}})
			if !errors.Is(errs[k], fails) {
				t.Errorf("failed with %v", errs[k])
			}
			if len(told) != want {
				t.Errorf("told of %v, want %d", told, want)
			}
		}
		fails = syscall.EADDRINUSE
		try("u1", 1)
		for range 20 { // for ten minutes, at the loop's longest wait
			time.Sleep(30 * time.Second)
			try("u1", 1)
		}
		fails = syscall.EADDRNOTAVAIL // it is still the same trouble to the Service
		try("u1", 1)
		try("u2", 2) // the Service was made anew
		del(t, target, k)
		try("u2", 3) // gone and wanted again
		time.Sleep(lull + time.Second)
		try("u2", 4) // nobody wanted it for a while
		if len(target.failed) != 1 {
			t.Errorf("remembers %v", target.failed)
		}
	})
}

// TestTwoServicesOnOnePort: the first owner has it, the other one after it,
// without the port being closed in between.
func TestTwoServicesOnOnePort(t *testing.T) {
	k := freeKey(t, "127.0.0.1")
	target := newTarget(t, Options{})
	loop, settled := running(t, target)
	claim := func(owner string, version uint64, put map[Key]Spec) {
		loop.Claim(owner, reconcile.Claim[Key, Spec]{Version: version, Put: put})
		if v := within(t, settled, "a claim"); v != version {
			t.Fatalf("settled %d, want %d", v, version)
		}
	}
	client := prober(t)
	answers := func(name string) {
		t.Helper()
		if _, _, body, err := probe(client, k, "/"); err != nil || !strings.Contains(body, `"name": "`+name+`"`) {
			t.Errorf("%v %s, want %s", err, body, name)
		}
	}
	claim("b", 1, map[Key]Spec{k: {Service: model.Name{Namespace: "x", Name: "b"}}})
	answers("b")
	claim("a", 2, map[Key]Spec{k: {Service: model.Name{Namespace: "x", Name: "a"}}})
	answers("a")
	claim("a", 3, nil)
	answers("b")
}

// TestClientsMeanwhile is for the race detector: probes while the answer
// changes and the health check comes and goes.
func TestClientsMeanwhile(t *testing.T) {
	target, k := newTarget(t, Options{}), freeKey(t, "127.0.0.1")
	put(t, target, k, Spec{Service: web, Endpoints: 1})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		client := prober(t)
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				code, weight, body, err := probe(client, k, "/")
				if err != nil {
					continue // closed just now
				}
				if (code == http.StatusOK) != (weight != "0") || !strings.Contains(body, `"localEndpoints": `+weight+",") {
					t.Errorf("%d, weight %s: %s", code, weight, body)
				}
			}
		})
	}
	for i := range 200 {
		if i%20 == 19 {
			del(t, target, k)
		}
		put(t, target, k, Spec{Service: web, Endpoints: i % 3})
	}
	target.Close()
	close(stop)
	clients.Wait()
}
