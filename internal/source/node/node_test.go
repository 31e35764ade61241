package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
)

// notes keeps events as lines.
type notes struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // has something when there is something new
}

func (n *notes) Event(e model.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch put := e.Put.(type) {
	case model.LocalAddrs:
		n.lines = append(n.lines, fmt.Sprint(put.Addrs))
	default:
		n.lines = append(n.lines, fmt.Sprintf("synced %v from %s", e.Synced, e.Source))
	}
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.lines
	n.lines = nil
	return got
}

// fake is a host whose addresses tests set.
type fake struct {
	mu       sync.Mutex
	now      listing
	listErr  error
	subErr   error
	lists    int
	subs     int
	lose     chan struct{}
	notified chan change
}

func newFake() *fake {
	return &fake{
		now:      listing{devices: map[string]int{"lo": 1, "eth0": 2, "sluice0": 3}},
		lose:     make(chan struct{}),
		notified: make(chan change),
	}
}

func (f *fake) list() (listing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	l := listing{addresses: slices.Clone(f.now.addresses), devices: f.now.devices}
	return l, f.listErr
}

func (f *fake) subscribe(ctx context.Context) (<-chan change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subErr != nil {
		return nil, f.subErr
	}
	f.subs++
	ch := make(chan change)
	go func() {
		defer close(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case <-f.lose:
				return
			case c := <-f.notified:
				select {
				case ch <- c:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return ch, nil
}

// set changes the host without a notification.
func (f *fake) set(listErr, subErr error, addrs ...address) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now.addresses, f.listErr, f.subErr = addrs, listErr, subErr
}

func (f *fake) counts() (lists, subs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists, f.subs
}

// on is a usable global address on an interface.
func on(index int, addr string) address {
	return address{addr: netip.MustParseAddr(addr), index: index, global: true, usable: true}
}

type bench struct {
	t    *testing.T
	host *fake
	told notes
	log  bytes.Buffer
}

func start(t *testing.T, host *fake) *bench {
	t.Helper()
	b := &bench{t: t, host: host}
	s := New(Options{VIPDevices: []string{"sluice0", "kube-ipvs0"}, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	s.kernel = host
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &b.told) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

func (b *bench) expect(want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.told.take(); !slices.Equal(got, want) {
		b.t.Errorf("told %q, want %q", got, want)
	}
}

func TestHostAddrs(t *testing.T) {
	local, tentative := on(2, "192.0.2.9"), on(2, "fd00::9")
	local.global, tentative.usable = false, false
	all := []address{
		on(2, "192.0.2.2"), on(2, "fd00::2"), on(4, "192.0.2.1"), on(4, "192.0.2.2"), on(1, "203.0.113.1"),
		on(1, "127.0.0.1"), on(1, "::1"), on(2, "169.254.1.1"), on(2, "fe80::1"), on(2, "224.0.0.1"), on(2, "0.0.0.0"),
		on(3, "10.96.0.1"), local, tentative,
	}
	want := "[192.0.2.1 192.0.2.2 203.0.113.1 fd00::2]"
	if got := fmt.Sprint(hostAddrs(all, []int{3})); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFirstListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		host.set(nil, nil, on(2, "192.0.2.2"), on(3, "10.96.0.1"), on(2, "192.0.2.1"))
		b := start(t, host)
		b.expect("[192.0.2.1 192.0.2.2]", "synced true from node")
		time.Sleep(time.Hour)
		b.expect()
		if lists, subs := host.counts(); lists != 1 || subs != 1 {
			t.Errorf("%d listings, %d subscriptions", lists, subs)
		}
	})
}

func TestNoAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start(t, newFake()).expect("[]", "synced true from node")
	})
}

func TestChangesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		b := start(t, host)
		b.expect("[]", "synced true from node")
		host.set(nil, nil, on(2, "192.0.2.1"))
		for range 5 {
			host.notified <- change{2, true}
			time.Sleep(settle / 2)
		}
		b.expect()
		time.Sleep(settle/2 + 1)
		b.expect("[192.0.2.1]")

		host.notified <- change{2, true} // what changed does not show
		time.Sleep(2 * settle)
		b.expect()
		if lists, _ := host.counts(); lists != 3 {
			t.Errorf("%d listings, want 3", lists)
		}

		host.set(nil, nil, on(2, "192.0.2.2"))
		began := time.Now()
		for len(b.told.take()) == 0 { // changes that never stop
			host.notified <- change{2, true}
			time.Sleep(settle / 2)
			synctest.Wait()
		}
		if took := time.Since(began); took > (settleMost+1)*settle {
			t.Errorf("listed after %v", took)
		}
	})
}

// TestAddressesComeAndGo: each step is what the host has then, and the interface
// that a notification names.
func TestAddressesComeAndGo(t *testing.T) {
	steps := []struct {
		name    string
		addrs   []address
		changed int
		told    []string
	}{
		{"one", []address{on(2, "192.0.2.1")}, 2, []string{"[192.0.2.1]"}},
		{"keepalived's address comes", []address{on(2, "192.0.2.1"), on(2, "192.0.2.100")}, 2, []string{"[192.0.2.1 192.0.2.100]"}},
		{"and goes", []address{on(2, "192.0.2.1")}, 2, []string{"[192.0.2.1]"}},
		{"and comes on another interface", []address{on(2, "192.0.2.1"), on(4, "192.0.2.100")}, 4, []string{"[192.0.2.1 192.0.2.100]"}},
		{"and is on both for a while", []address{on(2, "192.0.2.1"), on(4, "192.0.2.100"), on(2, "192.0.2.100")}, 2, nil},
		{"and on the first alone", []address{on(2, "192.0.2.1"), on(2, "192.0.2.100")}, 4, nil},
		{"secondary addresses", []address{on(2, "192.0.2.1"), on(2, "192.0.2.2"), on(2, "fd00::1"), on(2, "fd00::2")}, 2, []string{"[192.0.2.1 192.0.2.2 fd00::1 fd00::2]"}},
		{"the primary one goes, a secondary stays", []address{on(2, "192.0.2.2"), on(2, "fd00::2")}, 2, []string{"[192.0.2.2 fd00::2]"}},
		{"on a new interface", []address{on(2, "192.0.2.2"), on(2, "fd00::2"), on(9, "198.51.100.1")}, 9, []string{"[192.0.2.2 198.51.100.1 fd00::2]"}},
		{"listed in another order", []address{on(9, "198.51.100.1"), on(2, "fd00::2"), on(2, "192.0.2.2")}, 9, nil},
		{"a Service takes one", []address{on(2, "192.0.2.2"), on(3, "198.51.100.1")}, 9, []string{"[192.0.2.2]"}},
		{"none is left", nil, 2, []string{"[]"}},
		{"again", []address{on(2, "192.0.2.1")}, 2, []string{"[192.0.2.1]"}},
	}
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		b := start(t, host)
		b.expect("[]", "synced true from node")
		for _, step := range steps {
			for _, failure := range []error{errTorn, errors.New("no buffer space")} {
				host.set(failure, nil, step.addrs[:len(step.addrs)/2]...) // half a listing
				host.notified <- change{step.changed, true}
				time.Sleep(2 * settle)
				if b.expect(); t.Failed() {
					t.Fatalf("told at %q although listing failed: %v", step.name, failure)
				}
			}
			host.set(nil, nil, step.addrs...)
			time.Sleep(2 * retryMost)
			if b.expect(step.told...); t.Failed() {
				t.Fatalf("at %q", step.name)
			}
		}
	})
}

// TestSyncedOnce: however often listing fails or notifications are lost, and
// even when the source is run a second time.
func TestSyncedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		var told notes
		s := New(Options{})
		s.kernel = host
		synced := 0
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx, &told) }()
			for i := range 5 {
				synctest.Wait()
				host.lose <- struct{}{}
				host.set(errors.New("no"), errors.New("no"))
				time.Sleep(time.Minute)
				host.set(nil, nil, on(2, fmt.Sprintf("192.0.2.%d", i)))
				time.Sleep(time.Minute)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for _, line := range told.take() {
			if line == "synced true from node" {
				synced++
			}
		}
		if synced != 1 {
			t.Errorf("Synced is said %d times", synced)
		}
	})
}

func TestOurOwnAddressesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		b := start(t, host)
		b.expect("[]", "synced true from node")
		for range 10000 {
			host.notified <- change{3, true}  // a VIP on our device
			host.notified <- change{7, false} // a Pod's link-local address
		}
		time.Sleep(time.Minute)
		b.expect()
		if lists, _ := host.counts(); lists != 1 {
			t.Errorf("%d listings, want 1", lists)
		}
	})
}

func TestDeviceMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		b := start(t, host)
		b.expect("[]", "synced true from node")
		host.mu.Lock()
		host.now.devices = map[string]int{"sluice0": 9, "kube-ipvs0": 10}
		host.mu.Unlock()
		host.set(nil, nil, on(9, "10.96.0.1"), on(10, "10.96.0.2"))
		host.notified <- change{9, true}
		time.Sleep(2 * settle)
		b.expect()
		host.notified <- change{9, true} // now known as ours
		host.notified <- change{10, true}
		time.Sleep(2 * settle)
		if lists, _ := host.counts(); lists != 2 {
			t.Errorf("%d listings, want 2", lists)
		}
	})
}

func TestLostNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		b := start(t, host)
		b.expect("[]", "synced true from node")
		for i := range 20 {
			addr := fmt.Sprintf("192.0.2.%d", i)
			host.set(nil, nil, on(2, addr))
			host.lose <- struct{}{}
			time.Sleep(time.Second)
			b.expect("[" + addr + "]")
		}
		if strings.Contains(b.log.String(), "WARN") {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}

func TestFailedListingIsNeverTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		torn := fmt.Errorf("list: %w", errTorn)
		host.set(torn, nil, on(2, "192.0.2.1"))
		b := start(t, host)
		time.Sleep(time.Hour)
		b.expect()
		host.set(nil, errors.New("no socket"), on(2, "192.0.2.1"))
		time.Sleep(time.Hour)
		b.expect()
		host.set(nil, nil, on(2, "192.0.2.1"), on(2, "192.0.2.2"))
		time.Sleep(2 * retryMost)
		b.expect("[192.0.2.1 192.0.2.2]", "synced true from node")

		host.set(torn, nil, on(2, "192.0.2.1"))
		host.notified <- change{2, true}
		time.Sleep(time.Hour)
		b.expect()
		host.set(nil, nil, on(2, "192.0.2.1"))
		time.Sleep(2 * retryMost)
		b.expect("[192.0.2.1]")
		if n := strings.Count(b.log.String(), "WARN"); n != 2 {
			t.Errorf("%d warnings, want one for each change for the worse:\n%s", n, &b.log)
		}
		if n := strings.Count(b.log.String(), "can be read again"); n != 2 {
			t.Errorf("%d relieved lines:\n%s", n, &b.log)
		}
	})
}

func TestNobodyHearsOfAFewInterruptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFake()
		host.set(errTorn, nil, on(2, "192.0.2.1"))
		b := start(t, host)
		time.Sleep(3 * time.Second)
		b.expect()
		host.set(nil, nil, on(2, "192.0.2.1"))
		time.Sleep(retryMost)
		b.expect("[192.0.2.1]", "synced true from node")
		if strings.Contains(b.log.String(), "WARN") || strings.Contains(b.log.String(), "again") {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}
