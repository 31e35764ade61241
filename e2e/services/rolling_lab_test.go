//go:build lab

package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// connectionsPerSecond is the load of new connections, by all clients.
	connectionsPerSecond = 200
	// rollingFor is how long it lasts at least.
	rollingFor = 20 * time.Second
	// keepAliveClients is how many ask over connections that they keep.
	keepAliveClients = 8
)

// tally is what became of requests.
type tally struct {
	name string

	mu       sync.Mutex
	answered map[string]int // by pod
	failed   []error
	slow     time.Duration
	conns    int // connections opened
}

func (c *tally) note(pod string, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = append(c.failed, fmt.Errorf("at %s: %w", time.Now().Format("15:04:05.000"), err))
		return
	}
	c.answered[pod]++
	c.slow = max(c.slow, took)
}

func (c *tally) total() (total int) {
	for _, n := range c.answered {
		total += n
	}
	return total + len(c.failed)
}

func (c *tally) String() string {
	var pods []string
	for _, pod := range slices.Sorted(maps.Keys(c.answered)) {
		pods = append(pods, fmt.Sprintf("%s %d", pod, c.answered[pod]))
	}
	return fmt.Sprintf("%s: %d requests over %d connections, %d failed, the slowest after %v; answered by %s",
		c.name, c.total(), c.conns, len(c.failed), c.slow.Round(time.Millisecond), strings.Join(pods, ", "))
}

// client is an HTTP client on a host that counts its connections in c.
func (c *tally) client(from *topo.Host, keep bool) *http.Client {
	return &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: !keep, MaxIdleConnsPerHost: 1,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				c.mu.Lock()
				c.conns++
				c.mu.Unlock()
				return from.Dial(ctx, topo.TCP, netip.MustParseAddrPort(addr))
			},
		},
	}
}

// request makes one request and counts it.
func (c *tally) request(client *http.Client, at netip.AddrPort) {
	begin := time.Now()
	pod, err := fetch(client, at)
	c.note(pod, err, time.Since(begin))
}

func fetch(client *http.Client, at netip.AddrPort) (string, error) {
	resp, err := client.Get("http://" + at.String() + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	got, err := topo.ParseAnswer(string(body))
	return got.Pod, err
}

// TestRollingUpdate: a Deployment's pods are replaced one by one under load, of
// short connections and of ones that are kept. No request fails.
func TestRollingUpdate(t *testing.T) {
	w := enter(t)
	const replicas = 4
	var pods []*topo.Host
	stops := map[*topo.Host]func(context.Context) error{}
	add := func(name string, node int) *topo.Host {
		p, err := w.AddPod(w.Nodes[node], name)
		suite.Must(t, err)
		stops[p], err = p.ServePolitely(httpPort)
		suite.Must(t, err)
		pods = append(pods, p)
		return p
	}
	var running []*topo.Host
	for i := range replicas {
		running = append(running, add(fmt.Sprintf("old-%d", i+1), i%len(w.nodes)))
	}
	a := w.create(t, "rolling", ready(running...), func(svc *corev1.Service) {
		everything(svc)
		svc.Spec.Ports = svc.Spec.Ports[3:] // HTTP
	})
	a.balance(t, balancerIPs...)
	w.follows(t, a)
	w.settled(t)

	node1, node3 := w.nodes[0], w.nodes[2]
	type target struct {
		from *topo.Host
		at   netip.AddrPort
	}
	var targets []target
	for _, like := range []netip.Addr{w.near.V4, w.near.V6} {
		targets = append(targets,
			target{w.near, a.at(t, node1, clusterIP, "http", like)}, target{w.far, a.at(t, node3, clusterIP, "http", like)},
			target{w.Client, a.at(t, node3, nodePort, "http", like)}, target{w.Client, a.at(t, node1, balancerIP, "http", like)})
	}
	short := &tally{name: "short connections", answered: map[string]int{}}
	kept := &tally{name: "keep-alive", answered: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { // at a fixed rate, whatever becomes of those before
		var clients []*http.Client
		for _, to := range targets {
			clients = append(clients, short.client(to.from, false))
		}
		tick := time.NewTicker(time.Second / connectionsPerSecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			n := i % len(targets)
			wg.Go(func() { short.request(clients[n], targets[n].at) })
			<-tick.C
		}
	})
	for i := range keepAliveClients {
		wg.Go(func() {
			to := targets[i%len(targets)]
			client := kept.client(to.from, true)
			defer client.CloseIdleConnections()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				kept.request(client, to.at)
				<-tick.C
			}
		})
	}
	begin := time.Now()
	for i := range replicas {
		old := running[i]
		running[i] = add(fmt.Sprintf("new-%d", i+1), i%len(w.nodes))
		w.replace(t, a, running, old, stops[old])
	}
	if left := rollingFor - time.Since(begin); left > 0 {
		time.Sleep(left)
	}
	took := time.Since(begin)
	stop()
	wg.Wait()
	for _, c := range []*tally{short, kept} {
		t.Log(c)
		for _, err := range c.failed[:min(5, len(c.failed))] {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	t.Logf("4 of 4 pods replaced in %v, %.0f new connections/s", took.Round(time.Millisecond), float64(short.conns+kept.conns)/took.Seconds())
	if rate := float64(short.conns) / took.Seconds(); rate < connectionsPerSecond*3/4 {
		t.Errorf("only %.0f connections/s: no load to speak of", rate)
	}
	for _, p := range running {
		suite.Must(t, w.RemovePod(p))
	}
}

// replace has the first pods of a Deployment stand behind an app in place of an
// old one, in the steps that the controllers and the kubelet take.
func (w *world) replace(t *testing.T, a *app, running []*topo.Host, old *topo.Host, stop func(context.Context) error) {
	t.Helper()
	const step = time.Second
	a.scale(t, append(ready(running...), endpoint{pod: old})...) // the new one is ready
	time.Sleep(step)
	a.scale(t, append(ready(running...), endpoint{pod: old, terminating: true})...)
	time.Sleep(step) // a preStop hook, for the news to get around
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := stop(ctx); err != nil {
		t.Error(errors.Join(fmt.Errorf("%s does not stop", old.Name), err))
	}
	a.scale(t, append(ready(running...), endpoint{pod: old, terminating: true, unready: true})...)
	time.Sleep(step)
	a.scale(t, ready(running...)...)
	suite.Must(t, w.RemovePod(old))
	time.Sleep(step)
}
