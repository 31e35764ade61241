package ipvsadm

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// The exit codes. ipvsadm has no more than these.
const (
	exitListing = 1   // something could not be read
	exitUsage   = 2   // the options do not go together, or are refused
	exitFailed  = 255 // the kernel said no, or an argument is no option
)

// ending ends the program with a code and, if there is one, a text on stderr.
// It does so also in the middle of a restore.
type ending struct {
	code int
	text string
}

func (e ending) Error() string { return e.text }

// fail is the ending of a command line that ipvsadm does not take.
func fail(format string, args ...any) error { return ending{exitUsage, fmt.Sprintf(format, args...)} }

// resolver finds what names on a command line stand for.
type resolver interface {
	Port(name string, protocol model.Protocol) (uint16, bool)
	Address(host string) (netip.Addr, bool)
}

// parsing is a command line that is being read, and afterwards what it says.
type parsing struct {
	command command
	marks   markSet
	server  service
	dest    server
	show    show

	schedFlagNames string
	resolver       resolver
}

// service is a virtual server as far as options have described it.
type service struct {
	family   model.Family // 0: not known yet
	addr     netip.Addr
	port     uint16
	protocol model.Protocol
	mark     uint32
	spec     ipvs.VirtualServerSpec
}

// server is a real server likewise.
type server struct {
	family model.Family
	addr   netip.Addr
	port   uint16
	spec   ipvs.DestinationSpec
}

// show is what our own options say of a listing.
type show struct {
	agent  string        // where the agent answers; "" is the usual place
	every  time.Duration // between two of a watched listing
	filter filter
	limit  uint64 // connections to show at most; 0: all
}

const (
	defaultScheduler = "wlc"
	defaultWatch     = 2 * time.Second // the kernel's counters move as often

	udp = model.UDP
)

// parse reads a command line. What it says goes together when there is no
// error. A badOption is an argument that is no option; its command line has no
// effect, but does not end a restore.
func parse(args []string, r resolver) (*parsing, error) {
	a := arguments{rest: args}
	p := &parsing{resolver: r}
	p.server.spec.Netmask = ipvs.HostMask4
	p.dest.spec = ipvs.DestinationSpec{Weight: 1, Forward: ipvs.ForwardRoute}
	g, err := a.next()
	if err != nil || g == nil || g.command == noCommand {
		return nil, errNoCommand
	}
	p.command = g.command
	if err := p.command.refuse(); err != nil || p.command == help || p.command == version {
		return p, err
	}
	if err := p.options(&a); err != nil {
		return nil, err
	}
	if len(a.leftover) > 0 {
		return nil, fail("unexpected argument %s", a.leftover[0])
	}
	if err := p.applySchedFlags(); err != nil {
		return nil, err
	}
	return p, p.check()
}

// errNoCommand says that the first option is no command, or there is none.
var errNoCommand = errors.New("no command")

// options reads what follows the command.
func (p *parsing) options(a *arguments) error {
	for {
		g, err := a.next()
		if err != nil || g == nil {
			return err
		}
		if g.command != noCommand {
			return fail("invalid option `%s'", a.last)
		}
		if g.mark != unmarked {
			if p.marks.has(g.mark) {
				return fail("multiple '%s' options specified", g.mark)
			}
			p.marks = p.marks.with(g.mark)
		}
		if g.means == nil {
			continue
		}
		if err := g.means(p, g); err != nil {
			return err
		}
	}
}

// refuse refuses the commands that would change the table.
func (c command) refuse() error {
	switch c {
	case list, save, restore, help, version, addService, addServer:
		return nil
	}
	return refusal(c)
}

// refusal says by name what is not done here, and what does it.
func refusal(c command) error {
	return fail("--%s is refused: sluice reads the table here and does not change it. "+
		"Services decide what is in it; see sluice ipvs --help", c)
}

// Check says whether a command line, without the program's name, is one that
// Run carries out; names in it are not looked up, and so pass only where they
// are none.
func Check(args []string) error {
	if len(args) == 0 {
		return nil
	}
	p, err := parse(args, nameless{})
	if err == nil && (p.command == addService || p.command == addServer) {
		return refusal(p.command)
	}
	return err
}

// nameless knows no names.
type nameless struct{}

// Port implements resolver.
func (nameless) Port(string, model.Protocol) (uint16, bool) { return 0, false }

// Address implements resolver.
func (nameless) Address(string) (netip.Addr, bool) { return netip.Addr{}, false }
