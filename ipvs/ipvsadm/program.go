package ipvsadm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"sluice.dev/sluice/ipvs"
)

// Kernel is the table, and the sync daemons beside it.
type Kernel interface {
	ipvs.Handle
	Daemons(ctx context.Context) ([]ipvs.Daemon, error)
}

// Names are the system's names of hosts and ports, in both directions.
type Names interface {
	ipvs.Names
	resolver
}

// Program is ipvsadm in an environment. What its functions give is asked for
// when it is needed.
type Program struct {
	Name    string // as it was called: error texts and the usage name it
	Version string // of Sluice
	// Numeric leaves addresses and ports numbers unless --resolve asks for
	// names; ipvsadm's own default is names unless -n asks for numbers.
	Numeric bool
	// Terminal says that Out is one: a watched listing stays in its place.
	Terminal bool

	In       io.Reader
	Out, Err io.Writer

	System System
}

// System is what the program reads.
type System struct {
	// Open opens the table.
	Open func(ctx context.Context) (Kernel, error)
	// Connections opens the kernel's connection table, as text.
	Connections func() (io.ReadCloser, error)
	// Names finds names; ctx bounds its look-ups.
	Names func(ctx context.Context) (Names, error)
	// Ask asks the agent at a place whose the entries are; "" is the usual place.
	Ask func(ctx context.Context, agent string) (Identities, error)
	// Served names the device of an agent that serves this node, or "".
	Served func() string
}

// Run carries out a command line, without the program's name, and returns the
// code to exit with. What there is to say has been said by then.
func (p Program) Run(ctx context.Context, args []string) int {
	r := &run{Program: p, out: bufio.NewWriter(p.Out)}
	code, err := r.line(ctx, args)
	if err != nil {
		code = r.end(err)
	}
	if err := r.out.Flush(); err != nil {
		r.complain("cannot write: " + err.Error())
		code = exitListing
	}
	if r.kernel != nil {
		r.kernel.Close() //nolint:errcheck // it was read only, or each write has its answer
	}
	return code
}

// run is a Program at work.
type run struct {
	Program
	out       *bufio.Writer
	kernel    Kernel // nil: not opened yet
	names     Names  // nil: not read yet
	restoring bool   // command lines come from In
}

// complain says something on Err, behind all that was written before.
func (r *run) complain(text string) {
	r.out.Flush() //nolint:errcheck // the writer keeps its error, which is told at the end
	if text != "" {
		fmt.Fprintln(r.Err, text)
	}
}

// end says why the program ends and with which code.
func (r *run) end(err error) int {
	if e, is := errors.AsType[ending](err); is {
		r.complain(e.text)
		return e.code
	}
	r.complain(err.Error())
	return exitListing
}

// line carries out one command line. The code is what ipvsadm keeps of a line
// when it restores and goes on with the next; an error ends it all.
func (r *run) line(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		args = []string{"--list"}
	}
	if err := r.readNames(ctx); err != nil {
		return 0, err
	}
	p, err := parse(args, r.names)
	if bad, is := errors.AsType[badOption](err); is {
		r.complain(bad.Error())
		return exitFailed, nil
	}
	if errors.Is(err, errNoCommand) {
		return 0, r.tryHelp()
	}
	if err != nil {
		return 0, err
	}
	return r.execute(ctx, p)
}

func (r *run) readNames(ctx context.Context) (err error) {
	if r.names == nil {
		r.names, err = r.System.Names(ctx)
	}
	return err
}

// open opens the table, once, and reads of it what whoever may read it may
// read.
func (r *run) open(ctx context.Context) (err error) {
	if r.kernel != nil {
		return nil
	}
	if r.kernel, err = r.System.Open(ctx); err == nil {
		_, err = r.kernel.Table(ctx)
	}
	if err == nil {
		return nil
	}
	reason := errorText(err, nil)
	if errors.Is(err, syscall.ENOENT) {
		reason = "Protocol not available" // no such family of messages
	}
	return fail("Can't initialize ipvs: %s\nAre you sure that IP Virtual Server is built in the kernel or as module?", reason)
}

// execute carries out what was parsed.
func (r *run) execute(ctx context.Context, p *parsing) (int, error) {
	switch p.command {
	case help:
		writeUsage(r.out, r.Name, r.Version)
		return 0, ending{}
	case version:
		writeVersion(r.out, r.Version)
		return 0, ending{}
	}
	if (p.command == addService || p.command == addServer) && !r.restoring {
		return 0, refusal(p.command)
	}
	if err := r.open(ctx); err != nil {
		return 0, err
	}
	switch p.command {
	case restore:
		return r.restore(ctx, p)
	case save:
		return 0, r.save(ctx, p)
	case list:
		return 0, r.list(ctx, p)
	}
	return r.add(ctx, p), nil
}

// tryHelp ends a command line without a command.
func (r *run) tryHelp() error {
	return ending{exitFailed, fmt.Sprintf("Try `%[1]s -h' or '%[1]s --help' for more information.", r.Name)}
}

// restore carries out the command lines on In. The code is that of the last.
func (r *run) restore(ctx context.Context, p *parsing) (code int, err error) {
	if r.restoring {
		return 0, r.tryHelp()
	}
	if device := r.System.Served(); device != "" && !p.marks.has(force) {
		return 0, fail("--restore is refused: an agent of sluice serves this node (its device %s is here), and Services decide what is in the table. "+
			"Run sluice cleanup first, or give --force to add to it all the same", device)
	}
	r.restoring = true
	lines := bufio.NewScanner(r.In)
	for lines.Scan() {
		args := strings.FieldsFunc(lines.Text(), func(c rune) bool { return c == ' ' || c == '\t' || c == '\r' })
		if args = without(args, "ipvsadm"); len(args) == 0 {
			continue
		}
		if code, err = r.line(ctx, args); err != nil {
			return code, err
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read what to restore: %w", err)
	}
	return code, nil
}

// without takes a word out of words.
func without(words []string, word string) []string {
	kept := words[:0]
	for _, w := range words {
		if w != word {
			kept = append(kept, w)
		}
	}
	return kept
}

// add makes a virtual server or a destination, and says why not.
func (r *run) add(ctx context.Context, p *parsing) int {
	c := ipvs.Command{Op: ipvs.Create, Key: ipvs.Key{VirtualServer: p.server.key()}}
	texts := serviceErrors()
	if p.command == addServer {
		c.Key.RealServer, c.Spec.Destination = p.dest.key(), p.dest.spec
		texts = serverErrors()
	} else {
		c.Spec.VirtualServer = p.server.spec
	}
	if err := r.kernel.Write(ctx, []ipvs.Command{c})[0]; err != nil {
		r.complain(errorText(err, texts))
		return exitFailed
	}
	return 0
}

// save writes the table as command lines.
func (r *run) save(ctx context.Context, p *parsing) error {
	listing, err := ipvs.ReadListing(ctx, r.kernel)
	if err != nil {
		return cannotRead(err)
	}
	return ipvs.WriteSaved(r.out, listing, ipvs.Style{Names: r.shown(p)}, p.marks.has(complete))
}

// shown are the names to show, or nil for numbers.
func (r *run) shown(p *parsing) ipvs.Names {
	if p.marks.has(numeric) || r.Numeric && !p.marks.has(resolve) {
		return nil
	}
	return r.names
}
