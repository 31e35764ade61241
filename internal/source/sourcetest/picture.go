package sourcetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

// Picture is what a sink knows. It may be used from any goroutine.
type Picture struct {
	tb   testing.TB
	from string // how events are to be signed

	mu     sync.Mutex
	facts  map[any]any // by key
	synced int
	events int
}

// NewPicture makes a picture of what one source tells.
func NewPicture(tb testing.TB, from string) *Picture {
	tb.Helper()
	return &Picture{tb: tb, from: from, facts: map[any]any{}}
}

// Event implements source.Sink.
func (p *Picture) Event(e model.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events++
	if e.Source != p.from {
		p.tb.Errorf("event is signed %q, want %q", e.Source, p.from)
	}
	switch {
	case e.Synced:
		p.synced++
		if p.synced > 1 {
			p.tb.Errorf("Synced is said %d times", p.synced)
		}
	case e.Put != nil:
		p.put(e.Put)
	case e.Delete != nil:
		if _, known := p.facts[e.Delete]; !known {
			p.tb.Errorf("%T %v is deleted, of which nothing was told", e.Delete, e.Delete)
		}
		delete(p.facts, e.Delete)
	case e.Problem == nil:
		p.tb.Error("event without content")
	}
}

func (p *Picture) put(fact any) {
	switch f := fact.(type) {
	case model.Service:
		p.facts[model.ServiceKey{Name: f.Name}] = f
	case model.EndpointSlice:
		p.facts[model.EndpointSliceKey{Name: f.Name}] = f
	case model.Node:
		p.facts[model.NodeKey{Name: f.Name}] = f
	case model.AddressPool:
		p.facts[model.AddressPoolKey{Name: f.Name}] = f
	case model.Peer:
		p.facts[model.PeerKey{Name: f.Name}] = f
	case model.Advertisement:
		p.facts[model.AdvertisementKey{Name: f.Name}] = f
	case model.Secret:
		p.facts[model.SecretKey{Name: f.Name}] = f
	case model.Namespace:
		p.facts[model.NamespaceKey{Name: f.Name}] = f
	case model.Pod:
		p.facts[model.PodKey{Name: f.Name, UID: f.UID}] = f
	case model.NetworkPolicy:
		p.facts[model.NetworkPolicyKey{Name: f.Name}] = f
	default:
		p.tb.Errorf("unexpected fact %T", fact)
	}
}

// Synced reports whether the source has told all it knows.
func (p *Picture) Synced() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.synced > 0
}

// Events is how many events have come.
func (p *Picture) Events() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events
}

// Expect compares what is known with lines as Lines writes them, in any order.
func (p *Picture) Expect(tb testing.TB, when string, want []string) {
	tb.Helper()
	want = slices.Sorted(slices.Values(want))
	if got := p.Lines(); !slices.Equal(got, want) {
		tb.Errorf("%s: known is\n\t%s\nwant\n\t%s", when, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Lines are the facts as lines, sorted. Of pods that are done some sources tell
// that they are gone, so they have no line.
func (p *Picture) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var lines []string
	for _, fact := range p.facts {
		if pod, ok := fact.(model.Pod); ok && pod.Done {
			continue
		}
		switch f := fact.(type) {
		case model.Service:
			lines = append(lines, serviceLine(f))
		case model.EndpointSlice:
			lines = append(lines, sliceLine(f))
		case model.Node:
			lines = append(lines, nodeLine(f))
		default:
			lines = append(lines, policyLine(f))
		}
	}
	slices.Sort(lines)
	return lines
}

// words are parts of a line; what is not there is not said.
type words []string

func (w *words) say(when bool, format string, args ...any) {
	if when {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
}

func serviceLine(s model.Service) string {
	w := words{fmt.Sprintf("service %s %s: %v", s.Name, s.UID, s.ClusterIPs)}
	for _, p := range s.Ports {
		w.say(p.NodePort == 0, "%d/%s", p.Port, p.Protocol)
		w.say(p.NodePort != 0, "%d/%s at %d", p.Port, p.Protocol, p.NodePort)
	}
	w.say(len(s.ExternalIPs) > 0, "external %v", s.ExternalIPs)
	w.say(len(s.LoadBalancerIPs) > 0, "balancer %v", s.LoadBalancerIPs)
	w.say(len(s.SourceRanges) > 0, "from %v", s.SourceRanges)
	w.say(s.ExternalLocal, "external Local")
	w.say(s.InternalLocal, "internal Local")
	w.say(s.HealthPort != 0, "health at %d", s.HealthPort)
	w.say(s.Scheduler != "", "by %s", s.Scheduler)
	w.say(s.Drain != 0, "drain %s", s.Drain)
	w.say(s.Urgent, "urgent")
	w.say(s.Labels["app"] != "", "app %s", s.Labels["app"])
	b := s.Balancer
	w.say(!slices.Equal(b.Status, s.LoadBalancerIPs), "has %v", b.Status)
	w.say(b.Class != "", "class %s", b.Class)
	w.say(len(b.Requested) > 0, "asks for %v", b.Requested)
	w.say(b.Unclear, "asks for what is unclear")
	w.say(b.Pool != "", "from pool %s", b.Pool)
	w.say(b.SharingKey != "", "shares by %s", b.SharingKey)
	w.say(b.Reallocate != "", "reallocated %s", b.Reallocate)
	w.say(b.DualStack != model.SingleStack, "dual stack %d of %v", b.DualStack, b.Families)
	return strings.Join(w, ", ")
}

func sliceLine(s model.EndpointSlice) string {
	w := words{fmt.Sprintf("slice %s of %s:", s.Name, s.Service)}
	for _, e := range s.Endpoints {
		w.say(true, "%s", e.Addr)
	}
	w.say(!s.Triggered.IsZero(), "triggered %s", s.Triggered.Format(time.RFC3339Nano))
	return strings.Join(w, " ")
}

func nodeLine(n model.Node) string {
	w := words{fmt.Sprintf("node %s: %v", n.Name, n.Addrs)}
	zone := n.Labels["topology.kubernetes.io/zone"]
	w.say(zone != "", "in %s", zone)
	w.say(n.Leaving != "", "leaving: %s", n.Leaving)
	w.say(n.Drained != "", "drained: %s", n.Drained)
	w.say(!n.NotReady.IsZero(), "not ready since %s", n.NotReady.UTC().Format(time.RFC3339))
	return strings.Join(w, ", ")
}
