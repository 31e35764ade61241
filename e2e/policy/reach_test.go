package policy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/e2e/topo"
)

// actor is who connects or is connected to: a pod ("x/a"), a node ("node1") or
// the client outside.
type actor string

const client actor = "client"

func (a actor) isPod() bool { return strings.Contains(string(a), "/") }

// flow is a connection to a port that the actor itself serves, directly or
// through a virtual address.
type flow struct {
	from, to actor
	protocol string
	port     uint16
	six, vip bool
}

func (f flow) String() string {
	family, way := "v4", "directly"
	if f.six {
		family = "v6"
	}
	if f.vip {
		way = "by VIP"
	}
	return fmt.Sprintf("%s > %s %s:%d %s %s", f.from, f.to, f.protocol, f.port, family, way)
}

// reach says which connections are allowed, in lines of which the last that
// matches counts:
//
//   - x/*,y/a > *
//   - x/a > node2 tcp:80,udp v4
//
// "-" denies, "+" allows. Who is a list of patterns: "*" is everybody, "*/*"
// every pod, "@1" every pod on node1. Then come protocols, each with a port or
// without, and ":80" for a port of all, and a family. What no line matches is
// allowed. A pod always reaches itself, and is reached by its own node.
type reach []reachLine

type reachLine struct {
	allows   bool
	from, to []string
	ports    []string
	family   string
}

func parseReach(text string) (reach, error) {
	var r reach
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 4 || f[2] != ">" || f[0] != "+" && f[0] != "-" {
			return nil, fmt.Errorf("not a line of reachability: %q", line)
		}
		l := reachLine{allows: f[0] == "+", from: strings.Split(f[1], ","), to: strings.Split(f[3], ",")}
		for _, word := range f[4:] {
			if word == "v4" || word == "v6" {
				l.family = word
				continue
			}
			l.ports = strings.Split(word, ",")
		}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		r = append(r, l)
	}
	return r, nil
}

func (l reachLine) check() error {
	for _, who := range slices.Concat(l.from, l.to) {
		if !slices.ContainsFunc(everybody(), func(a actor) bool { return is(who, a) }) {
			return fmt.Errorf("%q is nobody", who)
		}
	}
	for _, p := range l.ports {
		protocol, number, _ := strings.Cut(p, ":")
		if !slices.Contains([]string{"", topo.TCP, topo.UDP, topo.SCTP}, protocol) || number != "" && number != "80" && number != "81" {
			return fmt.Errorf("%q is no port that is served", p)
		}
	}
	return nil
}

// is reports whether a pattern means an actor.
func is(pattern string, a actor) bool {
	if node, ok := strings.CutPrefix(pattern, "@"); ok {
		return a.isPod() && strconv.Itoa(placeOf(a).node) == node
	}
	if pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, string(a))
	return ok && err == nil
}

func (l reachLine) matches(f flow) bool {
	who := func(a actor) func(string) bool { return func(p string) bool { return is(p, a) } }
	if !slices.ContainsFunc(l.from, who(f.from)) || !slices.ContainsFunc(l.to, who(f.to)) {
		return false
	}
	if l.family != "" && f.six != (l.family == "v6") {
		return false
	}
	return len(l.ports) == 0 || slices.ContainsFunc(l.ports, func(p string) bool {
		protocol, number, _ := strings.Cut(p, ":")
		return (protocol == "" || protocol == f.protocol) && (number == "" || number == strconv.Itoa(int(f.port)))
	})
}

// allows says what becomes of a connection.
func (r reach) allows(f flow) bool {
	if f.from == f.to || f.to.isPod() && f.from == placeOf(f.to).host() {
		return true
	}
	allowed := true
	for _, l := range r {
		if l.matches(f) {
			allowed = l.allows
		}
	}
	return allowed
}
