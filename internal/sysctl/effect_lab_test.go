//go:build lab

package sysctl_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/sysctl"
)

// pair is a node with a Service's address on a dummy device, and a neighbour on
// one link with it:
//
//	node 192.0.2.1 (and 203.0.113.80 on sluice0) ── 192.0.2.2 neighbour
type pair struct {
	t               *testing.T
	node, neighbour netfiltertest.Namespace
}

const (
	nodeAddr      = "192.0.2.1"
	neighbourAddr = "192.0.2.2"
	serviceAddr   = "203.0.113.80"
)

func newPair(t *testing.T) pair {
	t.Helper()
	p := pair{t, netfiltertest.NewNamespace(t), netfiltertest.NewNamespace(t)}
	thread := make(chan int, 1)
	p.neighbour.Do(func() { thread <- syscall.Gettid() })
	p.sh(p.node, fmt.Sprintf(`ip link set lo up; ip link add link0 type veth peer name link0 netns /proc/%d/ns/net
		ip link set link0 up; ip addr add %s/24 dev link0
		ip link add sluice0 type dummy; ip link set sluice0 up; ip addr add %s/32 dev sluice0`, <-thread, nodeAddr, serviceAddr))
	p.sh(p.neighbour, fmt.Sprintf("ip link set lo up; ip link set link0 up; ip addr add %s/24 dev link0; ip route add %s/32 dev link0", neighbourAddr, serviceAddr))
	return p
}

func (p pair) sh(ns netfiltertest.Namespace, script string) (out string) {
	p.t.Helper()
	ns.Do(func() {
		b, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			p.t.Errorf("%s: %v\n%s", script, err, b)
		}
		out = string(b)
	})
	return out
}

// apply brings settings about in a namespace.
func apply(t *testing.T, ns netfiltertest.Namespace, settings []sysctl.Setting) {
	t.Helper()
	ns.Do(func() {
		for i, o := range sysctl.Apply("/proc/sys", settings) {
			if o.Err != nil {
				t.Error(o.Err)
			}
			if o.Wrote {
				t.Logf("set %s=%s", settings[i].Path, settings[i].Value)
			}
		}
	})
}

// dial is how a connection from the neighbour to a port of an address ends on
// which nobody listens: refused by who has the address, or, where ARP is not
// answered, nobody there.
func (p pair) dial(to string) (err error) {
	p.neighbour.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", to+":9", 10*time.Second); err == nil {
			_ = c.Close()
		}
	})
	return err
}

// TestStrictARPNotAnswered: a node without it answers ARP for a Service's address,
// which is on no interface of that link, and with it does not; for its own it
// always does.
func TestStrictARPNotAnswered(t *testing.T) {
	p := newPair(t)
	if err := p.dial(serviceAddr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("before: %v, want refused by the node", err)
	}
	apply(t, p.node, sysctl.StrictARP())
	p.sh(p.neighbour, "ip neigh flush all")
	err := p.dial(serviceAddr)
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("after: %v, want nobody there", err)
	}
	t.Logf("%s: %v", serviceAddr, err)
	if err := p.dial(nodeAddr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the node's own address: %v, want refused by the node", err)
	}
}

// TestStrictARPNotTold: without it the node asks for its neighbour in the name of
// the Service's address when it sends from there, and so tells it to the link.
func TestStrictARPNotTold(t *testing.T) {
	p := newPair(t)
	var listener net.PacketConn
	p.neighbour.Do(func() {
		var err error
		if listener, err = net.ListenPacket("udp", neighbourAddr+":9"); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	defer listener.Close()
	send := func() {
		t.Helper()
		p.sh(p.node, "ip neigh flush all")
		p.sh(p.neighbour, "ip neigh flush all")
		p.node.Do(func() {
			from := &net.UDPAddr{IP: net.ParseIP(serviceAddr)}
			c, err := net.DialUDP("udp", from, &net.UDPAddr{IP: net.ParseIP(neighbourAddr), Port: 9})
			if err == nil {
				_, err = c.Write([]byte("x"))
				_ = c.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
		if err := listener.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Error(err)
		}
		if _, from, err := listener.ReadFrom(make([]byte, 9)); err != nil || !strings.HasPrefix(from.String(), serviceAddr) {
			t.Errorf("from %v, %v", from, err)
		}
	}
	learned := func() string { return p.sh(p.neighbour, "ip -4 neigh show dev link0") }
	send()
	if n := learned(); !strings.Contains(n, serviceAddr+" lladdr") {
		t.Errorf("before, the neighbour learned %q, want %s", n, serviceAddr)
	}
	apply(t, p.node, sysctl.StrictARP())
	send()
	if n := learned(); strings.Contains(n, serviceAddr) || !strings.Contains(n, nodeAddr+" lladdr") {
		t.Errorf("after, the neighbour learned %q, want %s and not %s", n, nodeAddr, serviceAddr)
	}
}

// tracked are the lines of a namespace's connection table that have a word.
func (p pair) tracked(ns netfiltertest.Namespace, word string) string {
	p.t.Helper()
	var lines []string
	for line := range strings.Lines(p.sh(ns, "conntrack -L 2>/dev/null || true")) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// expect awaits an entry with a word that is kept for at most so many seconds
// more, and for at least so many: what passed meanwhile and nothing else.
func (p pair) expect(ns netfiltertest.Namespace, what, word string, least, most int) {
	p.t.Helper()
	seconds := regexp.MustCompile(`^\w+\s+\d+ (\d+) `)
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		last = p.tracked(ns, word)
		if m := seconds.FindStringSubmatch(last); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n >= least && n <= most {
				p.t.Logf("%s: %s", what, strings.TrimSpace(last))
				return
			}
		}
	}
	p.t.Errorf("%s: %q, want one kept for %d to %d s", what, last, least, most)
}

// TestConntrackTimeouts: entries are kept for as long as configured, which is
// seen in the kernel's table.
func TestConntrackTimeouts(t *testing.T) {
	p := newPair(t)
	ns := p.node
	apply(t, ns, sysctl.Conntrack{
		TCPEstablished: 5555 * time.Second, TCPCloseWait: 777 * time.Second, UDP: 222 * time.Second, UDPStream: 999 * time.Second,
	}.Settings(1))
	p.sh(ns, "iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT") // has the namespace track at all
	var client net.Conn
	ns.Do(func() {
		listener, err := net.Listen("tcp", "127.0.0.1:1234")
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = listener.Close() })
		if client, err = net.Dial("tcp", "127.0.0.1:1234"); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	defer client.Close()
	p.expect(ns, "established", "dport=1234", 5500, 5555)
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Error(err)
	}
	p.expect(ns, "half closed", "CLOSE_WAIT", 700, 777)
}

// TestConntrackOfUDP: a flow that nobody answers is kept for one time, one that
// is answered again and again for another.
func TestConntrackOfUDP(t *testing.T) {
	p := newPair(t)
	ns := p.node
	apply(t, ns, sysctl.Conntrack{UDP: 222 * time.Second, UDPStream: 999 * time.Second}.Settings(1))
	p.sh(ns, "iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT")
	var server net.PacketConn
	var client net.Conn
	ns.Do(func() {
		var err, errDial error
		server, err = net.ListenPacket("udp", "127.0.0.1:1234")
		client, errDial = net.Dial("udp", "127.0.0.1:1234")
		if err = errors.Join(err, errDial); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	defer server.Close()
	defer client.Close()
	talk := func(answer bool) {
		t.Helper()
		_, err := client.Write([]byte("?"))
		_, from, errRead := server.ReadFrom(make([]byte, 9))
		if answer {
			_, errAnswer := server.WriteTo([]byte("!"), from)
			_, errHeard := client.Read(make([]byte, 9))
			err = errors.Join(err, errAnswer, errHeard)
		}
		if err = errors.Join(err, errRead); err != nil {
			t.Error(err)
		}
	}
	talk(false)
	p.expect(ns, "not answered", "[UNREPLIED]", 200, 222)
	// It is a stream two seconds after the first answer.
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.tracked(ns, "dport=1234"), "[ASSURED]"); time.Sleep(50 * time.Millisecond) {
		if talk(true); time.Now().After(end) || t.Failed() {
			t.Fatalf("never a stream: %s", p.tracked(ns, "dport=1234"))
		}
	}
	talk(true)
	p.expect(ns, "a stream", "[ASSURED]", 980, 999)
}

// TestConntrackBeLiberal: a segment far outside the window is invalid, and is not
// where it is asked for.
func TestConntrackBeLiberal(t *testing.T) {
	for _, liberal := range []bool{false, true} {
		p := newPair(t)
		ns := p.node
		apply(t, ns, sysctl.Conntrack{TCPBeLiberal: liberal}.Settings(1))
		p.sh(ns, "iptables -A OUTPUT -m conntrack --ctstate INVALID")
		ns.Do(func() {
			listener, err := net.Listen("tcp4", "127.0.0.1:1234")
			if err != nil {
				t.Error(err)
				return
			}
			defer listener.Close()
			client, err := net.Dial("tcp4", "127.0.0.1:1234")
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			if err := sendBeyond(client.(*net.TCPConn)); err != nil {
				t.Error(err)
			}
		})
		want := "1"
		if liberal {
			want = "0"
		}
		rule := strings.Fields(p.sh(ns, "iptables -L OUTPUT -vnx | tail -n 1"))
		if len(rule) == 0 || rule[0] != want {
			t.Errorf("liberal %v: %q, want %s packets that are invalid", liberal, rule, want)
		}
		t.Logf("liberal %v: invalid packets: %s", liberal, rule[0])
	}
}

// sendBeyond sends a segment of a connection over the loopback device that is
// far beyond its window. Its checksum is not right, which is looked at on
// arrival only.
func sendBeyond(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var next int
	var failed error
	err = raw.Control(func(fd uintptr) {
		const sendQueue = 2
		on := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		queue := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue)
		next, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		off := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 0)
		failed = errors.Join(on, queue, failed, off)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("where the connection is: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment, uint16(c.LocalAddr().(*net.TCPAddr).Port))
	binary.BigEndian.PutUint16(segment[2:], uint16(c.RemoteAddr().(*net.TCPAddr).Port))
	binary.BigEndian.PutUint32(segment[4:], uint32(next)+1<<30)
	const headerWords, ack = 5 << 4, 0x10
	segment[12], segment[13] = headerWords, ack
	return unix.Sendto(s, segment, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

// TestConntrackLimit: the host tracks as many connections as configured, in a
// table that is large enough; where the limit is not this process's to set, the
// error says what to do.
func TestConntrackLimit(t *testing.T) {
	const limit, buckets = "/proc/sys/net/netfilter/nf_conntrack_max", "/proc/sys/net/netfilter/nf_conntrack_buckets"
	was := map[string][]byte{}
	for _, path := range []string{limit, buckets} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		was[path] = text
	}
	inside := netfiltertest.NewNamespace(t)
	raised := sysctl.Conntrack{MaxPerCore: 1, Min: 1_000_001}.Settings(1)
	inside.Do(func() {
		for _, o := range sysctl.Apply("/proc/sys", raised) {
			if o.Err == nil || !errors.Is(o.Err, fs.ErrPermission) || !strings.Contains(o.Err.Error(), "sluice run --init-only") {
				t.Errorf("in a namespace of its own: %v, want that it may not, and a remedy", o.Err)
			}
			t.Log(o.Err)
		}
	})
	if f, err := os.OpenFile(limit, os.O_WRONLY, 0); err != nil {
		t.Skipf("this is not the first network namespace: %v", err)
	} else {
		_ = f.Close()
	}
	t.Cleanup(func() {
		for path, text := range was {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Error(err)
			}
		}
	})
	for _, o := range sysctl.Apply("/proc/sys", raised) {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
	for i, o := range sysctl.Apply("/proc/sys", raised) {
		if o.Wrote || o.Err != nil {
			t.Errorf("again: %s: %+v", raised[i].Path, o)
		}
	}
	now, _ := os.ReadFile(limit)
	size, _ := os.ReadFile(buckets)
	t.Logf("nf_conntrack_max %s -> %s, nf_conntrack_buckets %s -> %s", trim(was[limit]), trim(now), trim(was[buckets]), trim(size))
	if n, err := strconv.Atoi(trim(size)); err != nil || n < 250000 || trim(now) != "1000001" {
		t.Errorf("limit %s, %s buckets", trim(now), trim(size))
	}

	p := newPair(t)
	p.sh(p.node, "iptables -A OUTPUT -m conntrack --ctstate NEW -j ACCEPT")
	for _, o := range sysctl.Apply("/proc/sys", sysctl.Conntrack{MaxPerCore: 40, Min: 20}.Settings(1)) {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
	flows := 0
	p.node.Do(func() {
		for port := 1; port <= 200; port++ {
			c, err := net.Dial("udp", net.JoinHostPort(neighbourAddr, strconv.Itoa(port)))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Write([]byte("x")); err == nil {
				flows++
			}
			_ = c.Close()
		}
	})
	count := trim([]byte(p.sh(p.node, "conntrack -C")))
	t.Logf("with a limit of 40, of 200 flows %s are tracked (%d were let out)", count, flows)
	if n, err := strconv.Atoi(count); err != nil || n > 40 || n < 10 {
		t.Errorf("%s flows are tracked, want at most 40", count)
	}
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }
