package status

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
)

// life is a scripted router: what Sessions says is gathered with the second
// it was said in.
type life struct {
	t        *testing.T
	start    time.Time
	sessions *Sessions

	mu    sync.Mutex
	state map[string]bgp.PeerState
	said  []string
}

// live runs a script in a bubble, with Sessions looking on.
func live(t *testing.T, script func(*life)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &life{t: t, start: time.Now(), state: map[string]bgp.PeerState{}}
		l.sessions = NewSessions(SessionsOptions{
			Node: "n1", Peers: l.peers,
			Problem: func(p model.Problem) {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.said = append(l.said, fmt.Sprintf("%ds %s %s: %s", time.Since(l.start)/time.Second, p.Object, p.Reason, p.Message))
				if p.Kind != "BGPPeer" || strings.ContainsAny(p.Message, "\n") {
					t.Errorf("%+v", p)
				}
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); l.sessions.Run(ctx) }()
		synctest.Wait()
		script(l)
		stop()
		<-done
	})
}

func (l *life) peers() (list []bgp.PeerState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.state {
		list = append(list, p)
	}
	return list
}

// set gives a peer a state from now on; told says whether the change is told.
func (l *life) set(peer, state, err string, told bool) {
	l.mu.Lock()
	was, there := l.state[peer]
	now := was
	now.Peer, now.Addr, now.ASN, now.MyASN = peer, netip.MustParseAddrPort("192.0.2.1:179"), 64512, 64513
	now.State, now.Error = state, err
	if !there || was.Established() != now.Established() {
		now.Since = time.Now()
	}
	if was.Established() && !now.Established() {
		now.Lost++
	}
	l.state[peer] = now
	l.mu.Unlock()
	if told {
		l.sessions.Changed(now)
	}
	synctest.Wait()
}

func (l *life) up()             { l.set("tor1", "established", "", true) }
func (l *life) lose(err string) { l.set("tor1", "idle", err, true) }

// flap loses the session and has it back at once.
func (l *life) flap(err string) {
	l.lose(err)
	l.up()
}

func (l *life) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (l *life) expect(want ...string) {
	l.t.Helper()
	if said := l.all(); !slices.Equal(said, want) {
		l.t.Errorf("said\n  %s\nwant\n  %s", strings.Join(said, "\n  "), strings.Join(want, "\n  "))
	}
}

// all is everything said so far.
func (l *life) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.said)
}

const (
	lostOnce = "tor1 SessionLost: node n1 lost its session with 192.0.2.1:179 (AS 64512), "
	untilUp  = "; until there is one again the router learns nothing from the node: see that it is up and can be reached"
	missing  = "tor1 SessionNotEstablished: node n1 has had no session with 192.0.2.1:179 (AS 64512) since 2000-01-01T00:00:00Z"
	remedy   = "; see that the router is up and can be reached from the node, and has the node as a neighbor of AS 64513, with the same password and TTL"
)

func TestSessionLost(t *testing.T) {
	live(t, func(l *life) {
		l.set("tor1", "connect", "", true)
		l.wait(2 * time.Second)
		l.up()
		l.wait(time.Hour)
		l.expect()
		l.lose("hold timer\nexpired")
		l.expect("3602s " + lostOnce + "1 in all since the agent's start: hold timer expired" + untilUp)
		l.wait(time.Hour) // it stays down: that has been told
		l.up()
		l.wait(time.Hour)
		l.lose("")
		if said := l.all(); len(said) != 2 || said[1] != "10802s "+lostOnce+"2 in all since the agent's start"+untilUp {
			t.Errorf("%q", said)
		}
	})
}

// TestFlappingSession: one problem a minute, which counts what was in between.
func TestFlappingSession(t *testing.T) {
	live(t, func(l *life) {
		l.up()
		for range 10 { // at 1.5, 11.5, ... 91.5 s
			l.wait(1500 * time.Millisecond)
			l.flap("reset")
			l.wait(8500 * time.Millisecond)
		}
		l.wait(time.Hour)
		again := "; there is one again since 2000-01-01T00:0"
		l.expect(
			"1s "+lostOnce+"1 in all since the agent's start: reset"+untilUp,
			"61s tor1 SessionLost: node n1 lost 6 sessions with 192.0.2.1:179 (AS 64512), 7 in all since the agent's start: reset"+untilUp,
			"122s tor1 SessionLost: node n1 lost 3 sessions with 192.0.2.1:179 (AS 64512), 10 in all since the agent's start: reset"+again+"1:31Z",
		)
	})
}

// TestChangesThatAreNotTold: the next look finds them, a loss of less than a
// second too.
func TestChangesThatAreNotTold(t *testing.T) {
	live(t, func(l *life) {
		l.set("tor1", "established", "", false)
		l.wait(1500 * time.Millisecond)
		l.set("tor1", "idle", "reset", false)
		l.set("tor1", "established", "", false)
		l.expect()
		l.wait(time.Second)
		l.expect("2s " + lostOnce + "1 in all since the agent's start; there is one again since 2000-01-01T00:00:01Z")
	})
}

func TestSessionNotEstablished(t *testing.T) {
	for name, c := range map[string]struct {
		hold      time.Duration // what a source says; 0: nothing
		err, want string
	}{
		"hold time unknown": {0, "connection refused", "10s " + missing + ": connection refused"},
		"hold time of 30 s": {30 * time.Second, "bad AS", "31s " + missing + ": bad AS"},
		"nobody says why":   {0, "", "10s " + missing + remedy},
	} {
		t.Run(name, func(t *testing.T) {
			live(t, func(l *life) {
				if c.hold > 0 {
					l.sessions.Event(model.Event{Put: model.Peer{Name: "tor1", UID: "u", Hold: c.hold}})
				}
				l.set("tor1", "active", c.err, true)
				l.wait(2 * time.Hour)
				l.expect(c.want)
				l.up()
				l.lose("bad AS") // later, another outage
				if said := l.all(); len(said) != 2 || !strings.Contains(said[1], lostOnce) {
					t.Errorf("%q", said)
				}
			})
		})
	}
}

// TestClosedSessions: what is not wished any more is not lost, and one that is
// opened anew is another one.
func TestClosedSessions(t *testing.T) {
	live(t, func(l *life) {
		l.up()
		l.flap("reset")
		l.wait(10 * time.Minute)
		said := len(l.all())
		l.mu.Lock()
		delete(l.state, "tor1")
		l.mu.Unlock()
		l.wait(time.Minute)
		l.set("tor1", "connect", "", true) // counts from 0 again
		l.wait(time.Second)
		l.up()
		l.wait(time.Hour)
		if all := l.all(); len(all) != said {
			t.Errorf("%q", all[said:])
		}
		l.flap("reset")
		l.wait(time.Hour)
		said++
		// Opened anew within one look, the count starting over.
		l.mu.Lock()
		p := l.state["tor1"]
		p.Since, p.Lost = time.Now(), 0
		l.state["tor1"] = p
		l.mu.Unlock()
		l.wait(time.Second)
		if all := l.all(); len(all) != said {
			t.Errorf("%q", all[said:])
		}
		l.lose("reset")
		if all := l.all(); len(all) != said+1 {
			t.Errorf("%q", all[said:])
		}
	})
}

// TestLossBeingNoted: a state that says "idle" and still since when it was
// established is no outage of hours.
func TestLossBeingNoted(t *testing.T) {
	live(t, func(l *life) {
		l.up()
		l.wait(time.Hour)
		l.mu.Lock()
		half := l.state["tor1"]
		half.State = "idle"
		l.state["tor1"] = half
		l.mu.Unlock()
		l.sessions.Changed(half)
		synctest.Wait()
		l.expect()
		if d := l.sessions.Down(); len(d) != 1 || d[0].Long {
			t.Errorf("%+v", d)
		}
		half.Since, half.Lost, half.Error = time.Now(), 1, "reset"
		l.mu.Lock()
		l.state["tor1"] = half
		l.mu.Unlock()
		l.wait(time.Second)
		if said := l.all(); len(said) != 1 || !strings.Contains(said[0], lostOnce) {
			t.Errorf("%q", said)
		}
	})
}

// TestDown: what is reported in a BGPPeer's status.
func TestDown(t *testing.T) {
	live(t, func(l *life) {
		check := func(want string) {
			t.Helper()
			var got []string
			for _, d := range l.sessions.Down() {
				got = append(got, fmt.Sprintf("%s %q %v %v", d.Peer, d.Error, d.Since.Sub(l.start), d.Long))
			}
			if s := strings.Join(got, ", "); s != want {
				t.Errorf("after %v: %s, want %s", time.Since(l.start), s, want)
			}
		}
		check("")
		l.sessions.Event(model.Event{Put: model.Peer{Name: "tor1", Hold: 3 * time.Second}})
		l.up()
		l.set("tor2", "connect", "", true)
		check(`tor2 "" 0s false`)
		l.wait(5 * time.Second)
		l.lose("a\nb")
		l.wait(4 * time.Second)
		check(`tor1 "a b" 5s true, tor2 "" 0s false`)
		l.sessions.Event(model.Event{Delete: model.PeerKey{Name: "tor1"}}) // the source's word comes before the session's end
		l.wait(time.Second)
		check(`tor1 "a b" 5s false, tor2 "" 0s true`)
		l.set("tor2", "established", "", true)
		check(`tor1 "a b" 5s false`)
	})
}

// TestUID: an Event belongs to the object that the source told of.
func TestUID(t *testing.T) {
	var got model.Problem
	s := NewSessions(SessionsOptions{Peers: func() []bgp.PeerState { return []bgp.PeerState{refused} }, Problem: func(p model.Problem) { got = p }})
	s.Event(model.Event{Put: model.Peer{Name: "tor2", UID: "u2"}})
	s.Event(model.Event{Put: model.Node{Name: "tor2"}})
	s.look(t0)
	s.opts.Peers = func() []bgp.PeerState { return nil }
	s.look(t0)
	if len(s.known) > 0 {
		t.Errorf("remembered: %v", s.known)
	}
	if got.UID != "u2" || got.Object != (model.Name{Name: "tor2"}) || got.Reason != SessionLost {
		t.Errorf("%+v", got)
	}
}
