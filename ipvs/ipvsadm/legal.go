package ipvsadm

import "sluice.dev/sluice/ipvs"

// markSet is a set of marks.
type markSet uint64

func setOf(marks ...mark) (s markSet) {
	for _, m := range marks {
		s |= 1 << m
	}
	return s
}

func (s markSet) has(m mark) bool     { return s&(1<<m) != 0 }
func (s markSet) any(of ...mark) bool { return s&setOf(of...) != 0 }
func (s markSet) with(m mark) markSet { return s | 1<<m }

// legality says which options a command takes.
type legality struct {
	needs     markSet
	takes     markSet
	exclusive markSet // only one of these
}

// legal is ipvsadm's table, for the commands that are carried out here, with
// our own options.
func (c command) legal() legality {
	switch c {
	case addService:
		return legality{needs: setOf(serviceAddress), takes: setOf(scheduler, persistent, netmask, ops, engine, schedFlags)}
	case addServer:
		return legality{
			needs: setOf(serviceAddress, realServer),
			takes: setOf(forwardingMethod, weight, upperThreshold, lowerThreshold, tunType, tunPort, tunNocsum, tunCsum, tunRemcsum),
		}
	case list:
		return legality{
			takes: setOf(numeric, stats, rate, thresholds, persistentConn, nosort, syncID, exact, tunInfo,
				resolve, names, agent, asJSON, watch, source, virtual, destination, state, limit),
			exclusive: setOf(connection, serviceAddress, timeout, daemon),
		}
	case save:
		return legality{takes: setOf(numeric, resolve, complete)}
	case restore:
		return legality{takes: setOf(force)}
	}
	return legality{}
}

// check finds the first thing wrong among marks, in ipvsadm's order. It names
// whose options they are: "'list' command".
func (l legality) check(given markSet, order []mark, whose string) error {
	first := unmarked
	for _, m := range order {
		switch there := given.has(m); {
		case !there && l.needs.has(m):
			return fail("You need to supply the '%s' option for the %s", m, whose)
		case !there || (l.needs | l.takes).has(m):
		case !l.exclusive.has(m):
			return fail("Illegal '%s' option with the %s", m, whose)
		case first != unmarked:
			return fail("The option '%s' conflicts with the '%s' option in the %s", m, first, whose)
		default:
			first = m
		}
	}
	return nil
}

// check finds what of a command's options does not go together.
func (p *parsing) check() error {
	order := make([]mark, marks)
	for m := range marks {
		order[m] = m
	}
	if err := p.command.legal().check(p.marks, order, "'"+p.command.String()+"' command"); err != nil {
		return err
	}
	switch p.command {
	case addService:
		return p.checkService()
	case addServer:
		return p.checkServer()
	case list:
		return p.checkList()
	}
	return nil
}

// checkList finds what of a listing's options does not go together.
func (p *parsing) checkList() error {
	m := p.marks
	if m.any(connection, timeout, daemon) && m.any(stats, rate, thresholds) || m.any(timeout, daemon) && m.has(persistentConn) {
		return fail("options conflicts in the list command")
	}
	for _, filter := range []mark{source, virtual, destination, state, limit} {
		if m.has(filter) && !m.has(connection) {
			return fail("The option '%s' needs the '%s' option in the '%s' command", filter, connection, list)
		}
	}
	for _, pair := range [][2]mark{{resolve, numeric}, {watch, asJSON}} {
		if m.has(pair[0]) && m.has(pair[1]) {
			return fail("The option '%s' conflicts with the '%s' option in the '%s' command", pair[0], pair[1], list)
		}
	}
	return nil
}

// checkService finds what of a virtual server does not go together.
func (p *parsing) checkService() error {
	spec := &p.server.spec
	if p.server.mark == 0 && p.server.port == 0 && spec.Flags&ipvs.Persistent == 0 {
		return fail("Zero port specified for non-persistent service")
	}
	if spec.Flags&ipvs.OnePacket != 0 && p.server.mark == 0 && p.server.protocol != udp {
		return fail("One-Packet Scheduling is only for UDP virtual services")
	}
	if spec.Scheduler == "" {
		spec.Scheduler = defaultScheduler
	}
	return nil
}

// checkServer finds what of a destination does not go together.
func (p *parsing) checkServer() error {
	d := &p.dest
	translated := d.spec.Forward == ipvs.Masquerade
	if p.server.mark == 0 && !translated {
		d.port = p.server.port // the packet's port stays what it is
	}
	tunnel := d.spec.Forward == ipvs.ForwardTunnel
	if d.family != p.server.family && !tunnel {
		return fail("Different address family is allowed only for tunneling servers")
	}
	if p.marks.any(tunType, tunPort, tunNocsum, tunCsum, tunRemcsum) && !tunnel {
		return fail("Tunnel options conflict with forward method")
	}
	return p.checkTunnel()
}

// checkTunnel finds what a kind of tunnel does not take.
func (p *parsing) checkTunnel() error {
	kind := p.dest.spec.Tunnel.Type
	legal := map[ipvs.TunnelType]legality{
		ipvs.GUE: {needs: setOf(tunPort), exclusive: setOf(tunNocsum, tunCsum, tunRemcsum)},
		ipvs.GRE: {exclusive: setOf(tunNocsum, tunCsum)},
	}[kind]
	return legal.check(p.marks, []mark{tunPort, tunNocsum, tunCsum, tunRemcsum}, "'"+tunnelNames()[kind]+"' tunnel type")
}
