//go:build lab

package ipvsadm_test

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// refusedLines are command lines that ipvsadm does not take, and a few that it
// takes in ways of its own. None of them changes anything.
const refusedLines = `
-n -L
-nL
foo
--
-
-L foo
foo -L
-L -- foo
-L -- -n
-L -
-Ln=
-L=n
-L -n=3
--list=x
-L --numeric=3
-L -q
-Lq
-L --quiet
-L --lis
--lis
-list
-L --
-L -h
-Lh
-L -A
-L --save
-L -t
-L -u
-L -f
-L --sctp-service
-L -s
-L -t 10.96.0.1:443 -t 10.96.0.2:443
-L -t 10.96.0.1:443 -u 10.96.0.2:443
-L -n -n
-Lnn
-L --stats --stats
-L --sort --sort
-L --exact -X
-L -6
-L -f 79 -6 -6
-L -f 0
-L -f -1
-L -f 4294967296
-L -f 99999999999999999999
-L -f 0x10
-L -f x
-L -f 5x
-L -f +5
-L -t 443
-L -t x
-L -t 10.96.0.1:x
-L -t 10.96.0.1:70000
-L -t 10.96.0.1:-1
-L -t 10.96.0.1:
-L -t :80
-L -t [fd00::1
-L -t [fd00::1]
-L -t [fd00::1]80
-L -t fd00::1
-L -t fd00:10:96::10
-L -t [fd00:10:96::10]:443
-L -t [fd00:10:96::10%lo]:443
-L -t [10.96.0.1]:443
-L -t 10.24576.1:443
-L -t 0x0a.0x60.0.1:443
-L -t 012.0140.0.1:443
-L -t 174063617:443
-L -t 10.96.0.1.:443
-L -t 10.96.0.256:443
-L -t 10.96.0.08:443
-L -t=10.96.0.1:443
-L --tcp-service=10.96.0.1:443
-L -t10.96.0.1:443
-L -nt10.96.0.1:443
-L -t 10.96.0.1:+443
-L -s rr
-L -p
-L -p 5
-L -p 0
-L -p x
-L -p 2678400
-L -p 2678401
-L -p -n
-L -M 255.255.255.0
-L -M 64
-L -M x
-L -f 5 -6 -M 64
-L -f 5 -6 -M 0
-L -f 5 -6 -M 129
-L -f 5 -6 -M 64x
-L -r 10.1.1.1
-L -r 5
-L -m
-L -g -i
-L -w 5
-L -w -1
-L -w x
-L -w 2147483647
-L -w 2147483648
-L -x 2147483647
-L -x 2147483648
-L -y 2147483647
-L -y 2147483648
-L -o
-L --pe sip
-L -b sh-port
-L -b foo
-L -b flag-1
-L -b flag-1,flag-4
-L -b mh-port -s mh
-L -b mh-port -s sh
-L --mcast-interface eth0
-L --syncid 5
-L --syncid 256
-L --mcast-group 10.0.0.1
-L --mcast-group 224.0.0.81
-L --mcast-group ff05::1
-L --mcast-group fd00::1
-L --mcast-group x
-L --mcast-port 0
-L --mcast-port 5
-L --mcast-ttl 0
-L --mcast-ttl 256
-L --sync-maxlen 65507
-L --sync-maxlen 65508
-L --tun-type foo
-L --tun-type gue
-L --tun-port 0
-L --tun-port 65536
-L --tun-csum
-L --tun-remcsum --tun-nocsum
-L -c -t 10.96.0.1:443
-L -c --timeout
-L --timeout --daemon
-L --daemon -c
-L -c --stats
-L -c --rate
-L -c --thresholds
-L --timeout --persistent-conn
-L --daemon --stats
-L -c foo
-S foo
-S -c
-S --thresholds
-S -t 10.96.0.1:443
-S -n -n
-S -X
-R foo
-R -n
-R -t 10.96.0.1:443
-R --nosort
-L -t 10.96.0.99:443
-L -u 10.96.0.1:443
-L -f 6
-L -f 79
-L -t [::1]:0
`

// TestLabErrors compares what is said of command lines that ipvsadm does not
// take, and the exit codes.
func TestLabErrors(t *testing.T) {
	enter(t)
	withoutResolver(t)
	fill(t, everyKind)
	ours, n := linked(t), 0
	for line := range strings.Lines(refusedLines) {
		if args := strings.Fields(line); len(args) > 0 {
			same(t, ours, args, args)
			n++
		}
	}
	for _, args := range [][]string{{""}, {"-L", ""}, {"-L", "-t", ""}, {"-L", "-t", " 10.96.0.1:443"}, {"-L", "-t", "10.96.0.1 :443"}, {"-L", "-t", "10.96.0.1: 443"}, {"-L", "-M", ""}} {
		same(t, ours, args, args)
		n++
	}
	t.Logf("%d command lines: stdout, stderr and exit code are those of ipvsadm", n)
	// The words of the help are our own; it has every option that ipvsadm's has.
	help, theirs := ours.run(t, "", "-h"), original(t).run(t, "", "-h")
	option, has := regexp.MustCompile(`(?:^|[^-\w])(--[a-z][a-z-]+|-[a-zA-Z0-9])\b`), map[string]bool{}
	for _, o := range option.FindAllStringSubmatch(help.out, -1) {
		has[o[1]] = true
	}
	options := option.FindAllStringSubmatch(theirs.out, -1)
	for _, o := range options {
		if !has[o[1]] {
			t.Errorf("-h does not have %s", o[1])
		}
	}
	if len(options) < 60 || !strings.Contains(help.out, "This is sluice") || help.err+theirs.err != "" || help.code != 0 {
		t.Errorf("-h: %s\nipvsadm: %s", help, theirs)
	}
	version, theirs := ours.run(t, "", "--version"), original(t).run(t, "", "--version")
	if rest, is := strings.CutPrefix(version.out, theirs.out); !is || !strings.HasPrefix(rest, "sluice ") || version.code != 0 {
		t.Errorf("-v: %s\nipvsadm: %s", version, theirs)
	}
}

// restored are lines that -R is given, each by itself.
const restored = `
-A -t 10.96.0.1:443
-A -t 10.96.0.1:443 -s rr
-A -t 10.96.0.1:0
-A -t 10.96.0.1
-A -u 10.96.0.1:53 -o -s wrr
-A -t 10.96.0.3:80 -o
-A -f 5 -o
-A -f 5 -6
-A -6 -f 7
-A -s rr
-A -t 10.96.0.3:80 -r 10.1.1.1
-A -t 10.96.0.3:80 -n
-A -t 10.96.0.3:80 -s nope
-A -t 10.96.0.3:80 -s averyveryverylongname
-A -t 10.96.0.3:80 --pe nope -p
-A -t 10.96.0.3:80 --pe sip
-A -u 10.96.0.3:80 --pe sip -p 5
-A -t 10.96.0.4:80 -s sh -b sh-port,sh-fallback
-A -t 10.96.0.5:80 -b sh-port -s sh
-A -t 10.96.0.6:80 -b sh-port
-A -t 10.96.0.6:80 -s mh -b mh-port,,mh-fallback
-A -t 10.96.0.7:80 -p 0
-A -t 10.96.0.7:80 -p 2678400
-A -t 10.96.0.8:80 -M 255.255.0.0 -p
-A -M 255.255.0.0 -t 10.96.0.9:80 -p 9
-A -t [fd00::1]:80 -M 64 -p 9
-A -M 64 -t [fd00::2]:80 -p 9
-A -t [fd00::3]:80 -M 0 -p 9
-A -t fd00::4 -p 9
-A -t 0.0.0.0:80
-A -t 224.0.0.1:80 -s rr
-A -f 6 -M 255.255.0.0 -6 -p 5
-A -p -t 10.96.0.20:80
-a -t 10.96.0.1:443 -r 10.1.1.1
-a -t 10.96.0.1:443 -r 10.1.1.1:80
-a -t 10.96.0.1:443 -r 10.1.1.1:80 -m
-a -t 10.96.0.1:443 -r 10.1.1.1:80 -m
-a -r 10.1.1.9 -t 10.96.0.1:443 -m
-a -t 10.96.0.1:443 -r 10.1.1.2 -i -w 5
-a -t 10.96.0.1:443 -r [fd00::9]:80
-a -t 10.96.0.1:443 -r [fd00::9]:80 -m
-a -t 10.96.0.1:443 -r [fd00::9]:80 -i
-a -t 10.96.0.1:443 -r 224.0.0.1
-a -t 10.96.0.1:443 -r 10.1.1.3 -w 2147483647
-a -t 10.96.0.1:443 -r 10.1.1.4 -w 2147483648
-a -t 10.96.0.1:443 -r 10.1.1.5 -x 5 -y 10
-a -t 10.96.0.1:443 -r 10.1.1.6 -x 10 -y 5
-a -t 10.96.0.99:443 -r 10.1.1.1
-a -t 10.96.0.1:443
-a -t 10.96.0.1:443 -r
-a -r 10.1.1.1
-a -t 10.96.0.1:443 -r 10.1.1.7 -m -g
-a -t 10.96.0.1:443 -r 10.1.1.7 --tun-type gue
-a -t 10.96.0.1:443 -r 10.1.1.7 --tun-csum
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-csum
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-port 5
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-type gue
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-type gue --tun-port 5 --tun-csum --tun-nocsum
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-type gre --tun-port 5
-a -t 10.96.0.1:443 -r 10.1.1.7 -i --tun-type gre --tun-remcsum
-a -t 10.96.0.1:443 -r 10.1.1.8 -i --tun-type gre --tun-csum
-a -t 10.96.0.1:443 -r 10.1.1.9 -i --tun-type gue --tun-port 6080
-a -f 5 -r 10.1.1.1
-a -f 5 -r 10.1.1.1:80 -m
-a -f 5 -6 -r [fd00::1]:0
-a -t [fd00::1]:80 -r [fd00::5]:80 -m
-a -t [fd00::1]:80 -r [fe80::5]:80 -m
-a -t 10.96.0.1:443 -r 10.1.1.1 -s rr
# comment
ipvsadm -A -t 10.96.0.30:80
-L -n
-S -n
-R
-q
-L -q
`

// TestLabRestoreLines gives both programs the same lines to restore, each in a
// table of its own, and compares what they say and make.
func TestLabRestoreLines(t *testing.T) {
	var lines []string
	for line := range strings.Lines(restored) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	lines = append(lines, "-A -t 10.97.0.1:80", "\n\n  -A -t 10.97.0.2:80 \r\n\t-a -t 10.97.0.2:80   -r 10.1.1.1 -m\n",
		"-A -t 10.97.0.3:80 -s nope\n-A -t 10.97.0.4:80\n", "-A -t 10.97.0.5:80\n-A -t 10.97.0.5:80\n", "-q\n-A -t 10.97.0.6:80\n",
		"-A -t 10.97.0.7:80 -q\n-A -t 10.97.0.8:80\n", "-A -t 10.97.0.9:80 foo\n-A -t 10.97.0.10:80\n", "")
	play := func(t *testing.T, p program) (said []outcome, made []string) {
		t.Helper()
		enter(t)
		withoutResolver(t)
		for _, line := range lines {
			said = append(said, p.run(t, line, "-R"))
			made = append(made, original(t).run(t, "", "-S", "-n").out)
		}
		return said, made
	}
	var wantSaid, gotSaid []outcome
	var want, got []string
	t.Run("ipvsadm", func(t *testing.T) { wantSaid, want = play(t, original(t)) })
	t.Run("sluice", func(t *testing.T) { gotSaid, got = play(t, linked(t)) })
	for i, line := range lines {
		if gotSaid[i] != wantSaid[i] {
			t.Errorf("%q\nsluice: %s\nipvsadm: %s", line, gotSaid[i], wantSaid[i])
		}
		if got[i] != want[i] {
			t.Fatalf("%q\nsluice made\n%s\nipvsadm\n%s", line, got[i], want[i])
		}
	}
	t.Logf("%d restores: what is said, the exit codes and the tables are those of ipvsadm", len(lines))
}

// sorted is a text with its lines in order: where comparing addresses runs in
// circles, a table's order depends on the kernel's, which is each namespace's own.
func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestLabRoundTrip saves by each and restores by the other.
func TestLabRoundTrip(t *testing.T) {
	ours, real := linked(t), original(t)
	rules := func(t *testing.T) string {
		t.Helper()
		return sorted(real.run(t, "", "-Sn").out + real.run(t, "", "-Ln").out)
	}
	limits := func(t *testing.T) string {
		t.Helper()
		return sorted(real.run(t, "", "-Ln", "--thresholds").out)
	}
	var saved, full, wantRules, wantLimits string
	t.Run("fill", func(t *testing.T) {
		enter(t)
		fill(t, everyKind)
		saved, full = ours.run(t, "", "-Sn").out, ours.run(t, "", "-Sn", "--complete").out
		wantRules, wantLimits = rules(t), limits(t)
		if theirs := real.run(t, "", "-Sn").out; theirs != saved {
			t.Fatalf("saved\n%s\nby ipvsadm\n%s", saved, theirs)
		}
	})
	for _, tt := range []struct {
		name  string
		by    program
		lines string
		keeps bool // the thresholds too
	}{
		{"ours saves, theirs restores", real, saved, false},
		{"theirs saves, ours restores", ours, saved, false},
		{"ours saves all, theirs restores", real, full, true},
		{"ours saves all, ours restores", ours, full, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enter(t)
			if o := tt.by.run(t, tt.lines, "-R"); o != (outcome{}) {
				t.Fatal(o)
			}
			if got := rules(t); got != wantRules {
				t.Errorf("saved and listed again:\n%s\nbefore:\n%s", got, wantRules)
			}
			if got := limits(t); (got == wantLimits) != tt.keeps {
				t.Errorf("thresholds:\n%s\nbefore:\n%s", got, wantLimits)
			}
			t.Logf("%d lines restored, the same when saved and listed again; thresholds kept: %v", strings.Count(tt.lines, "\n"), tt.keeps)
		})
	}
}

// TestLabRestoreIsRefused where an agent serves the node, unless it is forced.
func TestLabRestoreIsRefused(t *testing.T) {
	enter(t)
	sh(t, "ip link add sluice0 type dummy")
	const line = "-A -t 10.96.0.1:443 -s rr\n"
	if o := linked(t).run(t, line, "-R"); o.code != 2 || o.out != "" || !strings.Contains(o.err, "--restore is refused: an agent of sluice serves this node (its device sluice0 is here)") {
		t.Errorf("%s", o)
	}
	if o := original(t).run(t, "", "-Sn"); o.out != "" {
		t.Errorf("restored all the same: %s", o)
	}
	if o := linked(t).run(t, line, "-R", "--force"); o != (outcome{}) {
		t.Errorf("forced: %s", o)
	}
	if o := original(t).run(t, "", "-Sn"); o.out != line {
		t.Errorf("forced, and made %s", o)
	}
}

// TestLabChangesAreRefused: each command that writes, by its name, with nothing
// changed.
func TestLabChangesAreRefused(t *testing.T) {
	enter(t)
	fill(t, everyKind)
	before := original(t).run(t, "", "-Sn").out
	for line, name := range map[string]string{
		"-A -t 10.99.0.1:80": "add-service", "-E -t 10.96.0.2:443 -s rr": "edit-service", "-D -t 10.96.0.2:443": "delete-service", "-C": "clear",
		"-a -t 10.96.0.2:443 -r 10.1.1.1": "add-server", "-e -t 10.96.0.80:80 -r 10.88.0.1:8080 -m -w 9": "edit-server",
		"-d -t 10.96.0.80:80 -r 10.88.0.1:8080": "delete-server", "-Z": "zero", "--set 1 2 3": "set",
		"--start-daemon master": "start-daemon", "--stop-daemon master": "stop-daemon",
	} {
		for _, p := range []program{linked(t), sluice(t)} {
			o := p.run(t, "", strings.Fields(line)...)
			if o.code != 2 || o.out != "" || !strings.HasPrefix(o.err, "--"+name+" is refused: ") || strings.Count(o.err, "\n") != 1 {
				t.Errorf("%s: %s", line, o)
			}
		}
	}
	if o := linked(t).run(t, "-A -t 10.99.0.2:80 -s rr\n-C\n-A -t 10.99.0.3:80\n", "-R"); o.code != 2 || !strings.HasPrefix(o.err, "--clear is refused") {
		t.Errorf("-C in a restore: %s", o)
	}
	if after := original(t).run(t, "", "-Sn").out; sorted(after) != sorted(before+"-A -t 10.99.0.2:80 -s rr\n") {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// TestLabWithoutRights: ipvsadm needs CAP_NET_ADMIN, and so do we.
func TestLabWithoutRights(t *testing.T) {
	enter(t)
	without := func(p program) program {
		return program{"/usr/bin/setpriv", []string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", p.path}}
	}
	for _, args := range [][]string{{"-L", "-n"}, {"-S"}, {"-L", "--daemon"}} {
		got, want := without(linked(t)).run(t, "", args...), without(original(t)).run(t, "", args...)
		if got != want || got.code == 0 {
			t.Errorf("%s\nipvsadm: %s", got, want)
		}
	}
}
