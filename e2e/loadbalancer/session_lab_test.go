//go:build lab

package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// bgpPort is where routers listen.
const bgpPort = 179

// TestPassword: a session comes up with the right password and with no other;
// a Secret that is missing is a session that is missing, and is told of. The
// other router notices nothing.
func TestPassword(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "signed", w.ready(1), nil)
	s.told(t, w.nodes...)
	mark := w.tor2.Mark()
	w.sign(t, "right")
	file := func(text string) string {
		path := filepath.Join(w.dir, text+".password")
		suite.Must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		return "passwordFile: " + path
	}
	w.editPeer(t, w.tor1, file("right"))
	w.up(t, w.tor1)

	suite.Must(t, w.peer(w.tor1, file("wrong")))
	w.down(t, w.tor1)
	suite.Must(t, w.peer(w.tor1))
	w.down(t, w.tor1) // FRR takes nobody without

	suite.Must(t, w.peer(w.tor1, "passwordSecret: missing"))
	w.down(t, w.tor1)
	for _, n := range w.nodes {
		suite.Await(t, soon, func() error { return n.complains("tor1", "missing") })
	}
	w.writeText(t, "secret.yaml", `
apiVersion: v1
kind: Secret
metadata: {namespace: kube-system, name: missing}
type: kubernetes.io/basic-auth
stringData: {password: right}
`)
	w.up(t, w.tor1)
	s.told(t, w.nodes...)
	s.quiet(t, map[*tower]int{w.tor2: mark})
}

// sign has FRR demand a password of all nodes until the test ends.
func (w *world) sign(t *testing.T, password string) {
	t.Helper()
	for _, n := range w.nodes {
		suite.Must(t, w.frr.Configure(fmt.Sprintf("neighbor %s password %s", n.V4, password)))
		t.Cleanup(func() { suite.Must(t, w.frr.Configure(fmt.Sprintf("no neighbor %s password", n.V4))) })
	}
}

func (w *world) up(t *testing.T, r *tower) {
	t.Helper()
	suite.Await(t, 2*soon, func() error { return r.established(w.nodes...) })
	if t.Failed() {
		t.FailNow()
	}
}

// down checks that no session with a router is established, and that it stays
// so while nodes try again.
func (w *world) down(t *testing.T, r *tower) {
	t.Helper()
	no := func() error {
		for _, n := range w.nodes {
			if r.established(n) == nil {
				return fmt.Errorf("%s: the session of %s is established", r.Name, n.Name)
			}
		}
		return nil
	}
	suite.Await(t, soon, no)
	for begin := time.Now(); time.Since(begin) < 4*time.Second; time.Sleep(100 * time.Millisecond) {
		suite.Must(t, no())
	}
}

// complains says that an operator who looks at a peer does not read what is
// wrong with it, in words with this one.
func (n *node) complains(peer, word string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	page, err := n.Agent.Page(ctx, "/bgp/peers")
	if err != nil {
		return err
	}
	var said struct {
		Peers []struct{ Peer, Error string }
	}
	if err := json.Unmarshal([]byte(page), &said); err != nil {
		return fmt.Errorf("%s: /bgp/peers: %w", n.Name, err)
	}
	for _, p := range said.Peers {
		if p.Peer == peer && p.Error != "" && strings.Contains(p.Error, word) {
			return nil
		}
	}
	return fmt.Errorf("%s: no word of %q about %s in %s", n.Name, word, peer, page)
}

// TestBadPeer: peers that cannot be talked to, each in its way, are told of and
// disturb no other.
func TestBadPeer(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "undisturbed", w.ready(1, 2, 3), nil)
	s.told(t, w.nodes...)
	marks := w.marks()
	host, client, err := w.AddRouter("tor3")
	suite.Must(t, err)
	t.Cleanup(func() { suite.Must(t, errors.Join(w.RemovePod(client), w.RemovePod(host))) })
	tor3, err := router.StartBIRD(host, w.options(&tower{Host: host, asn: 64700, hold: hold2}))
	suite.Must(t, err)
	t.Cleanup(func() { suite.Must(t, tor3.Stop()) })
	babbler := w.tor1.client
	stop, err := babbler.Serve(topo.TCP, bgpPort)
	suite.Must(t, err)
	t.Cleanup(func() { suite.Must(t, stop()) })
	for name, spec := range map[string]string{
		"mismatch": fmt.Sprintf("{peerAddress: %s, peerASN: 64701, myASN: %d}", host.V4, nodesASN),
		"nobody":   fmt.Sprintf("{peerAddress: 192.168.10.77, peerASN: 64702, myASN: %d}", nodesASN),
		"refuses":  fmt.Sprintf("{peerAddress: %s, peerASN: 64703, myASN: %d, ebgpMultiHop: 8}", w.tor2.client.V4, nodesASN),
		"babbles":  fmt.Sprintf("{peerAddress: %s, peerASN: 64704, myASN: %d, ebgpMultiHop: 8}", babbler.V4, nodesASN),
	} {
		w.writeText(t, "peer-"+name+".yaml", `
apiVersion: sluice.dev/v1alpha1
kind: BGPPeer
metadata: {name: `+name+`}
spec: `+spec+"\n")
	}
	for _, n := range w.nodes {
		for name, word := range map[string]string{"mismatch": "64700", "nobody": "", "refuses": "refused", "babbles": ""} {
			suite.Await(t, 2*soon, func() error { return n.complains(name, word) })
		}
	}
	page, err := w.nodes[0].Agent.Page(t.Context(), "/bgp/peers")
	suite.Must(t, err)
	t.Log(page)
	later := w.serve(t, "later", w.ready(2), nil)
	later.told(t, w.nodes...)
	states, err := tor3.Sessions()
	suite.Must(t, err)
	for addr, state := range states {
		if state == "Established" {
			t.Errorf("%v has a session although the numbers differ", addr)
		}
	}
	s.quiet(t, marks)
}

// TestFlappingPeer: a router that comes and goes disturbs no other, and has its
// routes back when it stays.
func TestFlappingPeer(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "steady", w.ready(1, 2, 3), nil)
	s.told(t, w.nodes...)
	mark := w.tor1.Mark()
	for range 4 {
		suite.Must(t, w.tor2.KillBGP())
		time.Sleep(500 * time.Millisecond)
		suite.Must(t, w.tor2.StartBGP())
		time.Sleep(500 * time.Millisecond)
	}
	begin := time.Now()
	suite.Await(t, 2*soon, func() error { return w.tor2.established(w.nodes...) })
	t.Logf("the router stays; all sessions after %v", time.Since(begin).Round(time.Millisecond))
	s.told(t, w.nodes...)
	s.quiet(t, map[*tower]int{w.tor1: mark})
}
