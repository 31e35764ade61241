//go:build lab

package semantics

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// The truth table: what becomes of a connection, by who opens it to what
// (rows), the policy of the Service (columns), and how sluice is configured.
//
//	all    every endpoint is reached
//	local  the endpoints of the node that takes the connection are reached, and
//	       if it has none there is silence
//	masq   the endpoint sees the node's address; else that of the client
//
// "itself" is a pod that asks until it is its own answer. "other node" is one
// that asks this node, and so as foreign to it as the outside.
//
//	| Cluster  | eTP Local | iTP Local  | both Local
const truth = `
pod        -> ClusterIP     | all      | all       | local      | local
pod        -> NodePort      | all masq | all       | all masq   | all
pod        -> LB IP         | all masq | all       | all masq   | all
pod        -> externalIP    | all masq | all       | all masq   | all
node       -> ClusterIP     | all masq | all masq  | local masq | local masq
node       -> NodePort      | all masq | all masq  | all masq   | all masq
node       -> LB IP         | all masq | all masq  | all masq   | all masq
node       -> externalIP    | all masq | all masq  | all masq   | all masq
external   -> ClusterIP     | all masq | all masq  | local masq | local masq
external   -> NodePort      | all masq | local     | all masq   | local
external   -> LB IP         | all masq | local     | all masq   | local
external   -> externalIP    | all masq | local     | all masq   | local
other node -> NodePort      | all masq | local     | all masq   | local
itself     -> ClusterIP     | masq     | masq      | masq       | masq
itself     -> NodePort      | masq     | masq      | masq       | masq
itself     -> LB IP         | masq     | masq      | masq       | masq
itself     -> externalIP    | masq     | masq      | masq       | masq
`

// Without a detector (no --cluster-cidr) nobody knows who is a pod: cluster IPs
// are masqueraded for nobody, and pods are strangers to eTP Local.
const truthWithoutDetector = `
pod        -> NodePort      | all masq | local     | all masq   | local
pod        -> LB IP         | all masq | local     | all masq   | local
pod        -> externalIP    | all masq | local     | all masq   | local
node       -> ClusterIP     | all      | all       | local      | local
external   -> ClusterIP     | all      | all       | local      | local
itself     -> NodePort      | masq     | masq      | masq       | masq
`

// With --masquerade-all pods are masqueraded to cluster IPs too.
const truthMasqueradeAll = `
pod        -> ClusterIP     | all masq | all masq  | local masq | local masq
`

// masq is the table's word.
const masq = "masq"

// policies are the table's columns.
var policies = []struct {
	name string
	edit func(*corev1.Service)
}{
	{"Cluster", func(*corev1.Service) {}},
	{"eTP Local", externalLocal},
	{"iTP Local", internalLocal},
	{"both Local", func(svc *corev1.Service) { externalLocal(svc); internalLocal(svc) }},
}

func externalLocal(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func internalLocal(svc *corev1.Service) {
	svc.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}

// row is a line of the table.
type row struct {
	from, to string
	cells    []string
}

func (r row) name() string { return r.from + " -> " + r.to }

func parse(t *testing.T, table string) []row {
	t.Helper()
	var rows []row
	for line := range strings.Lines(strings.TrimSpace(table)) {
		head, cells, _ := strings.Cut(line, "|")
		from, to, ok := strings.Cut(head, "->")
		r := row{from: strings.TrimSpace(from), to: strings.TrimSpace(to)}
		for cell := range strings.SplitSeq(cells, "|") {
			r.cells = append(r.cells, strings.TrimSpace(cell))
		}
		if !ok || len(r.cells) != len(policies) {
			t.Fatalf("not a row: %q", line)
		}
		rows = append(rows, r)
	}
	return rows
}

// TestTruthTable: every cell, in both families, by connections of every
// protocol, to a node that has two of three endpoints and to one that has none.
func TestTruthTable(t *testing.T) {
	for _, mode := range []struct {
		name  string
		flags []string
		other string // the rows that differ from the table
	}{
		{"default", detector(), ""},
		{"without detector", nil, truthWithoutDetector},
		{"masquerade all", append(detector(), "--masquerade-all"), truthMasqueradeAll},
	} {
		t.Run(mode.name, func(t *testing.T) {
			table := parse(t, truth)
			if mode.other != "" {
				shared.restart(t, mode.flags...)
				for _, r := range parse(t, mode.other) {
					table[slices.IndexFunc(table, func(o row) bool { return o.name() == r.name() })] = r
				}
			}
			w := enter(t)
			c := crossings{world: w}
			for _, p := range policies {
				c.services = append(c.services, w.serve(t, strings.ToLower(strings.ReplaceAll(p.name, " ", "-")), ready(w.a1, w.a2, w.b1), p.edit))
			}
			w.settle(t)
			for _, via := range []*node{w.nodes[0], w.nodes[2]} {
				t.Run("on "+via.Name, func(t *testing.T) {
					w.routeBy(t, via)
					if mode.flags == nil {
						w.answerThrough(t, via)
					}
					for _, protocol := range protocols {
						c.table(t, via, protocol, table)
					}
				})
			}
		})
	}
}

// answerThrough has what endpoints of other nodes answer to the outside go by
// the node that takes connections. Where it does not masquerade, no answer
// would be understood otherwise.
func (w *world) answerThrough(t *testing.T, via *node) {
	t.Helper()
	script := func(verb string) string {
		return fmt.Sprintf("ip route %s %s via %s; ip route %[1]s %[4]s via %[5]s", verb, w.Client.V4, via.V4, w.Client.V6, via.V6)
	}
	for _, n := range w.nodes {
		if n != via {
			_, err := n.Tool("sh", "-ec", script("add"))
			suite.Must(t, err)
			t.Cleanup(func() {
				_, err := n.Tool("sh", "-ec", script("del"))
				suite.Must(t, err)
			})
		}
	}
}

// crossings fills in the table.
type crossings struct {
	*world
	services []*service // by column
}

// table checks and prints what is measured on one node.
func (c crossings) table(t *testing.T, via *node, protocol string, want []row) {
	t.Helper()
	want = slices.DeleteFunc(slices.Clone(want), func(r row) bool { return !c.applies(r, via, protocol) })
	if len(want) == 0 {
		return
	}
	results := make([][]cell, len(want))
	var quiet sync.WaitGroup // waits for what nobody answers, all at once
	for i, r := range want {
		results[i] = make([]cell, len(c.services))
		for j, s := range c.services {
			expected := expect(r.cells[j], c.hasLocal(s, via))
			for family, like := range c.families() {
				at := way{protocol: protocol, from: c.source(r.from, via), to: s.at(r.to, protocol, like, via)}
				if result := &results[i][j][family]; expected == silent {
					quiet.Go(func() { *result = at.gets(t.Context()) })
				} else {
					*result = c.measure(t, at, r.from == "itself", via, expected)
				}
			}
		}
	}
	quiet.Wait()
	for i, r := range want {
		for j, s := range c.services {
			expected := expect(r.cells[j], c.hasLocal(s, via))
			for family, got := range results[i][j] {
				if got != expected {
					t.Errorf("%s, %s, %s, IPv%d: %s, want %s", protocol, r.name(), policies[j].name, 4+2*family, got, expected)
				}
			}
		}
	}
	t.Logf("%s on %s\n%s", protocol, via.Name, render(want, results))
}

// cell is what was measured, in IPv4 and IPv6.
type cell [2]string

// render prints results as a table for documentation.
func render(rows []row, results [][]cell) string {
	var b strings.Builder
	b.WriteString("| from -> to |")
	for _, p := range policies {
		fmt.Fprintf(&b, " %s, IPv4 | IPv6 |", p.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", 2*len(policies)))
	for i, r := range rows {
		fmt.Fprintf(&b, "\n| %-23s |", r.name())
		for _, got := range results[i] {
			fmt.Fprintf(&b, " %-10s | %-10s |", got[0], got[1])
		}
	}
	return b.String()
}

// expect is what a cell means where there are no local endpoints.
func expect(cell string, local bool) string {
	if !local && strings.HasPrefix(cell, "local") {
		return silent
	}
	return cell
}

// source is who a row's connections come from.
func (c crossings) source(from string, via *node) *topo.Host {
	switch from {
	case "pod":
		return map[bool]*topo.Host{true: c.near, false: c.far}[via == c.nodes[0]]
	case "node":
		return via.Host
	case "other node":
		return c.nodes[1].Host
	case "itself":
		return c.a1
	}
	return c.Client
}

// applies reports whether a row has a meaning on a node; of SCTP, which shares
// all rules with the others, a part has to do.
func (c crossings) applies(r row, via *node, protocol string) bool {
	if r.from == "itself" && via != c.nodeOf(c.a1) {
		return false
	}
	return protocol != topo.SCTP || via == c.nodeOf(c.a1) && r.to != externalIP
}

func (c crossings) hasLocal(s *service, via *node) bool {
	return slices.ContainsFunc(s.endpoints, func(e endpoint) bool { return c.nodeOf(e.pod) == via })
}

// measure goes a way as often as it takes to see every endpoint twice, and says
// what it saw in the words of the table.
func (c crossings) measure(t *testing.T, at way, itself bool, via *node, want string) string {
	t.Helper()
	if want == silent {
		return at.gets(t.Context())
	}
	seen := map[string]bool{}
	var sources []string
	for range 2 * len(c.services[0].endpoints) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := at.ask(ctx)
		cancel()
		if err != nil {
			return outcome(got, err)
		}
		if itself && got.Pod != at.from.Name {
			continue // other rows' matter
		}
		seen[got.Pod] = true
		if as, known := c.as(at, via, got); known && !slices.Contains(sources, as) {
			sources = append(sources, as)
		}
	}
	slices.Sort(sources)
	if len(sources) == 0 && strings.HasSuffix(want, masq) {
		sources = []string{masq} // see as
	}
	if itself {
		if len(seen) == 0 {
			return "never itself"
		}
		return strings.Join(sources, " or ")
	}
	return strings.TrimSpace(c.reached(seen, via) + " " + strings.Join(sources, " or "))
}

// reached names a set of endpoints.
func (c crossings) reached(seen map[string]bool, via *node) string {
	var all, local, have []string
	for _, e := range c.services[0].endpoints {
		all = append(all, e.pod.Name)
		if c.nodeOf(e.pod) == via {
			local = append(local, e.pod.Name)
		}
		if seen[e.pod.Name] {
			have = append(have, e.pod.Name)
		}
	}
	switch {
	case len(have) != len(seen):
		return fmt.Sprint("strangers ", seen)
	case slices.Equal(have, all):
		return "all"
	case slices.Equal(have, local):
		return "local"
	}
	return strings.Join(have, ",")
}

// as says whom an endpoint took its client for: masq if for the node that took
// the connection, "" if for who it was. To pods of others a node looks the
// same either way; to its own it has another address when it masquerades.
func (c crossings) as(at way, via *node, got topo.Answer) (as string, known bool) {
	like, saw := at.to.Addr(), got.Client.Addr()
	node := via.Addr(like)
	local := slices.ContainsFunc(c.services[0].endpoints, func(e endpoint) bool {
		return e.pod.Name == got.Pod && c.nodeOf(e.pod) == via
	})
	if local {
		node = c.Gateway(via.Host, like)
	}
	switch saw {
	case at.from.Addr(like):
		return "", local || at.from != via.Host
	case node:
		return masq, true
	}
	return "as " + saw.String(), true
}
