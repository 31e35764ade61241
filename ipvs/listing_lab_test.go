//go:build lab

package ipvs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/ipvs"
)

// everyKind fills a table, by ipvsadm itself, with every kind of entry there is.
const everyKind = `
-A -t 10.96.0.1:443 -s mh -b mh-port,mh-fallback -p 60 -M 255.255.255.0
-A -t 10.96.0.2:443 -s wlc -p
-A -t 203.0.113.10:80 -s wlc -b flag-1,flag-3 -p 86400
-A -t 203.0.113.10:8 -s lblc
-A -t 126.0.0.1:8 -s lblcr
-A -t 1.0.0.1:80 -s dh
-A -t 10.1.1.1:0 -s rr -p 10
-A -t 255.255.255.254:65535 -s sed
-A -u 10.96.0.10:53 -s rr -o
-A -u 10.96.0.11:5060 -s rr -p 60 --pe sip -o
-A -u 10.96.0.12:53 -s fo -p 60 -M 0.0.0.0
-A --sctp-service 10.96.0.20:9 -s sh -b sh-port
-A --sctp-service [fd00::20]:5672 -s ovf -b flag-1,flag-2,flag-3
-A -t [fd00:10:96::10]:443 -s sh -b sh-fallback -p 70 -M 64
-A -t [::102:304]:443 -s rr -p 70 -M 128
-A -t [::304]:443 -s rr
-A -t [2001:db8::1:0:0:1]:443 -s lc
-A -t [2001:db8:0:1:0:0:0:1]:443 -s nq
-A -t [fd00:aaaa:bbbb:cccc:dddd:eeee:ffff:1111]:65535 -s wrr
-A -u [fd00:10:96::10]:53 -s rr -o
-A -f 78 -s rr -p 9 -M 255.255.0.0
-A -f 79 -6 -s nq -p 9 -M 48
-A -f 79 -s mh -b mh-port
-A -f 4000000000 -s nq
-a -t 10.96.0.1:443 -r 192.168.100.100:65535 -m -w 100000000 -x 10 -y 5
-a -t 10.96.0.1:443 -r 192.168.100.101 -g -w 0
-a -t 10.96.0.1:443 -r 192.168.100.102 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.96.0.1:443 -r 192.168.100.103 -i --tun-type gre
-a -t 10.96.0.1:443 -r [fd00::5]:443 -i
-a -t 10.96.0.1:443 -r [2001:db8::5]:443 -i
-a -t 10.96.0.1:443 -r [fd00:10:244:1:aaaa:bbbb:cccc:dddd]:443 -i
-a -t 10.96.0.1:443 -r 200.1.1.1:443 -m
-a -t 10.96.0.1:443 -r 60.1.1.1:443 -m
-a -t 10.96.0.1:443 -r 60.1.1.1:80 -m
-a -t 10.96.0.1:443 -r 130.1.1.1:443 -m
-a -t 10.96.0.1:443 -r 127.0.0.1:443 -m
-a -t [fd00:10:96::10]:443 -r [fd00:10:244:1:aaaa:bbbb:cccc:dddd]:8443 -m
-a -t [fd00:10:96::10]:443 -r [fd00:10:244:1::1]:8443 -m
-a -t [fd00:10:96::10]:443 -r [::9.9.9.9]:8443 -m
-a -t [fd00:10:96::10]:443 -r 9.9.9.9:8443 -i
-a -t [fd00:10:96::10]:443 -r 250.9.9.9:8443 -i
-a -u 10.96.0.10:53 -r 10.1.1.1:53 -m
-a -u 10.96.0.10:53 -r 10.1.1.2:5353 -m
-a -f 78 -r 10.1.1.1:0 -m
-a -f 79 -6 -r [fd00::1]:53 -m
-a --sctp-service 10.96.0.20:9 -r 10.1.1.1:9 -m
`

// fill runs ipvsadm once for every line.
func fill(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if args := strings.Fields(line); len(args) > 0 {
			ipvsadm(t, args...)
		}
	}
}

// ipvsadm runs on the test's thread's namespace, which children inherit.
func ipvsadm(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ipvsadm", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func compare(t *testing.T, h ipvs.Handle, style ipvs.Style, args ...string) {
	t.Helper()
	l, err := ipvs.ReadListing(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := write(t, l, style), ipvsadm(t, args...); got != want {
		t.Errorf("ipvsadm %s: got\n%s\nwant\n%s", strings.Join(args, " "), got, want)
	}
}

func TestLabListing(t *testing.T) {
	h := open(t)
	compare(t, h, ipvs.Style{}, "-L", "-n")
	fill(t, everyKind)
	compare(t, h, ipvs.Style{}, "-L", "-n")
	compare(t, h, ipvs.Style{Unsorted: true}, "-L", "-n", "--nosort")
	if t.Failed() {
		return
	}
	t.Logf("as ipvsadm shows it:\n%s", ipvsadm(t, "-L", "-n"))
}

// The order of a table so large that its int32 comparison runs in circles.
func TestLabListingOrder(t *testing.T) {
	h := open(t)
	var lines strings.Builder
	lines.WriteString("-A -t 10.96.0.1:80 -s rr\n")
	for i := 1; i < 224; i += 5 {
		if a := itoa(i); i != 127 {
			lines.WriteString("-A -u " + a + ".0.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r " + a + "." + itoa(i*7%250) + ".0.1:80 -m\n")
		}
		lines.WriteString("-A -u [" + itoa(1000+i*37) + ":8000::" + itoa(i) + "]:80 -s rr\n")
	}
	fill(t, lines.String())
	compare(t, h, ipvs.Style{}, "-L", "-n")
}

// Names: /etc/hosts and /etc/services of our own, and no resolver.
func TestLabListingNames(t *testing.T) {
	h := open(t)
	const long = "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz"
	replace(t, "/etc/hosts", "10.96.0.1 web alias\n10.96.0.10 "+long+"\n192.168.100.100 "+long+"\n"+
		"fd00:10:96::10 "+long+"\nfd00::1 six\n10.1.1.1 mark\n203.0.113.10 lb.example.org\n")
	replace(t, "/etc/services", "https 443/tcp # secure\nsecond 443/tcp\ndomain 53/udp\nnine 9/sctp\nalt\t8443/tcp\n")
	replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	fill(t, everyKind)
	n, err := ipvs.NewSystemNames(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	compare(t, h, ipvs.Style{Names: n}, "-L")
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
