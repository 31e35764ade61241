//go:build lab

package services

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/topo"
)

// tool runs one of the system's tools in a host's namespace. Without `ip netns
// exec` between, which costs as much again; tools that need their own /sys are
// for Host.Run.
func tool(h *topo.Host, name string, args ...string) (string, error) {
	var out []byte
	err := h.Do(func() (err error) {
		out, err = exec.Command(name, args...).Output()
		return err
	})
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s %s on %s: %w: %s", name, strings.Join(args, " "), h.Name, err, exit.Stderr)
	}
	return string(out), err
}

// by hand, as an administrator would.
func byHand(t *testing.T, h *topo.Host, script string) {
	t.Helper()
	_, err := tool(h, "sh", "-exc", script)
	must(t, err)
}

// state is all that sluice or anyone else has in a node's tables, as text that
// is the same when the tables are: by the tool that says it.
type state map[string][]string

// The tools' output, and whether its order means something.
var states = []struct {
	name, command string
	ordered       bool
}{
	{"ipvsadm", "ipvsadm -Sn", false},
	{"iptables", "iptables-save", true},
	{"ip6tables", "ip6tables-save", true},
	{"ipset", "ipset save", false},
	{"addresses", "ip -o addr | sed 's/^[0-9]*: //'", false},
	{"local routes", "ip route show table local; ip -6 route show table local", false},
}

// noise is what differs between equal tables: counters, comments with the time,
// a set's seed and size; built-in chains, as a table that was never used is as
// good as an empty one.
var noise = regexp.MustCompile(`^#.*|^COMMIT$|^\*.*|^:(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) .*| \[\d+:\d+\]| initval \S+| hashsize \d+`)

func (n *node) state() (state, error) {
	var script strings.Builder
	for _, s := range states {
		fmt.Fprintf(&script, "echo '== %s'; %s\n", s.name, s.command)
	}
	out, err := tool(n.Host, "sh", "-ec", script.String())
	if err != nil {
		return nil, err
	}
	st, table, name := state{}, "", ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if section, ok := strings.CutPrefix(line, "== "); ok {
			name, table = section, ""
			continue
		}
		if t, ok := strings.CutPrefix(line, "*"); ok {
			table = t + " "
		}
		line = strings.TrimRight(noise.ReplaceAllString(line, ""), " ")
		if line != "" && !second(line) {
			st[name] = append(st[name], table+line)
		}
	}
	for _, s := range states {
		if !s.ordered {
			slices.Sort(st[s.name])
		}
	}
	// Empty chains come in an order of their own.
	for _, name := range []string{"iptables", "ip6tables"} {
		slices.SortStableFunc(st[name], func(a, b string) int {
			return strings.Compare(chainOf(a), chainOf(b))
		})
	}
	return st, nil
}

// second reports whether a route is the one the kernel makes of an IPv4
// address whose route of sluice's is there already, as when somebody takes the
// address away and sluice puts it back. It stands behind that and has no use.
func second(line string) bool {
	f := strings.Fields(line)
	return len(f) > 9 && f[0] == "local" && f[3] == "sluice0" && f[1] == f[9]
}

// chainOf is the table and chain of a line of iptables-save.
func chainOf(line string) string {
	f := strings.Fields(strings.Replace(line, " :", " -N ", 1))
	if len(f) < 3 {
		return line
	}
	return f[0] + " " + f[2]
}

func (n *node) mustState(t *testing.T) state {
	t.Helper()
	st, err := n.state()
	must(t, err)
	return st
}

// same says how the node's state now differs from s.
func (s state) same(n *node) error {
	now, err := n.state()
	if err != nil {
		return err
	}
	for _, part := range states {
		want, have := s[part.name], now[part.name]
		if slices.Equal(want, have) {
			continue
		}
		if d := difference(want, have); d != "" {
			return fmt.Errorf("%s: %s differ:%s", n.Name, part.name, d)
		}
		return fmt.Errorf("%s: %s are in another order:\n%s\nnot\n%s", n.Name, part.name, strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

// difference is the lines of one list that the other lacks; "" is none.
func difference(want, have []string) string {
	var b strings.Builder
	for _, l := range want {
		if !slices.Contains(have, l) {
			fmt.Fprintf(&b, "\n  missing: %s", l)
		}
	}
	for _, l := range have {
		if !slices.Contains(want, l) {
			fmt.Fprintf(&b, "\n  extra:   %s", l)
		}
	}
	return b.String()
}

// servers is the node's virtual servers and destinations, one per line.
func (n *node) servers() ([]string, error) {
	out, err := tool(n.Host, "ipvsadm", "-Sn")
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, err
}

// lists reports whether so many of the node's lines begin with a text.
func (n *node) lists(prefix string, want int) error {
	all, err := n.servers()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.HasPrefix(l, prefix) })
	if len(rest) != want {
		return fmt.Errorf("%s has %d of %q, want %d", n.Name, len(rest), prefix, want)
	}
	return nil
}

// kernelPort is ipvsadm's name of a frontend.
func kernelPort(protocol corev1.Protocol, at netip.AddrPort) string {
	return map[corev1.Protocol]string{
		corev1.ProtocolTCP: "-t ", corev1.ProtocolUDP: "-u ", corev1.ProtocolSCTP: "--sctp-service ",
	}[protocol] + at.String()
}

// servers are the lines of `ipvsadm -Sn` that an app wants on a node.
func (a *app) servers(n *node) []string {
	var lines []string
	for _, f := range a.frontends(n) {
		at := kernelPort(f.protocol, f.at)
		head := "-A " + at + " -s " + a.scheduler()
		if c := a.svc.Spec.SessionAffinityConfig; a.svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			head += fmt.Sprintf(" -p %d", *c.ClientIP.TimeoutSeconds)
		}
		lines = append(lines, head)
		for _, e := range a.usable() {
			to := netip.AddrPortFrom(e.pod.Addr(f.at.Addr()), targetPort(f.port))
			lines = append(lines, fmt.Sprintf("-a %s -r %s -m -w 1", at, to))
		}
	}
	return lines
}

// follows waits until every node's table is that of these apps, of the API
// server's own Service, and of foreigners. Destinations that drain are in
// neither: see the tests about them.
func (w *world) follows(t *testing.T, apps ...*app) {
	t.Helper()
	for _, n := range w.nodes {
		n.follows(t, apps...)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (n *node) follows(t *testing.T, apps ...*app) {
	t.Helper()
	want := map[string]bool{
		"-A -t 10.96.0.1:443 -s rr":                     true,
		"-a -t 10.96.0.1:443 -r 192.0.2.1:6443 -m -w 1": true,
	}
	for _, l := range n.before["ipvsadm"] {
		want[l] = true
	}
	for _, a := range apps {
		for _, l := range a.servers(n) {
			want[l] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(want))
	await(t, 15*time.Second, func() error {
		have, err := n.servers()
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(l string) bool { return strings.HasSuffix(l, " -w 0") })
		if d := difference(sorted, have); d != "" {
			return fmt.Errorf("ipvsadm on %s:%s", n.Name, d)
		}
		return nil
	})
}
