package ipam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

// office is a running controller over a server, within a synctest bubble.
type office struct {
	t    *testing.T
	api  *server
	c    *Controller
	mu   sync.Mutex
	told []string // problems
	log  logged
	stop func()
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t *testing.T, api *server, elect func(context.Context, func(context.Context)) error) *office {
	t.Helper()
	o := &office{t: t, api: api}
	o.c = NewController(ControllerOptions{
		Source: api.watch(func() {}), Cluster: api, Elect: elect, Log: slog.New(slog.NewTextHandler(&o.log, nil)),
		Problem: func(p model.Problem) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.told = append(o.told, fmt.Sprintf("%s %s %s", p.Kind, p.Object, p.Reason))
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.c.Run(ctx) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(o.stop)
	return o
}

// settle waits until nothing moves any more.
func settle() {
	time.Sleep(30 * time.Second)
	synctest.Wait()
}

func (o *office) expect(want string) {
	o.t.Helper()
	settle()
	if got := o.api.table(); got != want {
		o.t.Errorf("got\n%swant\n%s", got, want)
	}
}

func plain(*corev1.Service) {}

func annotate(key, value string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		annotations := map[string]string{key: value}
		for k, v := range s.Annotations {
			if k != key {
				annotations[k] = v
			}
		}
		s.Annotations = annotations
	}
}

func TestControllerGives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.3"))
		api.put("x", plain)
		api.put("y", plain)
		o := start(t, api, nil)
		o.expect("x [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nclaim 192.0.2.1 [shop/x] []\nclaim 192.0.2.2 [shop/y] []\n")
		in := api.service("x").Status.LoadBalancer.Ingress[0]
		if in.IPMode == nil || *in.IPMode != corev1.LoadBalancerIPModeVIP {
			t.Errorf("ingress %+v", in)
		}
		// Everything is said: nothing more is written.
		calls := 0
		api.onCall = func(string) { calls++ }
		settle()
		if calls > 0 {
			t.Errorf("%d requests for nothing", calls)
		}
		api.onCall = func(string) {}
		api.put("z", plain)
		settle()
		api.put("w", plain)
		o.expect("w [] false PoolExhausted\nx [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nz [192.0.2.3] true Allocated\n" +
			"claim 192.0.2.1 [shop/x] []\nclaim 192.0.2.2 [shop/y] []\nclaim 192.0.2.3 [shop/z] []\n")
		if want := []string{"Service shop/w PoolExhausted"}; !slices.Equal(o.told, want) {
			t.Errorf("told %v", o.told)
		}
		p := api.pools["a"].Status
		if p.AssignedIPv4 != 3 || p.AvailableIPv4 != 0 || len(p.Conditions) != 2 {
			t.Errorf("status of the pool %+v", p)
		}
		api.remove("x")
		o.expect("w [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nz [192.0.2.3] true Allocated\n" +
			"claim 192.0.2.1 [shop/w] []\nclaim 192.0.2.2 [shop/y] []\nclaim 192.0.2.3 [shop/z] []\n")
		if c := o.c.Counts(); !c.Leading || c.Waiting != 0 || c.Allocations != 4 || c.Pools[0].Assigned[0] != 3 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestControllerTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.9"))
		proxy := corev1.LoadBalancerIPModeProxy
		foreign := []corev1.LoadBalancerIngress{{Hostname: "lb.example"}, {IP: "203.0.113.1", IPMode: &proxy}}
		api.put("x", func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = foreign })
		o := start(t, api, nil)
		o.expect("x [192.0.2.1] true Allocated\nclaim 192.0.2.1 [shop/x] []\n")
		if got := api.service("x").Status.LoadBalancer.Ingress; len(got) != 3 || got[1].Hostname == "" || got[2].IP != "203.0.113.1" {
			t.Errorf("ingress %+v", got)
		}
		api.put("x", annotate(convert.AddressesAnnotation, "192.0.2.7"))
		o.expect("x [192.0.2.7] true Allocated\nclaim 192.0.2.7 [shop/x] []\n")
		api.put("x", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
		o.expect("x [] false \n")
		if got := api.service("x").Status; len(got.LoadBalancer.Ingress) != 2 || len(got.Conditions) != 0 {
			t.Errorf("status %+v", got)
		}
	})
}

// TestControllerAdopts: what was there before the first start, what another
// leader began and did not finish, and what was asked for while nobody led.
func TestControllerAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.9"))
		has := func(ip string) func(*corev1.Service) {
			return func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
			}
		}
		api.put("migrated", has("192.0.2.1"))
		api.put("begun", plain)
		api.put("kept", has("192.0.2.3"))
		api.put("other", func(s *corev1.Service) {
			has("192.0.2.4")(s)
			s.Labels = map[string]string{convert.ProxyNameLabel: "other"}
		})
		ctx := t.Context()
		claimFor := func(a, service string) {
			c := newClaim(netip.MustParseAddr(a))
			uid := "gone"
			if s := api.service(service); s != nil {
				uid = string(s.UID)
			}
			if err := api.CreateClaim(ctx, c.with(Holder{model.Name{Namespace: "shop", Name: service}, uid}).write("")); err != nil {
				t.Fatal(err)
			}
		}
		claimFor("192.0.2.8", "begun") // claimed, but not told
		claimFor("192.0.2.2", "deleted")
		claimFor("192.0.2.9", "kept") // has another one
		o := start(t, api, nil)
		settle()
		api.put("new", plain)
		api.put("newer", plain)
		o.expect("begun [192.0.2.8] true Allocated\nkept [192.0.2.3] true Allocated\nmigrated [192.0.2.1] true Allocated\n" +
			"new [192.0.2.2] true Allocated\nnewer [192.0.2.5] true Allocated\nother [192.0.2.4] false \n" +
			"claim 192.0.2.1 [shop/migrated] []\nclaim 192.0.2.2 [shop/new] []\nclaim 192.0.2.3 [shop/kept] []\n" +
			"claim 192.0.2.5 [shop/newer] []\nclaim 192.0.2.8 [shop/begun] []\n")
		o.stop()
		api.put("kept", annotate(convert.ReallocateAnnotation, "1"))
		api.putPool(aPool("a", "192.0.2.6-192.0.2.9"))
		o = start(t, api, nil)
		settle()
		if got := readStanding(api.service("kept")); !slices.Equal(got.ours, addrs("192.0.2.6")) || got.handled != "1" {
			t.Errorf("%+v", got)
		}
		if got := readStanding(api.service("migrated")); !slices.Equal(got.ours, addrs("192.0.2.1")) || got.verdict.Reason != OutOfPool {
			t.Errorf("%+v", got)
		}
		api.put("migrated", annotate(convert.ReallocateAnnotation, "now"))
		settle()
		if got := readStanding(api.service("migrated")); !slices.Equal(got.ours, addrs("192.0.2.7")) {
			t.Errorf("%+v", got)
		}
		o.stop()
		start(t, api, nil) // the same value is not done again
		settle()
		if got := readStanding(api.service("migrated")); !slices.Equal(got.ours, addrs("192.0.2.7")) || got.verdict.Reason != Allocated {
			t.Errorf("%+v", got)
		}
	})
}

// TestControllerRepairs: what somebody else does to statuses and claims.
func TestControllerRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.9"))
		api.put("x", plain)
		api.put("y", plain)
		o := start(t, api, nil)
		good := "x [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nclaim 192.0.2.1 [shop/x] []\nclaim 192.0.2.2 [shop/y] []\n"
		o.expect(good)
		api.put("x", func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = nil })
		o.expect(good)
		api.put("x", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.2"}}
		})
		o.expect(good)
		api.mu.Lock()
		delete(api.claims, "192.0.2.1")
		api.mu.Unlock()
		time.Sleep(2 * auditPeriod)
		o.expect(good)
		// A claim by a controller that was frozen long ago. It may have read the
		// Service before that: its write must not succeed any more.
		frozen := api.service("x").ResourceVersion
		if err := api.CreateClaim(t.Context(), newClaim(netip.MustParseAddr("192.0.2.5")).with(Holder{nameOfService(api.service("x")), string(api.service("x").UID)}).write("")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * auditPeriod)
		o.expect(good)
		if api.service("x").ResourceVersion == frozen {
			t.Error("an address was taken back, and the Service is as it was")
		}
	})
}

// TestControllerGoesOnAfterErrors: an API server that fails for a time, and one
// without our kinds.
func TestControllerGoesOnAfterErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.9"))
		api.put("x", plain)
		down := true
		api.fail = func(verb string) error {
			if down && verb == "list claims" {
				return apierrors.NewNotFound(resource("addressclaims"), "")
			}
			return nil
		}
		o := start(t, api, nil)
		o.expect("x [] false \n")
		if !strings.Contains(o.log.String(), "deploy/crds") || strings.Count(o.log.String(), "cluster cannot be read") > 10 {
			t.Errorf("log %s", &o.log)
		}
		api.mu.Lock()
		down = false
		api.mu.Unlock()
		time.Sleep(2 * time.Minute)
		o.expect("x [192.0.2.1] true Allocated\nclaim 192.0.2.1 [shop/x] []\n")
		api.mu.Lock()
		api.fail = func(verb string) error {
			if strings.HasPrefix(verb, "update service") {
				return errors.New("connection refused")
			}
			return nil
		}
		api.mu.Unlock()
		api.put("y", plain)
		time.Sleep(5 * time.Minute)
		if n := strings.Count(o.log.String(), "address not written"); n != 1 {
			t.Errorf("%d lines of a write that failed many times", n)
		}
		api.mu.Lock()
		api.fail = func(string) error { return nil }
		api.mu.Unlock()
		time.Sleep(2 * time.Minute)
		o.expect("x [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nclaim 192.0.2.1 [shop/x] []\nclaim 192.0.2.2 [shop/y] []\n")
	})
}

// TestOnlyTheLeaderWrites, and one that leads again gives again.
func TestOnlyTheLeaderWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newServer()
		api.putPool(aPool("a", "192.0.2.1-192.0.2.9"))
		api.put("x", plain)
		leads := make(chan context.Context)
		o := start(t, api, func(ctx context.Context, lead func(context.Context)) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case term := <-leads:
					lead(term)
				}
			}
		})
		o.expect("x [] false \n")
		term, lose := context.WithCancel(t.Context())
		leads <- term
		o.expect("x [192.0.2.1] true Allocated\nclaim 192.0.2.1 [shop/x] []\n")
		lose()
		settle()
		api.put("y", plain)
		o.expect("x [192.0.2.1] true Allocated\ny [] false \nclaim 192.0.2.1 [shop/x] []\n")
		if o.c.Counts().Leading {
			t.Error("still leads")
		}
		leads <- t.Context()
		o.expect("x [192.0.2.1] true Allocated\ny [192.0.2.2] true Allocated\nclaim 192.0.2.1 [shop/x] []\nclaim 192.0.2.2 [shop/y] []\n")
	})
}

// TestManyLeaders is the promise of the package comment. Three controllers
// believe that they lead, all at once and for random times. Every request takes
// its time, some of them minutes, and what sources tell is late. At no moment an
// address is in two Services' status, and no Service's address changes that asked
// for nothing; in the end everybody has one.
func TestManyLeaders(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { manyLeaders(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func manyLeaders(t *testing.T, random *rand.Rand) {
	t.Helper()
	api := newServer()
	var mu sync.Mutex // of random
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	calm := false
	api.delay = func() {
		d := time.Duration(draw(20)) * time.Millisecond
		if draw(25) == 0 && !calm {
			d = time.Duration(draw(60)) * time.Second
		}
		time.Sleep(d)
	}
	given, asked := map[string]netip.Addr{}, map[string]bool{}
	api.check = func(o *corev1.Service) { // the server's lock is held
		users := map[netip.Addr]string{}
		for _, s := range api.services {
			for _, a := range readStanding(s).ours {
				key := s.Annotations[convert.SharingAnnotation]
				if by, twice := users[a]; twice && (key == "" || by != key) {
					t.Errorf("%v is in two statuses, one of them %s's", a, s.Name)
				}
				users[a] = key
			}
		}
		now := readStanding(o).ours
		if was, has := given[string(o.UID)]; has && !asked[o.Name] && (len(now) != 1 || now[0] != was) {
			t.Errorf("%s changed from %v to %v", o.Name, was, now)
		}
		if len(now) > 0 {
			given[string(o.UID)] = now[0]
		}
	}
	api.putPool(aPool("a", "192.0.2.1-192.0.2.24"))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 3 {
		c := NewController(ControllerOptions{
			Source:  api.watch(func() { time.Sleep(time.Duration(draw(2000)) * time.Millisecond) }),
			Cluster: api,
			Elect: func(ctx context.Context, lead func(context.Context)) error {
				for ctx.Err() == nil {
					term, lose := context.WithTimeout(ctx, time.Duration(1+draw(120))*time.Second)
					lead(term)
					<-term.Done()
					lose()
					time.Sleep(time.Duration(draw(20)) * time.Second)
				}
				return nil
			},
		})
		group.Go(func() { c.Run(ctx) })
	}
	names := make([]string, 24)
	for i := range names {
		names[i] = fmt.Sprintf("s%02d", i)
	}
	for range 150 {
		time.Sleep(time.Duration(draw(3000)) * time.Millisecond)
		shake(api, draw, names[draw(len(names))], asked)
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	for _, n := range names {
		api.put(n, func(s *corev1.Service) { sharer(s); s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	}
	time.Sleep(20 * time.Minute)
	cancel()
	group.Wait()
	for _, n := range names {
		if got := readStanding(api.service(n)); len(got.ours) != 1 {
			t.Errorf("%s has %v: %+v", n, got.ours, got.verdict)
		}
	}
}

// sharer has every third Service share its address with the others of these:
// each has a port of its own.
func sharer(s *corev1.Service) {
	var n int32
	fmt.Sscanf(s.Name, "s%d", &n)
	if n%3 == 0 {
		annotate(convert.SharingAnnotation, "k")(s)
		s.Spec.Ports = []corev1.ServicePort{{Port: 80 + n, Protocol: corev1.ProtocolTCP}}
	}
}

// shake does something to a Service.
func shake(api *server, draw func(int) int, name string, asked map[string]bool) {
	mark := func() {
		api.mu.Lock()
		asked[name] = true
		api.mu.Unlock()
	}
	switch n := draw(20); {
	case n < 10 || api.service(name) == nil:
		api.put(name, sharer)
	case n < 13:
		api.remove(name)
	case n < 16 && name[2]%2 == 0:
		mark()
		api.put(name, annotate(convert.ReallocateAnnotation, fmt.Sprint(draw(1000))))
	case n < 18 && name[2]%2 == 0:
		mark()
		api.put(name, func(s *corev1.Service) {
			s.Spec.Type = map[bool]corev1.ServiceType{true: corev1.ServiceTypeClusterIP, false: corev1.ServiceTypeLoadBalancer}[s.Spec.Type == corev1.ServiceTypeLoadBalancer]
		})
	}
}
