package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// bgpTable is the name of the loop that keeps sessions and routes.
const bgpTable = "bgp"

// BGP is where sessions and routes are seen. All functions may be called from
// any goroutine, at every request and scrape.
type BGP struct {
	Peers  func() []bgp.PeerState
	Routes func() []bgp.Row
	// Problems are what is wrong now with BGPPeers and BGPAdvertisements as
	// they stand, on this node. Nil: nobody knows.
	Problems func() []model.Problem
}

// PeerList is the JSON body of /bgp/peers.
type PeerList struct {
	Peers    []Peer    `json:"peers"` // by name; those without a session too, if something is wrong with them
	Problems []Problem `json:"problems"`
}

// NoSession is the State of a peer that is to have a session and has none.
const NoSession = "none"

// Peer is a BGPPeer that this node is to have a session with.
type Peer struct {
	Peer    string         `json:"peer"`             // the BGPPeer's name
	Address netip.AddrPort `json:"address,omitzero"` // what is dialled
	ASN     uint32         `json:"asn,omitempty"`    // the peer's
	MyASN   uint32         `json:"myASN,omitempty"`
	// State is "idle", "connect", "active", "opensent", "openconfirm" or
	// "established", as RFC 4271 has them, or "none": no session is tried.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`  // established, or not established
	Error string    `json:"error,omitempty"` // why it is not established
	Lost  uint64    `json:"lost"`            // sessions that broke off since the agent's start
	Told  int       `json:"told"`            // routes that the peer has been told
}

// Problem is something wrong with an object.
type Problem struct {
	Kind    string `json:"kind"`   // BGPPeer, BGPAdvertisement
	Object  string `json:"object"` // its name
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// RouteList is the JSON body of /bgp/routes.
type RouteList struct {
	Routes []Route `json:"routes"` // by address and peer
}

// The states of a Route.
const (
	RouteTold     = "told"     // the peer has it
	RouteWaiting  = "waiting"  // it would be told, and the session is not there
	RouteWithheld = "withheld" // it is not to be told
)

// Route is one load-balancer address and one peer, and whether the peer has a
// route for it. An aggregate shows once for each of its addresses.
type Route struct {
	Address  netip.Addr   `json:"address"`
	Prefix   netip.Prefix `json:"prefix,omitzero"` // what stands for it at the peer
	Peer     string       `json:"peer,omitempty"`  // none: no peer is meant at all
	State    string       `json:"state"`           // told, waiting or withheld
	Reason   string       `json:"reason"`          // of the state, one line
	Services []string     `json:"services"`        // "namespace/name"

	NextHop          netip.Addr `json:"nextHop,omitzero"`
	Communities      []string   `json:"communities,omitempty"`      // "64512:1"
	LargeCommunities []string   `json:"largeCommunities,omitempty"` // "64512:1:2"
	LocalPref        uint32     `json:"localPref,omitempty"`        // iBGP; none: 100
	MED              *uint32    `json:"med,omitempty"`
}

// peers joins the sessions there are with what keeps others from being there.
func (b *BGP) peers(loops []reconcile.Status) PeerList {
	list := PeerList{Peers: []Peer{}, Problems: []Problem{}}
	for _, p := range b.Peers() {
		list.Peers = append(list.Peers, Peer{
			Peer: p.Peer, Address: p.Addr, ASN: p.ASN, MyASN: p.MyASN, State: p.State,
			Since: p.Since, Error: oneLine(p.Error), Lost: p.Lost, Told: p.Told,
		})
	}
	if b.Problems != nil {
		for _, p := range b.Problems() {
			list.add(Problem{Kind: p.Kind, Object: p.Object.String(), Reason: p.Reason, Message: oneLine(p.Message)})
		}
	}
	for _, s := range loops {
		if s.Name == bgpTable {
			list.failing(s.Failing)
		}
	}
	slices.SortStableFunc(list.Peers, func(a, b Peer) int { return cmp.Compare(a.Peer, b.Peer) })
	return list
}

// add adds a problem. A peer that it leaves without a session is among the peers.
func (l *PeerList) add(p Problem) {
	l.Problems = append(l.Problems, p)
	if p.Kind == peerKind && l.session(p.Object) == nil {
		l.Peers = append(l.Peers, Peer{Peer: p.Object, State: NoSession, Error: p.Message})
	}
}

func (l *PeerList) session(peer string) *Peer {
	for i := range l.Peers {
		if l.Peers[i].Peer == peer {
			return &l.Peers[i]
		}
	}
	return nil
}

// failing adds the sessions that could not be opened, unless they say why
// themselves, and the routes that could not be told.
func (l *PeerList) failing(keys []reconcile.Failure) {
	for _, f := range keys {
		peer, route, _ := strings.Cut(f.Key, " ") // bgp.Key.String
		message := oneLine(f.Error)
		if session := l.session(peer); route == "" && session != nil && session.Error != "" {
			continue
		}
		if route != "" {
			message = route + ": " + message
		}
		l.add(Problem{Kind: peerKind, Object: peer, Reason: "Failing", Message: message})
	}
}

func (b *BGP) routes() RouteList {
	list := RouteList{Routes: []Route{}}
	sessions := b.sessions()
	for _, row := range b.Routes() {
		state, reason := sessions.judge(row)
		r := Route{
			Address: row.Addr, Prefix: row.Prefix, Peer: row.Peer,
			State: state, Reason: oneLine(reason), Services: []string{},
			NextHop:     row.Route.NextHop,
			Communities: strings.Fields(row.Route.Communities), LargeCommunities: strings.Fields(row.Route.LargeCommunities),
			LocalPref: row.Route.LocalPref,
		}
		if row.Route.HasMED {
			r.MED = &row.Route.MED
		}
		for _, name := range row.Services {
			r.Services = append(r.Services, name.String())
		}
		list.Routes = append(list.Routes, r)
	}
	return list
}

// sessions are the sessions' states by peer.
type sessions map[string]bgp.PeerState

func (b *BGP) sessions() sessions {
	s := sessions{}
	for _, p := range b.Peers() {
		s[p.Peer] = p
	}
	return s
}

// judge says what became of a decision about a route: the peer has it only if
// there is a session.
func (s sessions) judge(row bgp.Row) (state, reason string) {
	session, there := s[row.Peer]
	switch {
	case !row.Told:
		return RouteWithheld, row.Reason
	case session.Established():
		return RouteTold, row.Reason
	case !there:
		return RouteWaiting, "there is no session"
	case session.Error == "":
		return RouteWaiting, "the session is in state " + session.State
	}
	return RouteWaiting, fmt.Sprintf("the session is in state %s: %s", session.State, session.Error)
}

// oneLine keeps what others said to one line of a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// serve answers /bgp/peers and /bgp/routes. Without BGP neither is there.
func (b *BGP) serve(mux *http.ServeMux, loops func() []reconcile.Status) {
	if b == nil {
		return
	}
	mux.HandleFunc("GET /bgp/peers", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, b.peers(loops())) })
	mux.HandleFunc("GET /bgp/routes", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, b.routes()) })
}

func writeJSON(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the client went away: nobody to tell
}
