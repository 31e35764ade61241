package ipvsadm

import (
	"context"
	"fmt"
	"net/netip"

	"sluice.dev/sluice/ipvs"
)

// key is the virtual server that options have described.
func (s service) key() ipvs.VirtualServer {
	if s.mark != 0 {
		return ipvs.VirtualServer{Mark: s.mark, Family: s.family}
	}
	return ipvs.VirtualServer{Addr: netip.AddrPortFrom(s.addr, s.port), Protocol: s.protocol}
}

func (s server) key() netip.AddrPort { return netip.AddrPortFrom(s.addr, s.port) }

// list carries out --list, once or again and again.
func (r *run) list(ctx context.Context, p *parsing) error {
	show := r.listing(p)
	if p.marks.has(watch) {
		return r.watch(ctx, p.show.every, show)
	}
	return show(ctx)
}

// listing is what --list is to show.
func (r *run) listing(p *parsing) func(context.Context) error {
	of := func(show func(context.Context, *parsing) error) func(context.Context) error {
		return func(ctx context.Context) error { return show(ctx, p) }
	}
	switch {
	case p.marks.has(connection):
		return of(r.listConnections)
	case p.marks.has(timeout):
		return of(r.listTimeouts)
	case p.marks.has(daemon):
		return of(r.listDaemons)
	}
	return of(r.listTable)
}

// listTable lists the table, or one virtual server of it.
func (r *run) listTable(ctx context.Context, p *parsing) error {
	listing, err := r.read(ctx, p)
	if err != nil {
		return cannotRead(err)
	}
	notes, err := r.notes(ctx, p)
	if err != nil {
		return err
	}
	style := ipvs.Style{Names: r.shown(p), Unsorted: p.marks.has(nosort), Columns: p.columns(), Exact: p.marks.has(exact)}
	if p.marks.has(asJSON) {
		return writeTable(r.out, listing, style, notes)
	}
	if notes != nil {
		style.Notes = notes
	}
	return ipvs.WriteListing(r.out, listing, style)
}

func (r *run) read(ctx context.Context, p *parsing) (ipvs.Listing, error) {
	if !p.marks.has(serviceAddress) {
		return ipvs.ReadListing(ctx, r.kernel)
	}
	e, err := r.kernel.VirtualServer(ctx, p.server.key())
	if err != nil {
		return ipvs.Listing{}, err
	}
	dests, err := r.kernel.Destinations(ctx, e.VirtualServer)
	if err != nil {
		return ipvs.Listing{}, err
	}
	return ipvs.Listing{Servers: []ipvs.ListedServer{{VirtualServerEntry: e, Destinations: dests}}}, nil
}

// columns are those that were asked for first in ipvsadm's order.
func (p *parsing) columns() ipvs.Columns {
	for _, c := range []struct {
		mark    mark
		columns ipvs.Columns
	}{
		{stats, ipvs.StatsColumns},
		{rate, ipvs.RateColumns},
		{thresholds, ipvs.ThresholdColumns},
		{persistentConn, ipvs.PersistentColumns},
		{tunInfo, ipvs.TunnelColumns},
	} {
		if p.marks.has(c.mark) {
			return c.columns
		}
	}
	return ipvs.RuleColumns
}

func (r *run) listTimeouts(ctx context.Context, p *parsing) error {
	t, err := r.kernel.Timeouts(ctx)
	if err != nil {
		return cannotRead(err)
	}
	if p.marks.has(asJSON) {
		return writeTimeouts(r.out, t)
	}
	fmt.Fprintf(r.out, "Timeout (tcp tcpfin udp): %d %d %d\n", int64(t.TCP.Seconds()), int64(t.TCPFin.Seconds()), int64(t.UDP.Seconds()))
	return nil
}

func (r *run) listDaemons(ctx context.Context, p *parsing) error {
	daemons, err := r.kernel.Daemons(ctx)
	if err != nil {
		return cannotRead(err)
	}
	if p.marks.has(asJSON) {
		return writeDaemons(r.out, daemons)
	}
	for _, d := range daemons {
		if d.State.String() == "" {
			continue
		}
		fmt.Fprintf(r.out, "%s sync daemon (mcast=%s, syncid=%d", d.State, d.Interface, d.SyncID)
		if d.MaxLength != 0 {
			fmt.Fprintf(r.out, ", maxlen=%d", d.MaxLength)
		}
		if d.Group.IsValid() {
			fmt.Fprintf(r.out, ", group=%s", d.Group)
		}
		if d.Port != 0 {
			fmt.Fprintf(r.out, ", port=%d", d.Port)
		}
		if d.TTL != 0 {
			fmt.Fprintf(r.out, ", ttl=%d", d.TTL)
		}
		fmt.Fprint(r.out, ")\n")
	}
	return nil
}

// listConnections lists connections as they are read: at no time are more than
// a few in memory.
func (r *run) listConnections(ctx context.Context, p *parsing) error {
	table, err := r.System.Connections()
	if err != nil {
		return ending{exitListing, "cannot open file /proc/net/ip_vs_conn"}
	}
	defer table.Close() //nolint:errcheck // it was read only
	notes, err := r.notes(ctx, p)
	if err != nil {
		return err
	}
	sink := r.connectionSink(p, notes)
	sink.begin()
	var shown uint64
	more := false
	for c, err := range ipvs.ReadConnections(table) {
		if err != nil {
			return ending{exitListing, err.Error()}
		}
		if ctx.Err() != nil {
			return nil
		}
		if !p.show.filter.takes(c) {
			continue
		}
		if more = p.show.limit > 0 && shown == p.show.limit; more {
			break
		}
		if err := sink.connection(c, shown == 0); err != nil {
			return err
		}
		shown++
	}
	if sink.end(more); more {
		r.complain(fmt.Sprintf("%d connections shown, as --limit says, and there are more", shown))
	}
	return nil
}

// connectionSink writes connections as they come.
type connectionSink interface {
	begin()
	connection(c ipvs.Connection, first bool) error
	end(more bool)
}

func (r *run) connectionSink(p *parsing, notes *Identities) connectionSink {
	if p.marks.has(asJSON) {
		return &jsonConnections{w: r.out, notes: notes}
	}
	return textConnections{r: r, style: ipvs.Style{Names: r.shown(p)}, engines: p.marks.has(persistentConn), notes: notes}
}

// textConnections writes them as ipvsadm does.
type textConnections struct {
	r       *run
	style   ipvs.Style
	engines bool
	notes   *Identities
}

func (t textConnections) begin() { ipvs.WriteConnectionTitle(t.r.out, t.engines) }

func (t textConnections) connection(c ipvs.Connection, _ bool) error {
	note := ""
	if t.notes != nil {
		note = t.notes.connection(c)
	}
	ipvs.WriteConnection(t.r.out, c, t.style, t.engines, note)
	return nil
}

func (t textConnections) end(bool) {}
