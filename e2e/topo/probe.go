package topo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Probe is a connection to be tried.
type Probe struct {
	Protocol string // TCP, UDP or SCTP
	To       netip.AddrPort
}

// Outcome is what became of a Probe.
type Outcome struct {
	Answer
	// Err is nil when there was an answer; ECONNREFUSED: somebody on the way, or
	// at its end, refused; ErrSilence: nobody said anything; EPERM: this host
	// itself did not send.
	Err error
}

func (o Outcome) String() string {
	if o.Err != nil {
		return o.Err.Error()
	}
	return o.Answer.String()
}

// ErrSilence is a Probe's for which nothing came back in time.
var ErrSilence = errors.New("topo: silence")

// Where a Prober's source ports begin and end: above those of agents and node
// ports, below those that the kernel hands out.
const (
	firstProbePort = 11000
	lastProbePort  = 29999
)

// probesAtOnce bounds the connections that one host has under way: a server's
// backlog takes them from all hosts together.
const probesAtOnce = 128

// Prober tries many connections from one host: thousands in a second, where a
// goroutine and an excursion for each would take their time. Every Probe has a
// source port that no other had for long, so that none is taken for a part of
// an earlier one. It has one owner.
type Prober struct {
	host *Host
	last uint16
}

// NewProber makes a prober on a host.
func (h *Host) NewProber() *Prober { return &Prober{host: h, last: firstProbePort} }

// Try tries all probes and returns their outcomes, in order. patience is how
// long the answers to a part of them (some dozens) may take in all.
func (p *Prober) Try(ctx context.Context, patience time.Duration, probes []Probe) ([]Outcome, error) {
	outcomes := make([]Outcome, len(probes))
	for begin := 0; begin < len(probes) && ctx.Err() == nil; begin += probesAtOnce {
		end := min(begin+probesAtOnce, len(probes))
		if err := p.part(patience, probes[begin:end], outcomes[begin:end]); err != nil {
			return nil, fmt.Errorf("topo: probe from %q: %w", p.host.Name, err)
		}
	}
	return outcomes, ctx.Err()
}

func (p *Prober) part(patience time.Duration, probes []Probe, outcomes []Outcome) (err error) {
	b := &probing{probes: probes, outcomes: outcomes, fds: make([]int, len(probes)), byPort: map[uint16]int{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.poll(); err != nil {
		return err
	}
	err = p.host.Do(func() error {
		for i := range probes {
			if err := b.open(i, p.port()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := b.wait(begin.Add(patience / 4)); err != nil {
		return err
	}
	b.repeat()
	if err := b.wait(begin.Add(patience)); err != nil {
		return err
	}
	b.giveUp()
	return nil
}

func (p *Prober) port() uint16 {
	if p.last++; p.last > lastProbePort {
		p.last = firstProbePort
	}
	return p.last
}

// probing is a part of a Prober's connections, all under way together.
type probing struct {
	probes   []Probe
	outcomes []Outcome
	fds      []int // by probe; 0: none
	open4    int   // raw sockets that hear ICMP; 0: none
	open6    int
	epoll    *os.File // of epollFD, which it owns
	epollFD  int
	left     int            // probes without an outcome
	byPort   map[uint16]int // the SCTP probe of a source port
}

func (b *probing) poll() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	b.epoll, b.epollFD = os.NewFile(uintptr(fd), "epoll"), fd
	return nil
}

// open begins the connection of a probe. The calling thread is on the host.
func (b *probing) open(i int, port uint16) error {
	to := b.probes[i].To
	kind, protocol, from := unix.SOCK_STREAM, 0, unspecified(to.Addr())
	switch b.probes[i].Protocol {
	case UDP:
		kind = unix.SOCK_DGRAM
	case SCTP:
		protocol = unix.IPPROTO_SCTP
		b.byPort[port] = i
		if err := b.hear(to.Addr()); err != nil {
			return err
		}
		// Else it would tell the server all of the host's addresses, and be
		// answered at one that nobody knows the way to.
		var err error
		if from, err = source(to); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(family(to.Addr()), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	b.fds[i] = fd
	if kind == unix.SOCK_STREAM {
		// Closing aborts: nobody keeps anything of it.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, port))); err != nil {
		return fmt.Errorf("bind port %d: %w", port, err)
	}
	b.left++
	err = unix.Connect(fd, sockaddr(to))
	if err == nil && kind == unix.SOCK_DGRAM {
		_, err = unix.Write(fd, []byte("?\n"))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		b.end(i, Outcome{Err: err})
		return nil
	}
	return b.watch(fd, int32(i))
}

// source is the address that the kernel would choose towards a destination.
func source(to netip.AddrPort) (netip.Addr, error) {
	fd, err := unix.Socket(family(to.Addr()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return netip.Addr{}, err
	}
	at, err := unix.Getsockname(fd)
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(at.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(at.Addr), nil
	}
	return netip.Addr{}, err
}

func family(like netip.Addr) int {
	if like.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// watch has wait told when a socket has something; number is what it is told.
func (b *probing) watch(fd int, number int32) error {
	return unix.EpollCtl(b.epollFD, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: number})
}

// The numbers of the sockets that hear ICMP.
const (
	hears4 = -4
	hears6 = -6
)

// hear opens the socket that hears refusals of SCTP of a family, if it is not
// open yet: a socket of SCTP keeps them to itself and tries on.
func (b *probing) hear(like netip.Addr) error {
	fd, number, protocol := &b.open4, int32(hears4), unix.IPPROTO_ICMP
	if like.Is6() {
		fd, number, protocol = &b.open6, hears6, unix.IPPROTO_ICMPV6
	}
	if *fd != 0 {
		return nil
	}
	var err error
	*fd, err = unix.Socket(family(like), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	return b.watch(*fd, number)
}

// wait takes what comes until every probe has its outcome, or the time is up.
func (b *probing) wait(deadline time.Time) error {
	if err := b.epoll.SetReadDeadline(deadline); err != nil {
		return err
	}
	raw, err := b.epoll.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, probesAtOnce)
	for b.left > 0 {
		n := 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n > 0 || failed != nil
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err := errors.Join(err, failed); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			b.event(int(ev.Fd))
		}
	}
	return nil
}

// repeat asks again over UDP, as clients do when there is no answer: a burst may
// be too much for the way.
func (b *probing) repeat() {
	for i, fd := range b.fds {
		if fd != 0 && b.probes[i].Protocol == UDP {
			_, _ = unix.Write(fd, []byte("?\n")) // what comes of it is seen
		}
	}
}

func (b *probing) giveUp() {
	for i, fd := range b.fds {
		if fd != 0 {
			b.end(i, Outcome{Err: ErrSilence})
		}
	}
}

func (b *probing) event(number int) {
	buf := make([]byte, 2048)
	switch number {
	case hears4:
		if n, err := unix.Read(b.open4, buf); err == nil && n > 0 {
			b.heard(buf[int(buf[0]&0xf)*4:n], false)
		}
		return
	case hears6:
		if n, err := unix.Read(b.open6, buf); err == nil {
			b.heard(buf[:n], true)
		}
		return
	}
	fd := b.fds[number]
	if fd == 0 {
		return // it has ended in the same round
	}
	if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
		b.end(number, Outcome{Err: syscall.Errno(errno)})
		return
	}
	n, err := unix.Read(fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return
	}
	if err != nil {
		b.end(number, Outcome{Err: err})
		return
	}
	got, err := ParseAnswer(strings.TrimSuffix(string(buf[:n]), "\n"))
	b.end(number, Outcome{Answer: got, Err: err})
}

// heard takes an ICMP message.
func (b *probing) heard(message []byte, six bool) {
	from, to, ok := refusedSCTP(message, six)
	if i, ours := b.byPort[from]; ok && ours && b.probes[i].To == to && b.fds[i] != 0 {
		b.end(i, Outcome{Err: syscall.ECONNREFUSED})
	}
}

func (b *probing) end(i int, o Outcome) {
	b.outcomes[i] = o
	_ = unix.Close(b.fds[i]) // it was only for this
	b.fds[i] = 0
	b.left--
}

func (b *probing) close() error {
	var errs []error
	for _, fd := range append(b.fds, b.open4, b.open6) {
		if fd != 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	if b.epoll != nil {
		errs = append(errs, b.epoll.Close())
	}
	return errors.Join(errs...)
}
