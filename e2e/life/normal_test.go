package life

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// varies is what is different in the same output of two runs, and what it is
// compared as. The order counts.
func varies() []struct{ pattern, with string } {
	return []struct{ pattern, with string }{
		// A counter or time of its own: before ports, which they look like.
		{`(?m)^((?:TCP|UDP|SCTP) .*?|  -> .*?(?:Masq|Route|Tunnel|Local) +\d+) +\d+ +\d+ *$`, "$1 ACTIVE INACT"},
		{`\b(tcp|udp) +(6|17) +\d+ `, "$1 $2 SECONDS "},
		{`\bnhid \d+ `, "nhid N "},
		{`\b\d{4}-\d{2}-\d{2}T\d[^ ]*`, "DATE"},
		{` \(and \d+ like it before\)`, ""},
		{`\(\d+ tries, for [^)]*\)`, "(TRIES)"},
		{`\b\d+(\.\d+)?(ms|µs|s|m\d+s|h\d+m|d\d+h)\b`, "AGE"},
		{` references: \d+|size in memory: \d+|initval 0x[0-9a-f]+`, ""},
		{`\b(pod=\S+ client=\S+):\d+`, "$1:PORT"},
		// Whose turn it is among the two of a Service depends on who asked before.
		// Where it matters a trace says who answered.
		{`\bpod=web-[12] `, "pod=web-N "},
		{`(?m)\b(never|AGE ago)$`, "APPLIED"},
		{`(?m)^sluice \S+ on`, "sluice VERSION on"},
		{`\buse=\d+`, "use=N"},
		// The words are curl's, and other releases have others.
		{`(?m)^curl: \((\d+)\) .*`, "curl: ($1)"},
		{`(?m)^( *\d+ +)\d+[KMG]? `, "${1}BYTES "},
		{` +`, " "},
		{`-{3,}`, "---"},
	}
}

// servedPorts are those that somebody serves in the examples. Others in the
// connection table are the kernel's choice.
func servedPorts() []string { return []string{"53", "80", "5432", "8080", "30080", "30081", "32083"} }

// foreignPrint reports whether a line is a rule's: where the kernel is not the
// guest's, another iptables may print it another way.
func foreignPrint(line string) bool {
	return os.Getenv("SLUICE_LAB") == "native" && (strings.HasPrefix(line, "-A ") || strings.HasPrefix(line, "-N "))
}

// normal is text without what is different each time. A run of lines of answers of
// pods is compared as the set of them: whose turn it is depends on who asked
// before, and which node is asked on the router.
func normal(text string) []string {
	for _, v := range varies() {
		text = regexp.MustCompile(v.pattern).ReplaceAllString(text, v.with)
	}
	text = regexp.MustCompile(`\b([sd]port=)(\d+)`).ReplaceAllStringFunc(text, func(port string) string {
		if name, number, _ := strings.Cut(port, "="); !slices.Contains(servedPorts(), number) {
			return name + "=PORT"
		}
		return port
	})
	var lines, answers []string
	flush := func() {
		slices.Sort(answers)
		lines = append(lines, slices.Compact(answers)...)
		answers = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if foreignPrint(line) {
			continue
		}
		if unordered(line) {
			answers = append(answers, line)
			continue
		}
		flush()
		lines = append(lines, line)
	}
	flush()
	return lines
}

// unordered says whether a line is one of those that come in any order: answers,
// members of sets and next hops of routes, connections.
func unordered(line string) bool {
	return strings.HasPrefix(line, "pod=") || strings.HasPrefix(line, "add SLUICE-") || strings.HasPrefix(line, "\tnexthop ") || strings.HasPrefix(line, " nexthop ") ||
		strings.HasPrefix(line, "tcp 6 ") || strings.HasPrefix(line, "udp 17 ") || regexp.MustCompile(`^\d+\.\d+\.\d+\.\d+(,|$)`).MatchString(line)
}

func TestNormal(t *testing.T) {
	for name, pair := range map[string][2]string{
		"counters of ipvsadm":         {"  -> 10.244.1.2:8080              Masq    1      0          3", "  -> 10.244.1.2:8080              Masq    1      12         304"},
		"a port the kernel chose":     {"pod=web-1 client=10.244.3.2:41234", "pod=web-1 client=10.244.3.2:60999"},
		"whose turn it was":           {"pod=web-1 client=1.2.3.4:40000", "pod=web-2 client=1.2.3.4:50000"},
		"whose turns it was":          {"pod=a client=1.2.3.4:40000\npod=b client=1.2.3.4:40001\npod=b client=1.2.3.4:40002\nx", "pod=b client=1.2.3.4:50000\npod=a client=1.2.3.4:50001\nx"},
		"the order of set members":    {"Members:\n10.96.0.80,tcp:80\n10.96.0.10,udp:53\n", "Members:\n10.96.0.10,udp:53\n10.96.0.80,tcp:80\n"},
		"a connection's time":         {"tcp      6 117 TIME_WAIT src=10.244.3.2 sport=40000", "tcp      6 86399 TIME_WAIT src=10.244.3.2 sport=40009"},
		"how long curl took":          {"curl: (28) Connection timed out after 1001 milliseconds", "curl: (28) Connection timed out after 1013 milliseconds"},
		"when something was denied":   {"2026-11-21T13:13:42Z node3 ingress (and 1 like it before)", "2027-01-02T03:04:05Z node3 ingress"},
		"when a table was written":    {"vip   3   3  0  true    376ms ago", "vip   3   3  0  true    never"},
		"how long a session has been": {"router  192.168.10.1:179  64513  established  4s   0", "router  192.168.10.1:179  64513  established  12s  0"},
	} {
		if a, b := normal(pair[0]), normal(pair[1]); !slices.Equal(a, b) {
			t.Errorf("%s: differ:\n%q\n%q", name, a, b)
		}
	}
	for name, pair := range map[string][2]string{
		"another pod":       {"pod=web-1 client=10.244.3.2:41234", "pod=db client=10.244.3.2:41234"},
		"another source":    {"pod=web-1 client=10.244.3.2:41234", "pod=web-1 client=10.244.1.1:41234"},
		"another weight":    {"  -> 10.244.1.2:8080              Masq    1      0          3", "  -> 10.244.1.2:8080              Masq    0      0          3"},
		"another node port": {"TCP  192.168.10.11:30080 rr", "TCP  192.168.10.11:30081 rr"},
		"a line less":       {"a\nb\n", "a\n"},
		"another address":   {"TCP  10.96.0.80:80 rr", "TCP  10.96.0.81:80 rr"},
		"a rule's port":     {"--dport 8080", "--dport 8081"},
	} {
		if a, b := normal(pair[0]), normal(pair[1]); slices.Equal(a, b) {
			t.Errorf("%s: is taken for the same: %q", name, a)
		}
	}
}
