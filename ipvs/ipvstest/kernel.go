package ipvstest

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice.dev/sluice/ipvs"
)

// Kernel is a Handle on a table in memory. The zero value is not ready: use
// New. As the kernel itself, it may be used by several at once: a loop under
// test, and a test that meddles.
type Kernel struct {
	mu       sync.Mutex
	servers  map[ipvs.VirtualServer]*server
	timeouts ipvs.Timeouts
	commands int
	before   Fault
	after    Fault
}

var _ ipvs.Handle = (*Kernel)(nil)

// server is one virtual server with its destinations.
type server struct {
	spec  ipvs.VirtualServerSpec
	dests map[netip.AddrPort]ipvs.DestinationSpec
	conns map[netip.AddrPort]uint32
}

// Call is one thing asked of the kernel.
type Call struct {
	// Verb is "create", "change" or "delete" for a command, else the name of
	// the Handle's method.
	Verb string
	Key  ipvs.Key // zero where the verb has none
	Spec ipvs.Spec
}

func (c Call) isCommand() bool { return c.Key != (ipvs.Key{}) && c.Verb[0] >= 'a' }

// Fault decides whether a call goes wrong. It is called with the kernel
// locked and must not call it.
type Fault func(Call) error

// New makes an empty table.
func New() *Kernel {
	return &Kernel{
		servers:  make(map[ipvs.VirtualServer]*server),
		timeouts: ipvs.Timeouts{TCP: 15 * time.Minute, TCPFin: 2 * time.Minute, UDP: 5 * time.Minute},
	}
}

// FailBefore makes calls fail without effect: the fault's error is the call's.
// Nil ends it.
func (k *Kernel) FailBefore(f Fault) { k.locked(func() { k.before = f }) }

// FailAfter makes calls take effect and yet fail, as when the kernel's answer
// is lost. A listing then fails too. Nil ends it.
func (k *Kernel) FailAfter(f Fault) { k.locked(func() { k.after = f }) }

// Connect says how many active connections a destination has.
func (k *Kernel) Connect(dest ipvs.Key, active uint32) {
	k.locked(func() { k.servers[dest.VirtualServer].conns[dest.RealServer] = active })
}

// Commands counts the commands written so far, those included that failed.
func (k *Kernel) Commands() (n int) {
	k.locked(func() { n = k.commands })
	return n
}

// Dump is the table as "ipvsadm -L -n" shows it, without the two title lines.
func (k *Kernel) Dump() string {
	var l ipvs.Listing
	k.locked(func() {
		for vs := range k.servers {
			l.Servers = append(l.Servers, ipvs.ListedServer{
				VirtualServerEntry: k.entry(vs), Destinations: k.destinations(vs),
			})
		}
	})
	var b strings.Builder
	if err := ipvs.WriteListing(&b, l, ipvs.Style{}); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	_, rest, _ := strings.Cut(b.String(), "\n")
	_, rest, _ = strings.Cut(rest, "\n")
	return rest
}

// Close implements Handle.
func (k *Kernel) Close() error { return nil }

// Table implements Handle.
func (k *Kernel) Table(ctx context.Context) (ipvs.Table, error) {
	t := ipvs.Table{Version: [3]uint8{1, 2, 1}, ConnectionSlots: 4096}
	err := k.call(ctx, Call{Verb: "Table"}, nil)
	return t, err
}

// VirtualServers implements Handle.
func (k *Kernel) VirtualServers(ctx context.Context) (entries []ipvs.VirtualServerEntry, err error) {
	err = k.call(ctx, Call{Verb: "VirtualServers"}, func() error {
		for vs := range k.servers {
			entries = append(entries, k.entry(vs))
		}
		return nil
	})
	return entries, err
}

// VirtualServer implements Handle.
func (k *Kernel) VirtualServer(ctx context.Context, vs ipvs.VirtualServer) (e ipvs.VirtualServerEntry, err error) {
	key := ipvs.Key{VirtualServer: vs}
	err = k.call(ctx, Call{Verb: "VirtualServer", Key: key}, func() error {
		if err := vs.ValidateRead(); err != nil {
			return err
		}
		if k.servers[vs] == nil {
			return syscall.ESRCH
		}
		e = k.entry(vs)
		return nil
	})
	return e, err
}

// Destinations implements Handle.
func (k *Kernel) Destinations(ctx context.Context, vs ipvs.VirtualServer) (entries []ipvs.DestinationEntry, err error) {
	key := ipvs.Key{VirtualServer: vs}
	err = k.call(ctx, Call{Verb: "Destinations", Key: key}, func() error {
		entries = k.destinations(vs)
		return vs.ValidateRead()
	})
	return entries, err
}

// Write implements Handle.
func (k *Kernel) Write(ctx context.Context, commands []ipvs.Command) []error {
	errs := make([]error, len(commands))
	for i, c := range commands {
		if err := c.Validate(); err != nil {
			errs[i] = err // never gets to the wire
			continue
		}
		call := Call{Verb: c.Op.String(), Key: c.Key, Spec: c.Spec}
		errs[i] = k.call(ctx, call, func() error { return k.execute(c) })
	}
	return errs
}

// Timeouts implements Handle.
func (k *Kernel) Timeouts(ctx context.Context) (t ipvs.Timeouts, err error) {
	err = k.call(ctx, Call{Verb: "Timeouts"}, func() error {
		t = k.timeouts
		return nil
	})
	return t, err
}

// SetTimeouts implements Handle.
func (k *Kernel) SetTimeouts(ctx context.Context, t ipvs.Timeouts) error {
	return k.call(ctx, Call{Verb: "SetTimeouts"}, func() error {
		const most = 1<<31 - 1 // jiffies in an int; the kernel's depends on its HZ, at least 100
		for _, d := range []time.Duration{t.TCP, t.TCPFin, t.UDP} {
			if d < 0 || d > most*time.Second/100 {
				return syscall.EINVAL
			}
		}
		set := func(to *time.Duration, d time.Duration) {
			if d != 0 {
				*to = (d + time.Second - 1).Truncate(time.Second)
			}
		}
		set(&k.timeouts.TCP, t.TCP)
		set(&k.timeouts.TCPFin, t.TCPFin)
		set(&k.timeouts.UDP, t.UDP)
		return nil
	})
}

// call runs one thing between the faults.
func (k *Kernel) call(ctx context.Context, c Call, do func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if c.isCommand() {
		k.commands++
	}
	if k.before != nil {
		if err := k.before(c); err != nil {
			return err
		}
	}
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	if k.after != nil {
		return k.after(c)
	}
	return nil
}

func (k *Kernel) locked(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *Kernel) entry(vs ipvs.VirtualServer) ipvs.VirtualServerEntry {
	return ipvs.VirtualServerEntry{VirtualServer: vs, Spec: k.servers[vs].spec}
}

// destinations comes in an order as little to be relied on as the kernel's.
func (k *Kernel) destinations(vs ipvs.VirtualServer) []ipvs.DestinationEntry {
	s := k.servers[vs]
	if s == nil {
		return nil
	}
	entries := make([]ipvs.DestinationEntry, 0, len(s.dests))
	for a, spec := range s.dests {
		entries = append(entries, ipvs.DestinationEntry{RealServer: a, Spec: spec, Active: s.conns[a]})
	}
	return entries
}
