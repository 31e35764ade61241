package bgp

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// neighbours are the peers as one node sees them: those that it is to have a
// session with, or would if nothing was wrong, by name.
type neighbours map[string]*neighbour

// neighbour is a BGPPeer whose nodeSelectors choose the node.
type neighbour struct {
	model.Peer
	password model.Password
	nextHop  [2]netip.Addr // of each family's routes, IPv4 first; zero: the session's own address
	// silent says of each family why its routes are not told; "": they are.
	silent  [2]string
	problem *model.Problem // why there is no session
}

// viewpoint is a node from which peers are seen.
type viewpoint struct {
	model.Node
	known bool // there is such an object, so that it has labels
	// addrs are what the node may be reached at, at least one of each family
	// that it has.
	addrs []netip.Addr
}

// chosen reports whether nodeSelectors choose the node. Labels that are not
// known match nothing, not even the absence of a label.
func (v viewpoint) chosen(selectors []model.Selector) bool {
	return len(selectors) == 0 || v.known && model.Selected(selectors, v.Labels)
}

// byAge are the peers, the oldest first: of two that are the same router, the
// older one counts.
func byAge(peers map[string]model.Peer) []model.Peer {
	return slices.SortedFunc(maps.Values(peers), func(a, b model.Peer) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
}

// seen are the peers from a node, given the oldest first.
func seen(from viewpoint, peers []model.Peer, secrets map[string]model.Secret) neighbours {
	out := neighbours{}
	at := make(map[netip.AddrPort]string, len(peers))
	for _, p := range peers {
		if !from.chosen(p.Nodes) {
			continue
		}
		n := &neighbour{Peer: p, password: p.Password}
		out[p.Name] = n
		if older, twice := at[p.Addr]; twice {
			n.refuse("DuplicatePeer", fmt.Sprintf("%s is the BGPPeer %s already, which is older and counts", p.Addr, older),
				"remove one of them, or change their nodeSelectors so that no node has both")
			continue
		}
		at[p.Addr] = p.Name
		if p.Secret == "" {
			n.families(from)
			continue
		}
		secret, there := secrets[p.Secret]
		n.password = secret.Password
		switch {
		case !there:
			n.refuse("SecretMissing", "there is no Secret "+p.Secret+", which passwordSecret names",
				"create it in the namespace of --secret-namespace, type kubernetes.io/basic-auth")
		case n.password == "":
			n.refuse("SecretEmpty", "the Secret "+p.Secret+", which passwordSecret names, has no password",
				"give it a key password that is not empty")
		default:
			n.families(from)
		}
	}
	return out
}

// refuse says why there is no session with a peer, and what to do about it.
func (n *neighbour) refuse(reason, why, remedy string) {
	silent := "no session with peer " + n.Name + ": " + why
	n.silent = [2]string{silent, silent}
	n.problem = &model.Problem{
		Kind: "BGPPeer", Object: model.Name{Name: n.Name}, UID: n.UID, Reason: reason,
		Message: why + ", so there is no session with the peer; " + remedy,
	}
}

// families works out which families the peer is told, and with which next hop.
// Routes of the session's own family have its local address, which only the
// session knows; those of the other one need an address of the node's.
func (n *neighbour) families(from viewpoint) {
	for i, f := range [...]model.Family{model.IPv4, model.IPv6} {
		own := slices.IndexFunc(from.addrs, func(a netip.Addr) bool { return a.IsValid() && model.FamilyOf(a) == f })
		switch {
		case !n.tells(f):
			n.silent[i] = fmt.Sprintf("peer %s is told no %s routes (families)", n.Name, f)
		case model.FamilyOf(n.Addr.Addr()) == f:
		case own < 0:
			n.silent[i] = fmt.Sprintf("this node has no %s address that could be the next hop of what peer %s is told", f, n.Name)
		default:
			n.nextHop[i] = from.addrs[own]
		}
	}
}

// tells reports whether the peer is told routes of a family.
func (n *neighbour) tells(f model.Family) bool {
	return len(n.Families) == 0 || slices.Contains(n.Families, f)
}

// sessions are the sessions that there are to be from a node.
func (ns neighbours) sessions(routerID netip.Addr) map[Key]Spec {
	out := map[Key]Spec{}
	for name, n := range ns {
		if n.problem != nil {
			continue
		}
		out[Key{Peer: name}] = Spec{Session: Session{
			Peer: n.Addr, ASN: n.ASN, MyASN: n.MyASN, RouterID: routerID,
			Hold: n.Hold, Keepalive: n.Keepalive, ConnectRetry: n.ConnectRetry, Restart: n.Restart,
			Source: n.Source, Hops: n.Hops, TTLSecurity: n.TTLSecurity, Password: n.password,
			IPv4: n.tells(model.IPv4), IPv6: n.tells(model.IPv6),
		}}
	}
	return out
}

// routerID is a node's BGP identifier: its IPv4 address, or else 32 bits of a
// hash of its name, in the form of a unicast address: never 0, which BGP
// forbids, nor loopback or multicast, which some routers refuse.
func routerID(node string, ipv4 netip.Addr) netip.Addr {
	if ipv4.Is4() {
		return ipv4
	}
	h := fnv.New32a()
	h.Write([]byte(node))
	id := [4]byte(h.Sum(nil))
	id[0] = 1 + id[0]%126
	return netip.AddrFrom4(id)
}

// slot is where the things of an address's family stand in an array of two.
func slot(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
