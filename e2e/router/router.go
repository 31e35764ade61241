package router

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// startTime is what a daemon has to open its socket.
const startTime = 20 * time.Second

// Options say whom a router speaks with, and how.
type Options struct {
	ASN       uint32
	Hold      time.Duration // proposed; keepalives at a third of it. 0: 9 s
	Neighbors []Neighbor
	// Tells, with BIRD only, makes it one who dials, learns nothing, and tells
	// every neighbor of what it originates.
	Tells     bool
	Originate []Origin
	Log       io.Writer // of what the daemons say; it takes concurrent writes
}

// Neighbor is somebody the router has a session with.
type Neighbor struct {
	Addr        netip.Addr
	ASN         uint32
	Password    string
	TTLSecurity bool // FRR only
}

// Origin is a route that is told, with the host as its next hop.
type Origin struct {
	Prefix           netip.Prefix
	Communities      []string // "64512:1"
	LargeCommunities []string // "64512:1:2"
	MED              uint32   // 0: none
}

// Router is FRR or BIRD.
type Router interface {
	// Routes are those learned of one family, by prefix, sorted by next hop.
	Routes(v6 bool) (map[netip.Prefix][]Path, error)
	// Sessions are the states of all neighbors, in the router's own words, but
	// "Established" in any case.
	Sessions() (map[netip.Addr]string, error)
	// KillBGP ends what speaks BGP without warning.
	KillBGP() error
	// StartBGP starts it again.
	StartBGP() error
	// Stop ends the router and removes what it left.
	Stop() error
}

// Path is one way to a prefix, as the router tells of it.
type Path struct {
	NextHop          netip.Addr
	ASPath           string // "64512 64513"
	Communities      []string
	LargeCommunities []string
	LocalPref        uint32 // 0: none
	MED              uint32 // 0: none, or zero
	Stale            bool   // kept of a neighbor that is about to come back (FRR only)
}

func (o Options) hold() int { return int(cmp.Or(o.Hold, 9*time.Second).Seconds()) }

// workDir makes the directory of a router's files, for a user to write in.
func workDir(h *topo.Host, uid, gid int) (string, error) {
	dir, err := os.MkdirTemp("", "router-"+h.Name+"-")
	if err != nil {
		return "", err
	}
	// FRR's daemons become another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, uid, gid)
}

// answers waits until a daemon that was just started answers. It fails at once
// when that ends.
func answers(p *topo.Process, what string, ask func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	err := topo.Eventually(ctx, func() error {
		select {
		case <-p.Done():
			cancel()
			return fmt.Errorf("%s ended: %w", what, p.Err())
		default:
			return ask()
		}
	})
	if err != nil {
		return fmt.Errorf("router: %s does not answer: %w", what, err)
	}
	return nil
}

func sortPaths(routes map[netip.Prefix][]Path) {
	for _, paths := range routes {
		slices.SortFunc(paths, func(a, b Path) int { return a.NextHop.Compare(b.NextHop) })
	}
}
