package bgp

import (
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
)

// AnnouncerOptions are an Announcer's settings.
type AnnouncerOptions struct {
	// NotReadyAfter is how long a node may be NotReady before its routes go.
	NotReadyAfter time.Duration
}

// Announcement is what one address wants of the tables.
type Announcement struct {
	Routes map[Key]Spec
	// Discard are the aggregates among the routes' prefixes, which this host
	// has to discard what is for none of their addresses.
	Discard []netip.Prefix
	// Again is when to decide again although no fact changes; zero: never.
	Again time.Time
}

// Announcer decides which routes this node tells to whom. It has one owner, no
// goroutine and no clock; Rows may be called from any goroutine.
type Announcer struct{}

// NewAnnouncer makes one that knows nothing yet.
func NewAnnouncer(AnnouncerOptions) *Announcer { return &Announcer{} }

// Network takes in what concerns every address, says which sessions there are
// to be, and what is wrong with peers and advertisements. Decide has to be
// called for every address after it.
func (a *Announcer) Network(model.Network) (sessions map[Key]Spec, problems []model.Problem) {
	return nil, nil
}

// Decide says what an address wants now. programmed says that this node's
// tables hold all that the address needs: until then a route that is not told
// yet is not told; one that is told stays.
func (a *Announcer) Decide(_ time.Time, _ model.VIP, _ bool) Announcement { return Announcement{} }

// Rows are the routes of every address that Decide was asked of, by address
// and peer.
func (a *Announcer) Rows() []Row { return nil }
