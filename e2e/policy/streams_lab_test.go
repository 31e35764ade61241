//go:build lab

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// unbroken is how long a stream that is allowed may stand still: this
	// world's processor has other things to do.
	unbroken = 2 * time.Second
	// stopped is how long after a policy has come into force what it denies
	// may still flow.
	stopped = 1500 * time.Millisecond
)

// stream is a connection with talk in both directions between pods.
type stream struct {
	flow
	*topo.Stream
}

// streams opens one for every flow; the test's end closes them.
func (w *world) streams(t *testing.T, flows ...flow) []stream {
	t.Helper()
	var list []stream
	for _, f := range flows {
		family := 0
		if f.six {
			family = 1
		}
		to := netip.AddrPortFrom(w.own(f.to, f.six), pushPort)
		if f.vip {
			to = netip.AddrPortFrom(vips(f.to)[family], pushPort)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := w.hosts[f.from].OpenStream(ctx, f.protocol, to, w.pushers[f.to][f.protocol])
		cancel()
		suite.Must(t, err)
		t.Cleanup(func() { s.Close() })
		list = append(list, stream{f, s})
	}
	return list
}

// every are the flows of pairs in both protocols that push, both families,
// directly and through virtual addresses.
func every(pairs ...[2]actor) []flow {
	var list []flow
	for _, p := range pairs {
		for _, protocol := range []string{topo.TCP, topo.UDP} {
			for _, six := range []bool{false, true} {
				for _, vip := range []bool{false, true} {
					list = append(list, flow{p[0], p[1], protocol, pushPort, six, vip})
				}
			}
		}
	}
	return list
}

// flows says that a stream does not flow, or did not all the time.
func (s stream) flows() error {
	for end, pulse := range s.pulses() {
		if err := pulse.Err(); err != nil {
			return fmt.Errorf("%v: at the %s: %w", s.flow, end, err)
		}
		if n := pulse.Refused(); n > 0 {
			return fmt.Errorf("%v: at the %s: %d words were refused", s.flow, end, n)
		}
		if gap, at := pulse.Gap(); gap > unbroken {
			return fmt.Errorf("%v: at the %s: nothing for %v until %s", s.flow, end, gap.Round(time.Millisecond), at.Format("15:04:05.000"))
		}
	}
	return nil
}

func (s stream) pulses() map[string]*topo.Pulse {
	return map[string]*topo.Pulse{"server": s.AtServer, "client": s.AtHost}
}

// since says that something came at an end of a stream after a time.
func (s stream) since(at time.Time) error {
	for end, pulse := range s.pulses() {
		if last, _ := pulse.Last(); last.After(at) {
			return fmt.Errorf("%v: something came at the %s after %v", s.flow, end, last.Sub(at).Round(time.Millisecond))
		}
	}
	return nil
}

// TestEstablished: connections that stand are judged again when policies
// change. Both directions of what is denied stop, though the server goes on
// talking, and nothing else notices.
func TestEstablished(t *testing.T) {
	for _, c := range []struct {
		name           string
		quick          bool
		policies       string
		denied, stands [][2]actor
	}{
		{
			name: "ingress denied", quick: true, policies: `x: {podSelector: {}, policyTypes: [Ingress]}`,
			denied: [][2]actor{{"z/a", "x/a"}, {"y/a", "x/a"}}, stands: [][2]actor{{"z/a", "y/b"}, {"y/a", "z/c"}, {"x/a", "y/b"}, {"x/b", "y/b"}},
		}, {
			name: "egress denied", policies: `x: {podSelector: {}, policyTypes: [Egress]}`,
			denied: [][2]actor{{"x/a", "y/b"}, {"x/a", "z/b"}}, stands: [][2]actor{{"z/a", "x/a"}, {"z/a", "x/b"}, {"y/a", "z/c"}},
		}, {
			name: "ingress from one peer only", policies: `x: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 90}, {port: 90, protocol: UDP}]}]}`,
			denied: [][2]actor{{"z/a", "x/a"}, {"z/b", "x/a"}}, stands: [][2]actor{{"y/a", "x/a"}, {"y/b", "x/a"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.quick {
				long(t)
			}
			w := enter(t)
			w.settle(t)
			denied, stands := w.streams(t, every(c.denied...)...), w.streams(t, every(c.stands...)...)
			flowing(t, append(denied, stands...))
			began := time.Now()
			w.apply(t, policyCase{policies: c.policies})
			force := time.Now()
			// As long as it takes to be sure.
			time.Sleep(stopped + time.Second)
			for _, s := range denied {
				if err := s.since(force.Add(stopped)); err != nil {
					t.Error(err)
				}
			}
			t.Logf("the last word of what is denied came %v after the policy was written", lastWord(denied).Sub(began).Round(time.Millisecond))
			flowing(t, stands)
			w.apply(t, policyCase{})
			for _, s := range denied {
				if s.protocol == topo.UDP {
					suite.Await(t, soon, func() error { return s.resumed() })
				}
			}
			flowing(t, stands)
		})
	}
}

// resumed says that nothing has come lately.
func (s stream) resumed() error {
	for end, pulse := range s.pulses() {
		if last, _ := pulse.Last(); time.Since(last) > 500*time.Millisecond {
			return fmt.Errorf("%v: nothing at the %s for %v", s.flow, end, time.Since(last).Round(time.Millisecond))
		}
	}
	return nil
}

func lastWord(list []stream) time.Time {
	var latest time.Time
	for _, s := range list {
		for _, pulse := range s.pulses() {
			if last, _ := pulse.Last(); last.After(latest) {
				latest = last
			}
		}
	}
	return latest
}

func flowing(t *testing.T, list []stream) {
	t.Helper()
	for _, s := range list {
		if err := s.flows(); err != nil {
			t.Error(err)
		}
	}
}

// TestUnbroken: policies, labels and pods change all the time, and what is
// allowed all the time flows all the time.
func TestUnbroken(t *testing.T) {
	w := enter(t)
	const base = `x: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}
`
	w.apply(t, policyCase{policies: base})
	stands := w.streams(t, every([2]actor{"y/a", "x/a"}, [2]actor{"y/b", "x/a"}, [2]actor{"y/b", "x/b"})...)
	for _, c := range []policyCase{
		{policies: base + `x: {podSelector: {matchLabels: {pod: a}}, ingress: []}`},
		{policies: base + `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}`},
		{policies: base + `y: {podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`},
		{policies: base, labels: map[string]string{"x/a": "pod=a,more=true", "y/b": "pod=b,more=true"}},
		{policies: base, pods: map[string]podState{"x/c": gone, "z/a": gone}},
		{policies: `x/renamed: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`},
		{policies: `x: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 90}, {port: 90, protocol: UDP}]}]}`},
		{policies: base, pods: map[string]podState{"y/b": recreated, "x/a": recreated}},
		{},
		{policies: base},
	} {
		w.apply(t, c)
		flowing(t, stands)
	}
}
