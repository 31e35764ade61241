package bgp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"

	"sluice.dev/sluice/internal/model"
)

// StartRouter starts a GoBGP server that is no speaker of ours. It is among
// those that stand still while another starts.
func StartRouter(g *api.Global) (*server.BgpServer, error) {
	sp, err := theRoom.start(g)
	if err != nil {
		return nil, err
	}
	return sp.bgp, nil
}

// Die ends what is left of the sessions when their connections are gone, as the
// end of the process would.
func (g *GoBGP) Die() {
	for _, p := range g.peers {
		if p.session != nil {
			p.session.close()
		}
	}
}

// CannotSign has the kernel answer so when it is asked whether it can sign.
func (g *GoBGP) CannotSign(err error) {
	g.sign = func(netip.Addr, model.Password) error { return err }
}

// TrySigning is trySigning.
func TrySigning(a netip.Addr, p model.Password) error { return trySigning(a, p) }

// Speakers counts the servers that were ever made.
func Speakers() int {
	theRoom.mu.Lock()
	defer theRoom.mu.Unlock()
	return len(theRoom.all)
}

// Resting counts those of them that may be used again.
func Resting() int {
	theRoom.mu.Lock()
	defer theRoom.mu.Unlock()
	return len(theRoom.resting)
}

// Path is a route as GoBGP takes it.
func Path(k Key, r Route) (*api.Path, error) { return toPath(k, r, netip.Addr{}) }

// DialFailed is what an error of connecting means for a session.
func DialFailed(s Session, err error) string { return s.dialFailed(&net.OpError{Op: "dial", Err: err}) }

// Received counts the IPv4 routes that a router has told us.
func (g *GoBGP) Received(name string) (n uint64) {
	x := g.peers[name].session
	x.speaker.bgp.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) {
		n = p.AfiSafis[0].State.GetReceived()
	})
	return n
}

// Imported counts the IPv4 routes in our table, told or taken.
func (g *GoBGP) Imported(name string) int { return Count(g.peers[name].session.speaker.bgp) }

// Count counts the IPv4 routes in a server's table.
func Count(b *server.BgpServer) int {
	table, err := b.GetTable(context.Background(), &api.GetTableRequest{
		TableType: api.TableType_GLOBAL, Family: apiFamily(model.IPv4),
	})
	if err != nil {
		panic(err)
	}
	return int(table.GetNumPath())
}

// Reading reads a server's table, which GoBGP does without a lock, and while no
// server is started.
func Reading(read func()) {
	theRoom.starts.Lock()
	defer theRoom.starts.Unlock()
	read()
}

// Watch has a server's log told to somebody.
func Watch(b *server.BgpServer, h slog.Handler) {
	theRoom.mu.Lock()
	defer theRoom.mu.Unlock()
	for _, sp := range theRoom.all {
		if sp.bgp == b {
			sp.log.attend(slog.New(h), Session{}, newStatus(""))
		}
	}
}

// Sent counts the updates that a router has been sent.
func (g *GoBGP) Sent(name string) uint64 {
	n, _ := g.peers[name].session.sent()
	return n
}

// Neighbor is a session as GoBGP takes it.
func Neighbor(s Session) *api.Peer { return s.neighbor() }
