package netfilter_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// testWellFormed: words that a program or the kernel does not take, and the
// ones beside them that it does.
func testWellFormed(t *testing.T, s subject, f model.Family) {
	t.Helper()
	const table, x, name = "*filter\n:SLUICE-X - [0:0]\n", "-A SLUICE-X ", "--hashlimit-name sluice-a"
	for _, rule := range []string{
		x + "-p tcp -m tcp --dport 23:22 -j RETURN",
		x + "-p tcp -m tcp --dport 22:65536 -j RETURN",
		x + "--mark 0x1/0x1 -j RETURN",
		x + "--hashlimit-upto 5/sec " + name + " -j RETURN",
		x + "-m hashlimit --hashlimit-upto 5/sec -j RETURN",
		x + "-m hashlimit " + name + " -j RETURN",
		x + "--nflog-group 1 -j RETURN",
		x + "-j NFLOG --nflog-group 65536",
		x + "! -i sixteen-letters. -j RETURN",
		"-A OUTPUT ! -i lo -j SLUICE-X",
		x + "-g DROP",
		x + "-g INPUT",
		x + "-g SLUICE-NOSUCH",
	} {
		t.Run(rule, func(t *testing.T) { s.refuse(t, f, table+rule+"\nCOMMIT\n") })
	}
	for i, rule := range []string{
		x + "-p tcp -m tcp --dport 22:65535 -j RETURN",
		x + "-m hashlimit --hashlimit-upto 5/sec " + name + " -j RETURN",
		x + "-j NFLOG --nflog-prefix " + strings.Repeat("a", netfilter.MaxPrefix) + " --nflog-group 65535",
		x + "! -i fifteen-letters -j RETURN",
		":SLUICE-Y - [0:0]\n-A SLUICE-Y ! -i lo -j RETURN\n-A OUTPUT -j SLUICE-Y",
		"-A INPUT ! -i lo -j SLUICE-X",
	} {
		t.Run(fmt.Sprintf("%d taken", i), func(t *testing.T) { s.restore(t, f, table+rule+"\nCOMMIT\n") })
	}
}

// testGotos: a rule that goes to a chain needs it, wherever in the text the
// chain's own rules come, and keeps it as a jump does.
func testGotos(t *testing.T, s subject, f model.Family) {
	t.Helper()
	const filter, commit = "*filter\n", "COMMIT\n"
	s.restore(t, f, filter+":SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\n:SLUICE-C - [0:0]\n"+
		"-A SLUICE-A -g SLUICE-B\n-A SLUICE-A -j SLUICE-C\n-A SLUICE-C -g SLUICE-B\n-A SLUICE-B -p tcp -j RETURN\n-A FORWARD -j SLUICE-A\n"+commit)
	if got := s.rules(t, f, "filter", "SLUICE-C"); !slices.Equal(got, []string{"-g SLUICE-B"}) {
		t.Errorf("printed as %q", got)
	}
	s.refuse(t, f, filter+":SLUICE-B - [0:0]\n-X SLUICE-B\n"+commit)
	s.refuse(t, f, filter+":SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\n-X SLUICE-B\n"+commit) // C goes there too
	s.refuse(t, f, filter+"-A SLUICE-B -g SLUICE-A\n"+commit)                           // round and round
	s.refuse(t, f, filter+"-A SLUICE-B -j SLUICE-A\n"+commit)
	if got := s.rules(t, f, "filter", "SLUICE-B"); !slices.Equal(got, []string{"-p tcp -j RETURN"}) {
		t.Errorf("after refusals: %q", got)
	}
	// What is emptied in the same text lets go, in whatever order they leave.
	s.restore(t, f, filter+":SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\n:SLUICE-C - [0:0]\n-X SLUICE-B\n-X SLUICE-C\n"+commit)
	s.restore(t, f, filter+"-D FORWARD -j SLUICE-A\n-X SLUICE-A\n"+commit)
	// A builtin chain may be left for good too.
	s.restore(t, f, filter+":SLUICE-A - [0:0]\n-A INPUT -g SLUICE-A\n"+commit)
	s.refuse(t, f, filter+":SLUICE-A - [0:0]\n-X SLUICE-A\n"+commit)
}
