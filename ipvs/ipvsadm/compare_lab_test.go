//go:build lab

package ipvsadm_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// expiry is when a connection expires: of all that is compared the only thing
// that moves all the time.
var expiry = regexp.MustCompile(`(?m)^(\S+ +)(\d\d+):(\d\d)\b`)

// still is an outcome without what moves; what took its place is as wide.
func (o outcome) still() outcome {
	o.out = expiry.ReplaceAllStringFunc(o.out, func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return '9'
			}
			return r
		}, s)
	})
	return o
}

// expiries are the seconds that were taken out.
func (o outcome) expiries() (list []int) {
	for _, m := range expiry.FindAllStringSubmatch(o.out, -1) {
		minutes, _ := strconv.Atoi(m[2])
		seconds, _ := strconv.Atoi(m[3])
		list = append(list, minutes*60+seconds)
	}
	return list
}

// settled runs a program between two runs of the real ipvsadm that say the
// same, so that what both are asked about did not move in between. Connections
// may have come as much nearer to their end as they did between the two, or
// have been heard of again.
func settled(t *testing.T, ask func(ours bool) outcome) (got, want outcome) {
	t.Helper()
	for range 60 {
		want = ask(false)
		got = ask(true)
		again := ask(false)
		if again.still() != want.still() {
			continue
		}
		before, after := want.expiries(), again.expiries()
		for i, n := range got.expiries() {
			if i < len(before) && (n < min(before[i], after[i])-1 || n > max(before[i], after[i])+1) {
				t.Errorf("connection %d expires in %d seconds, by ipvsadm in %d, and then in %d", i, n, before[i], after[i])
			}
		}
		return got.still(), want.still()
	}
	t.Fatalf("ipvsadm never says the same twice:\n%s", want)
	return
}

// same compares one command line, and returns how many bytes there were, and
// whether they were the same.
func same(t *testing.T, ours program, theirs []string, args []string) (bytes int, is bool) {
	t.Helper()
	got, want := settled(t, func(asked bool) outcome {
		if asked {
			return ours.run(t, "", args...)
		}
		return original(t).run(t, "", theirs...)
	})
	if got != want {
		t.Errorf("%s %s\n%s\nipvsadm %s\n%s", strings.Join(ours.args, " "), strings.Join(args, " "), got, strings.Join(theirs, " "), want)
	}
	return len(want.out) + len(want.err), got == want
}

// bulk is above what a column of nine holds.
const bulk = 150_000_000

// TestLabListings compares all pairs of listing options, and all columns of
// each virtual server, on a table with every kind of entry and connection.
func TestLabListings(t *testing.T) {
	enter(t)
	withoutResolver(t)
	fill(t, everyKind+oddKind)
	traffic(t, bulk)
	awaitBulk(t)
	ours := linked(t)
	t.Logf("%-60s %7s  %s", "ipvsadm, and sluice called as ipvsadm", "bytes", "identical")
	for _, args := range optionSets() {
		n, is := same(t, ours, args, args)
		t.Logf("%-60s %7d  %v", strings.Join(args, " "), n, is)
	}
	t.Logf("%-60s %7s  %s", "sluice ipvs, and ipvsadm with -n", "bytes", "identical")
	for _, args := range [][]string{{"-L"}, {"-Ln"}, {"-L", "--stats"}, {"-L", "--rate", "--exact"}, {"-L", "-c"}, {"-S"}, {"-l", "-t", "10.96.0.80:80"}} {
		theirs := args
		if !slices.Contains(args, "-Ln") {
			theirs = append(slices.Clone(args), "-n")
		}
		n, is := same(t, sluice(t), theirs, args)
		t.Logf("%-60s %7d  %v", "sluice ipvs "+strings.Join(args, " "), n, is)
	}
	for _, args := range [][]string{{"-L"}, {"-L", "-c"}, {"-S"}} {
		same(t, sluice(t), args, append(slices.Clone(args), "--resolve"))
	}
	connections := original(t).run(t, "", "-Lnc", "--persistent-conn").out
	for _, kind := range []string{"TCP ", "UDP ", "SCTP ", "IP ", "[fd00:", " sip ", "NONE", "ASSURED", "ESTABLISHED"} {
		if !strings.Contains(connections, kind) {
			t.Errorf("no connection with %q", kind)
		}
	}
	t.Logf("connections:\n%s", connections)
	t.Logf("counters:\n%s", original(t).run(t, "", "-Ln", "-t", "10.96.0.80:80", "--stats").out)
}

// awaitBulk waits until the kernel's estimator has counted the transfer.
func awaitBulk(t *testing.T) {
	t.Helper()
	for range 200 {
		if o := original(t).run(t, "", "-Ln", "-t", "10.96.0.80:80", "--stats"); strings.Contains(o.out, "K") && strings.Count(o.out, "K") >= 2 {
			return
		}
		sh(t, "sleep 0.1")
	}
	t.Fatalf("no counter is above 10^8:\n%s", original(t).run(t, "", "-Ln", "--stats"))
}

// optionSets are no options, each, and each pair, with -n and without, and the
// columns of one virtual server of each kind.
func optionSets() [][]string {
	options := []string{
		"-c", "--timeout", "--daemon", "--stats", "--rate", "--exact", "--thresholds", "--persistent-conn", "--tun-info", "--nosort", "--sort",
	}
	sets := [][]string{{}, {"-L"}, {"-l"}, {"--list"}, {"-Ln"}, {"-L", "-n"}, {"-S"}, {"-Sn"}, {"--save", "--numeric"}, {"-R"}}
	for i, a := range options {
		sets = append(sets, []string{"-L", a}, []string{"-Ln", a})
		for _, b := range options[i+1:] {
			sets = append(sets, []string{"-Ln", a, b})
		}
	}
	sets = append(sets, []string{"-Ln", "--stats", "--rate", "--exact", "--nosort"}, []string{"-LnX", "--rate", "--tun-info"},
		[]string{"-Lnc", "--persistent-conn", "--nosort", "--exact"}, []string{"-lcn"}, []string{"-L", "-t", "10.96.0.80:http"})
	for _, of := range []string{
		"-t 10.96.0.1:443", "-t 10.96.0.80:80", "-t10.96.0.81:80", "-u 10.96.0.11:5060", "--sctp-service 10.96.0.20:9", "-f 78", "-f 79 -6", "-f 79",
		"-f 4000000000", "-t [fd00:10:96::10]:443", "-t [::ffff:10.96.0.5]:443", "-t 10.1.1.1", "-t 10.96.0.99:1", "-f 5", "-t [10.96.0.1]:443",
	} {
		sets = append(sets, append([]string{"-Ln"}, strings.Fields(of)...))
	}
	for _, columns := range []string{"--stats", "--rate", "--thresholds", "--persistent-conn", "--tun-info", "--stats --exact", "--nosort", "-c", "--timeout"} {
		for _, of := range []string{"-t 10.96.0.1:443", "-t 10.96.0.80:80"} {
			sets = append(sets, append([]string{"-Ln"}, strings.Fields(of+" "+columns)...))
		}
	}
	return sets
}

// TestLabDaemons compares what is said of sync daemons. They are not for tables
// with tunnels from one family to the other.
func TestLabDaemons(t *testing.T) {
	enter(t)
	sh(t, "ip link add v0 type dummy && ip link set v0 up && ip addr add 10.5.5.5/24 dev v0")
	ours, real := linked(t), original(t)
	defer func() { // they would keep the namespace
		for _, state := range []string{"master", "backup"} {
			real.run(t, "", "--stop-daemon", state)
		}
	}()
	for _, start := range []string{
		"", "--start-daemon master --mcast-interface v0 --syncid 7",
		"--start-daemon backup --mcast-interface v0 --mcast-group ff05::99 --mcast-port 9000 --mcast-ttl 4 --sync-maxlen 1400",
		"--stop-daemon master", "--start-daemon master --mcast-interface v0 --mcast-group 224.0.0.99 --mcast-port 65535 --mcast-ttl 255",
	} {
		fill(t, start)
		for _, args := range [][]string{{"-L", "--daemon"}, {"-Ln", "--daemon", "--exact"}} {
			n, is := same(t, ours, args, args)
			t.Logf("%-60s %7d  %v", strings.Join(args, " "), n, is)
		}
	}
	t.Logf("\n%s", real.run(t, "", "-L", "--daemon").out)
}

// TestLabNames compares names: /etc/hosts and /etc/services of our own, and no
// resolver.
func TestLabNames(t *testing.T) {
	enter(t)
	const long = "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz"
	replace(t, "/etc/hosts", "10.96.0.1 web alias\n10.96.0.10 "+long+"\n192.168.100.100 "+long+"\n"+
		"fd00:10:96::10 "+long+"\nfd00::1 six\n10.1.1.1 mark\n203.0.113.10 lb.example.org\n10.88.0.1 "+long+"\n")
	replace(t, "/etc/services", "https 443/tcp # secure\nsecond 443/tcp other\ndomain 53/udp\nnine 9/sctp\nalt\t8443/tcp\nhttp-alt 8080/tcp\n")
	withoutResolver(t)
	fill(t, everyKind+oddKind)
	traffic(t, 1)
	for _, args := range [][]string{
		{}, {"-L"}, {"-L", "--stats"}, {"-L", "--rate"}, {"-L", "--thresholds"}, {"-L", "--tun-info"}, {"-S"}, {"-L", "-c"}, {"-L", "-c", "--persistent-conn"},
		{"-L", "-t", "web:https"}, {"-L", "-t", "alias:second"}, {"-L", "-t", "web:other"}, {"-L", "-u", long + ":domain"}, {"-L", "--sctp-service", "10.96.0.20:nine"},
		{"-L", "-t", "web:domain"}, {"-L", "-t", "nowhere.invalid:80"}, {"-L", "-t", "six:80"},
	} {
		n, is := same(t, linked(t), args, args)
		t.Logf("%-60s %7d  %v", strings.Join(args, " "), n, is)
	}
}

// withoutResolver has every look-up refused at once.
func withoutResolver(t *testing.T) {
	t.Helper()
	replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
}

// replace puts a file over another one, in a mount namespace of this thread.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	over := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(over, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(over, 0o644); err != nil { // as the file it stands for
		t.Fatal(err)
	}
	if err := unix.Mount(over, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount over %s: %v", path, err)
	}
}

// TestLabOrder is a table so large that ipvsadm's comparison of addresses, of
// 32 bits with a sign, runs in circles.
func TestLabOrder(t *testing.T) {
	enter(t)
	var lines strings.Builder
	lines.WriteString("-A -t 10.96.0.1:80 -s rr\n")
	for i := 1; i < 224; i += 5 {
		if a := itoa(i); i != 127 {
			lines.WriteString("-A -u " + a + ".0.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r " + a + "." + itoa(i*7%250) + ".0.1:80 -m\n")
		}
		lines.WriteString("-A -u [" + itoa(1000+i*37) + ":8000::" + itoa(i) + "]:80 -s rr\n")
	}
	if o := original(t).run(t, lines.String(), "-R"); o.code != 0 {
		t.Fatal(o)
	}
	for _, args := range [][]string{{"-L", "-n"}, {"-S", "-n"}, {"-Ln", "--nosort"}} {
		same(t, linked(t), args, args)
	}
}
