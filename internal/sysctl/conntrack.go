package sysctl

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Conntrack says how the kernel tracks connections. What is 0 is left as it is.
type Conntrack struct {
	// MaxPerCore is how many connections are tracked at most for each
	// processor, but Min at least in all. 0: the limit stays, whatever Min is.
	MaxPerCore, Min int
	// How long an entry without traffic is kept: of an established TCP
	// connection, of one that the client has closed and the server has not, of
	// UDP that nobody has answered, and that somebody has. Whole seconds count.
	TCPEstablished, TCPCloseWait, UDP, UDPStream time.Duration
	// TCPBeLiberal: packets outside a connection's window are no invalid ones.
	TCPBeLiberal bool
}

// maxConnections bounds what MaxPerCore makes of many processors, as in
// kube-proxy: an entry takes some 300 bytes.
const maxConnections = 1 << 20

// perBucket is how many entries there are at most to a bucket of the table.
const perBucket = 4

// Max is the limit on a host with so many processors; 0: it stays as it is.
func (c Conntrack) Max(cores int) int {
	switch scaled := c.MaxPerCore * cores; {
	case c.MaxPerCore <= 0:
		return 0
	case scaled > maxConnections:
		return maxConnections
	default:
		return max(scaled, c.Min)
	}
}

// Settings are the switches that bring it about, with the values that
// kube-proxy gives them.
func (c Conntrack) Settings(cores int) []Setting {
	const dir = "net/netfilter/nf_conntrack_"
	var settings []Setting
	add := func(name string, value int, why string) {
		if value > 0 {
			settings = append(settings, Setting{Path: dir + name, Value: strconv.Itoa(value), Why: why})
		}
	}
	seconds := func(d time.Duration) int { return int(d / time.Second) }
	limit := c.Max(cores)
	// The table first: it grows with all that is in it, and its size is the
	// whole host's, as the limit is.
	if limit > 0 {
		settings = append(settings, Setting{
			Path: dir + "buckets", Value: strconv.Itoa(limit / perBucket), AtLeast: true,
			Why: "the table of connections is slow when it holds more than " + strconv.Itoa(perBucket) + " for each bucket",
		})
	}
	add("max", limit, "new connections are dropped when the table is full")
	add("tcp_timeout_established", seconds(c.TCPEstablished), "an idle connection would be forgotten sooner or kept longer than configured")
	add("tcp_timeout_close_wait", seconds(c.TCPCloseWait), "a connection that one side has closed would be forgotten before the other has")
	add("udp_timeout", seconds(c.UDP), "it is configured")
	add("udp_timeout_stream", seconds(c.UDPStream), "it is configured")
	if c.TCPBeLiberal {
		add("tcp_be_liberal", 1, "packets outside a connection's window would be invalid, and are dropped by many rules")
	}
	return settings
}

// StrictARP are the switches of a node that does not answer ARP for what another
// of its interfaces has, as the Services' addresses, nor tell it as its own.
func StrictARP() []Setting {
	const why = "the node answers ARP for Services' addresses, which somebody else is to do"
	return []Setting{
		{Path: "net/ipv4/conf/all/arp_ignore", Value: "1", Why: why},
		{Path: "net/ipv4/conf/all/arp_announce", Value: "2", Why: why},
	}
}

// Cores counts this host's processors that are switched on, in the files of the
// kernel below root ("/"). A process may be confined to fewer.
func Cores(root string) int {
	text, err := read(filepath.Join(root, "sys/devices/system/cpu/online"))
	if err != nil {
		return runtime.NumCPU()
	}
	n := 0
	for span := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(span, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil || b < a {
			return runtime.NumCPU()
		}
		n += b - a + 1
	}
	return n
}

// enough reports whether a value is as wanted.
func (s Setting) enough(value string) bool {
	if value == s.Value {
		return true
	}
	is, err := strconv.Atoi(value)
	wanted, errWanted := strconv.Atoi(s.Value)
	return s.AtLeast && err == nil && errWanted == nil && is >= wanted
}

// remedy is what to do when a switch cannot be written.
func remedy(err error) string {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return "; in a container, mount the host's /proc/sys at " + hostRoot + ", or run `sluice run --init-only` in a privileged one before"
	}
	return ""
}
