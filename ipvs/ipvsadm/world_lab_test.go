//go:build lab

package ipvsadm_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// everyKind makes, by ipvsadm itself, every kind of entry that -S and -R keep.
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
-A -u 10.96.0.11:5060 -s rr -p 60 --pe sip
-A -u 10.96.0.13:5060 -s rr -p 60 --pe sip -o
-A -u 10.96.0.12:53 -s fo -p 60 -M 0.0.0.0
-A -u 10.96.0.14:53 -s rr
-A --sctp-service 10.96.0.20:9 -s sh -b sh-port
-A --sctp-service [fd00::20]:5672 -s ovf -b flag-1,flag-2,flag-3
-A -t [fd00:10:96::10]:443 -s sh -b sh-fallback -p 70 -M 64
-A -t [fd00:10:96::11]:80 -s rr
-A -t [::102:304]:443 -s rr -p 70 -M 128
-A -t [::304]:443 -s rr
-A -t [2001:db8::1:0:0:1]:443 -s lc
-A -t [2001:db8:0:1:0:0:0:1]:443 -s nq
-A -t [fd00:aaaa:bbbb:cccc:dddd:eeee:ffff:1111]:65535 -s wrr
-A -u [fd00:10:96::10]:53 -s rr -o
-A -f 78 -s rr -p 9 -M 255.255.0.0
-A -f 79 -6 -s nq -p 9 -M 48
-A -f 79 -s mh -b mh-port
-A -t 10.96.0.80:80 -s rr
-A -t 10.96.0.81:80 -s rr -p 300
-a -t 10.96.0.80:80 -r 10.88.0.1:8080 -m
-a -t 10.96.0.80:80 -r 10.88.0.9:8080 -m -w 0
-a -t 10.96.0.81:80 -r 10.88.0.1:8080 -m -x 1000 -y 500
-a -t [fd00:10:96::11]:80 -r [fd00:88::1]:8080 -m -x 2147483647
-a -u 10.96.0.14:53 -r 10.88.0.1:5353 -m
-a -u 10.96.0.11:5060 -r 10.88.0.1:5060 -m
-a -f 78 -r 10.88.0.1:0 -m
-a --sctp-service 10.96.0.20:9 -r 10.88.0.1:9 -m
-a -t 10.96.0.1:443 -r 192.168.100.100:65535 -m -w 100000000 -x 10 -y 5
-a -t 10.96.0.1:443 -r 192.168.100.101 -g -w 0
-a -t 10.96.0.1:443 -r 192.168.100.102 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.96.0.1:443 -r 192.168.100.103 -i --tun-type gre
-a -t 10.96.0.1:443 -r 192.168.100.104 -i --tun-type gue --tun-port 65535 --tun-remcsum
-a -t 10.96.0.1:443 -r 192.168.100.105 -i --tun-type gue --tun-port 1 --tun-nocsum
-a -t 10.96.0.1:443 -r 192.168.100.106 -i --tun-type gre --tun-csum
-a -t 10.96.0.1:443 -r [fd00::5]:443 -i
-a -t 10.96.0.1:443 -r [2001:db8::5]:443 -i
-a -t 10.96.0.1:443 -r [fd00:10:244:1:aaaa:bbbb:cccc:dddd]:443 -i
-a -t 10.96.0.1:443 -r 200.1.1.1:443 -m -w 2147483647
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
-a -f 79 -6 -r [fd00::1]:53 -m
`

// oddKind are entries that ipvsadm makes and lists, and that -S writes in a
// form that -R does not take.
const oddKind = `
-A -f 4000000000 -s nq
-A -t 10.96.0.3:443 -s mh -b flag-3
-A -t 10.96.0.4:443 -s sh -b flag-3,sh-port
-A -t [::ffff:10.96.0.5]:443 -s rr
-a -t [::ffff:10.96.0.5]:443 -r [fd00::7]:443 -m
`

// outcome is all that a program leaves behind.
type outcome struct {
	out, err string
	code     int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d\nstdout:\n%s\nstderr:\n%s", o.code, o.out, o.err)
}

// program is one of the programs that are compared.
type program struct {
	path string
	args []string // what it is called as, and what comes before its arguments
}

// run runs on the test's thread's namespace, which children inherit.
func (p program) run(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(t.Context(), p.path)
	cmd.Args = append(append([]string{}, p.args...), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", p.path, err)
	}
	return outcome{out.String(), complaint.String(), cmd.ProcessState.ExitCode()}
}

// original is the real ipvsadm.
func original(t *testing.T) program {
	t.Helper()
	path, err := exec.LookPath("ipvsadm")
	if err != nil {
		t.Fatal(err)
	}
	return program{path, []string{"ipvsadm"}}
}

func sluiceBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SLUICE_BIN")
	if path == "" {
		t.Fatal("set SLUICE_BIN to the binary to compare, which make build builds")
	}
	return path
}

// linked is sluice, called as ipvsadm.
func linked(t *testing.T) program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ipvsadm")
	if err := os.Symlink(sluiceBinary(t), path); err != nil {
		t.Fatal(err)
	}
	return program{path, []string{"ipvsadm"}}
}

// sluice is `sluice ipvs`.
func sluice(t *testing.T) program {
	t.Helper()
	return program{sluiceBinary(t), []string{"sluice", "ipvs"}}
}

// enter puts the test's goroutine into a network namespace of its own, with
// the addresses that everyKind's clients and servers have. The thread is never
// given back, so that it ends with the goroutine and the namespace with it.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	sh(t, `ip link set lo up
ip link add d0 type dummy && ip link set d0 up
for a in 10.96.0.80 10.96.0.81 10.96.0.14 10.96.0.11 10.96.0.20 10.96.0.78 10.88.0.1; do ip addr add $a/32 dev d0; done
for a in fd00:10:96::11 fd00:88::1; do ip addr add $a/128 dev d0 nodad; done`)
}

func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// fill runs the real ipvsadm once for every line.
func fill(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if args := strings.Fields(line); len(args) > 0 {
			if o := original(t).run(t, "", args...); o.code != 0 {
				t.Fatalf("ipvsadm %s: %s", line, o)
			}
		}
	}
}

// traffic makes connections of every protocol and, by one of them, counters
// above 10^8. What stays open does so until the test ends.
func traffic(t *testing.T, bulk int64) {
	t.Helper()
	swallow(t, "10.88.0.1:8080")
	swallow(t, "[fd00:88::1]:8080")
	big := dial(t, "tcp", "10.96.0.80:80")
	if _, err := io.CopyN(big, zeros{}, bulk); err != nil {
		t.Fatalf("bulk: %v", err)
	}
	dial(t, "tcp", "10.96.0.80:80")
	dial(t, "tcp", "10.96.0.81:80")
	dial(t, "tcp", "[fd00:10:96::11]:80")
	fmt.Fprint(dial(t, "udp", "10.96.0.14:53"), "question")
	fmt.Fprint(dial(t, "udp", "10.96.0.11:5060"), "INVITE sip:b@example.org SIP/2.0\r\nCall-ID: 3848276298220188511@example.org\r\n\r\n")
	sh(t, "iptables-legacy -t mangle -A OUTPUT -d 10.96.0.78 -j MARK --set-mark 78")
	fmt.Fprint(dial(t, "udp", "10.96.0.78:7"), "marked")
	initiate(t, [4]byte{10, 96, 0, 20}, 9)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// swallow reads all that connections to an address bring.
func swallow(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// initiate sends the first packet of an SCTP association, again and again: IPVS
// forgets it after three seconds.
func initiate(t *testing.T, to [4]byte, port uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_SCTP)
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 12+20)
	binary.BigEndian.PutUint16(packet, 4000)
	binary.BigEndian.PutUint16(packet[2:], port)
	packet[12], packet[15] = 1, 20 // INIT, and its length
	packet[19] = 1                 // the tag that answers are to have
	ended, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to}); err != nil {
				done <- err
				return
			}
			select {
			case <-ended:
				done <- nil
				return
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(ended)
		if err := <-done; err != nil {
			t.Error("SCTP:", err)
		}
		unix.Close(fd)
	})
}
