package ipvstest

import (
	"math"
	"slices"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// unchanged is a row's table that is as it was given.
const unchanged = "="

func commandRows() []row {
	return slices.Concat(serverRows(), serverSpecRows(), destRows(), destSpecRows())
}

// with is a table with more in it; base stays as it is.
func with(base []ipvs.Command, more ...ipvs.Command) []ipvs.Command {
	return slices.Concat(base, more)
}

// Edits of specs.

func scheduler(name string) func(*ipvs.VirtualServerSpec) {
	return func(s *ipvs.VirtualServerSpec) { s.Scheduler = name }
}

func netmask(m uint32) func(*ipvs.VirtualServerSpec) {
	return func(s *ipvs.VirtualServerSpec) { s.Netmask = m }
}

func engine(name string) func(*ipvs.VirtualServerSpec) {
	return func(s *ipvs.VirtualServerSpec) { s.PEName = name }
}

func flags(f ipvs.Flags, timeout uint32) func(*ipvs.VirtualServerSpec) {
	return func(s *ipvs.VirtualServerSpec) { s.Flags, s.Timeout = f, timeout }
}

func weight(w uint32) func(*ipvs.DestinationSpec) {
	return func(s *ipvs.DestinationSpec) { s.Weight = w }
}

func forward(f ipvs.Forward) func(*ipvs.DestinationSpec) {
	return func(s *ipvs.DestinationSpec) { s.Forward = f }
}

func thresholds(lower, upper uint32) func(*ipvs.DestinationSpec) {
	return func(s *ipvs.DestinationSpec) { s.LowerThreshold, s.UpperThreshold = lower, upper }
}

func tunnel(t ipvs.TunnelType, port uint16, f ipvs.TunnelFlags) func(*ipvs.DestinationSpec) {
	return func(s *ipvs.DestinationSpec) {
		s.Forward, s.Tunnel = ipvs.ForwardTunnel, ipvs.Tunnel{Type: t, Port: port, Flags: f}
	}
}

func serverRows() []row {
	one := []ipvs.Command{serverCommand(ipvs.Create, vs4())}
	full := with(one, destCommand(ipvs.Create, vs4(), "10.1.1.1:80"), destCommand(ipvs.Create, vs4(), "10.1.1.2:80"))
	return []row{
		{"create a virtual server", nil, serverCommand(ipvs.Create, vs4()), 0, "TCP  10.96.0.1:80 rr\n"},
		{"create one that is there", one, serverCommand(ipvs.Create, vs4(), scheduler("wlc")), syscall.EEXIST, unchanged},
		{"create one that is there, with a scheduler that is not", one, serverCommand(ipvs.Create, vs4(), scheduler("nope")), syscall.EEXIST, unchanged},
		{"create beside other ports, protocols and families",
			with(one, serverCommand(ipvs.Create, vs6()), serverCommand(ipvs.Create, at("10.96.0.1:81", model.TCP)), serverCommand(ipvs.Create, at("10.96.0.1:80", model.UDP))),
			serverCommand(ipvs.Create, at("10.96.0.1:80", model.SCTP)), 0,
			"TCP  10.96.0.1:80 rr\nTCP  10.96.0.1:81 rr\nUDP  10.96.0.1:80 rr\nSCTP 10.96.0.1:80 rr\nTCP  [fd00:10:96::1]:80 rr\n"},
		{"the kernel has no rule for protocols", nil, serverCommand(ipvs.Create, at("10.96.0.1:80", 47)), 0, "?    10.96.0.1:80 rr\n"},
		{"port 0 without persistence", nil, serverCommand(ipvs.Create, at("10.96.0.1:0", model.TCP)), 0, "TCP  10.96.0.1:0 rr\n"},
		{"any address will do", nil, serverCommand(ipvs.Create, at("0.0.0.0:80", model.TCP)), 0, "TCP  0.0.0.0:80 rr\n"},
		{"firewall marks of both families", []ipvs.Command{serverCommand(ipvs.Create, mark(7, model.IPv4))},
			serverCommand(ipvs.Create, mark(7, model.IPv6)), 0, "FWM  7 rr\nFWM  7 IPv6 rr\n"},
		{"create a mark that is there", []ipvs.Command{serverCommand(ipvs.Create, mark(7, model.IPv4))},
			serverCommand(ipvs.Create, mark(7, model.IPv4)), syscall.EEXIST, unchanged},
		{"change an absent virtual server", nil, serverCommand(ipvs.Change, vs4()), syscall.ESRCH, unchanged},
		{"change an absent one, with a scheduler that is not there", nil, serverCommand(ipvs.Change, vs4(), scheduler("nope")), syscall.ESRCH, unchanged},
		{"change the scheduler, destinations stay", full, serverCommand(ipvs.Change, vs4(), scheduler("wlc")), 0,
			"TCP  10.96.0.1:80 wlc\n  -> 10.1.1.1:80                  Masq    1      0          0         \n  -> 10.1.1.2:80                  Masq    1      0          0         \n"},
		{"change to what it is", full, serverCommand(ipvs.Change, vs4()), 0, unchanged},
		{"delete an absent virtual server", nil, serverCommand(ipvs.Delete, vs4()), syscall.ESRCH, unchanged},
		{"delete one of another protocol", one, serverCommand(ipvs.Delete, at("10.96.0.1:80", model.UDP)), syscall.ESRCH, unchanged},
		{"delete an absent mark", []ipvs.Command{serverCommand(ipvs.Create, mark(7, model.IPv4))}, serverCommand(ipvs.Delete, mark(7, model.IPv6)), syscall.ESRCH, unchanged},
		{"delete with all destinations", full, serverCommand(ipvs.Delete, vs4()), 0, ""},
		{"create again: the destinations are gone", with(full, serverCommand(ipvs.Delete, vs4())), serverCommand(ipvs.Create, vs4()), 0, "TCP  10.96.0.1:80 rr\n"},
	}
}

func serverSpecRows() []row {
	one := []ipvs.Command{serverCommand(ipvs.Create, vs4())}
	sticky := []ipvs.Command{serverCommand(ipvs.Create, vs4(), scheduler("sh"), flags(ipvs.Persistent|ipvs.SHPort, 60), engine("sip"))}
	return []row{
		{"unknown scheduler", nil, serverCommand(ipvs.Create, vs4(), scheduler("nope")), syscall.ENOENT, unchanged},
		{"unknown scheduler, and a netmask out of range", nil, serverCommand(ipvs.Create, vs6(), scheduler("nope"), netmask(0)), syscall.ENOENT, unchanged},
		{"no scheduler's name", nil, serverCommand(ipvs.Create, vs4(), scheduler("")), syscall.ENOENT, unchanged},
		{"scheduler none", nil, serverCommand(ipvs.Create, vs4(), scheduler("none")), 0, "TCP  10.96.0.1:80 none\n"},
		{"scheduler's name of 15 letters", nil, serverCommand(ipvs.Create, vs4(), scheduler("abcdefghijklmno")), syscall.ENOENT, unchanged},
		{"scheduler's name too long", nil, serverCommand(ipvs.Create, vs4(), scheduler("abcdefghijklmnop")), syscall.EINVAL, unchanged},
		{"change to an unknown scheduler", one, serverCommand(ipvs.Change, vs4(), scheduler("nope")), syscall.ENOENT, unchanged},
		{"persistence", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Persistent, 10800)), 0, "TCP  10.96.0.1:80 rr persistent 10800\n"},
		{"persistence of 0 seconds", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Persistent, 0)), 0, "TCP  10.96.0.1:80 rr persistent 0\n"},
		{"persistence engine", nil, serverCommand(ipvs.Create, at("10.96.0.1:80", model.UDP), flags(ipvs.Persistent, 60), engine("sip")), 0, "UDP  10.96.0.1:80 rr persistent 60 pe sip\n"},
		{"persistence engine without persistence, for TCP", nil, serverCommand(ipvs.Create, vs4(), engine("sip")), 0, "TCP  10.96.0.1:80 rr\n"},
		{"unknown persistence engine", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Persistent, 60), engine("nope")), syscall.ENOENT, unchanged},
		{"change to an unknown persistence engine", one, serverCommand(ipvs.Change, vs4(), flags(ipvs.Persistent, 60), engine("nope")), syscall.ENOENT, unchanged},
		{"change takes everything away", sticky, serverCommand(ipvs.Change, vs4()), 0, "TCP  10.96.0.1:80 rr\n"},
		{"one-packet scheduling, of TCP too", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.OnePacket, 0)), 0, "TCP  10.96.0.1:80 rr ops\n"},
		{"scheduler flags that mean nothing", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Sched1|ipvs.Sched3, 0)), 0, "TCP  10.96.0.1:80 rr (flag-1,flag-3)\n"},
		{"the kernel's own flag is left out", nil, serverCommand(ipvs.Create, vs4(), flags(2, 0)), 0, "TCP  10.96.0.1:80 rr\n"},
		{"netmask", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Persistent, 60), netmask(0xFFFFFF00)), 0, "TCP  10.96.0.1:80 rr persistent 60 mask 255.255.255.0\n"},
		{"any IPv4 netmask", nil, serverCommand(ipvs.Create, vs4(), flags(ipvs.Persistent, 60), netmask(0x00FF00FE)), 0, "TCP  10.96.0.1:80 rr persistent 60 mask 0.255.0.254\n"},
		{"IPv6 netmask", nil, serverCommand(ipvs.Create, vs6(), flags(ipvs.Persistent, 60), netmask(1)), 0, "TCP  [fd00:10:96::1]:80 rr persistent 60 mask 1\n"},
		{"IPv6 netmask 0, without persistence", nil, serverCommand(ipvs.Create, vs6(), netmask(0)), syscall.EINVAL, unchanged},
		{"IPv6 netmask 129", nil, serverCommand(ipvs.Create, vs6(), netmask(129)), syscall.EINVAL, unchanged},
		{"mark's IPv6 netmask 129", nil, serverCommand(ipvs.Create, mark(9, model.IPv6), netmask(129)), syscall.EINVAL, unchanged},
		{"change to an IPv6 netmask 129", []ipvs.Command{serverCommand(ipvs.Create, vs6())}, serverCommand(ipvs.Change, vs6(), netmask(129)), syscall.EINVAL, unchanged},
	}
}

func destRows() []row {
	one := []ipvs.Command{serverCommand(ipvs.Create, vs4())}
	full := with(one, destCommand(ipvs.Create, vs4(), "10.1.1.1:80"))
	const line = "TCP  10.96.0.1:80 rr\n  -> 10.1.1.1:80                  Masq    1      0          0         \n"
	return []row{
		{"create a destination", one, destCommand(ipvs.Create, vs4(), "10.1.1.1:80"), 0, line},
		{"create one that is there", full, destCommand(ipvs.Create, vs4(), "10.1.1.1:80", weight(2)), syscall.EEXIST, unchanged},
		{"create one of an absent virtual server", nil, destCommand(ipvs.Create, vs4(), "10.1.1.1:80"), syscall.ESRCH, unchanged},
		{"create a wrong one of an absent virtual server", nil, destCommand(ipvs.Create, vs4(), "10.1.1.1:80", weight(math.MaxUint32)), syscall.ESRCH, unchanged},
		{"create another port", full, destCommand(ipvs.Create, vs4(), "10.1.1.1:81"), 0, line + "  -> 10.1.1.1:81                  Masq    1      0          0         \n"},
		{"change an absent destination", one, destCommand(ipvs.Change, vs4(), "10.1.1.1:80"), syscall.ENOENT, unchanged},
		{"change one of an absent virtual server", nil, destCommand(ipvs.Change, vs4(), "10.1.1.1:80"), syscall.ESRCH, unchanged},
		{"change the weight", full, destCommand(ipvs.Change, vs4(), "10.1.1.1:80", weight(0)), 0, "TCP  10.96.0.1:80 rr\n  -> 10.1.1.1:80                  Masq    0      0          0         \n"},
		{"change to what it is", full, destCommand(ipvs.Change, vs4(), "10.1.1.1:80"), 0, unchanged},
		{"delete an absent destination", one, destCommand(ipvs.Delete, vs4(), "10.1.1.1:80"), syscall.ENOENT, unchanged},
		{"delete another port", full, destCommand(ipvs.Delete, vs4(), "10.1.1.1:81"), syscall.ENOENT, unchanged},
		{"delete one of another family", full, destCommand(ipvs.Delete, vs4(), "[fd00::1]:80"), syscall.ENOENT, unchanged},
		{"delete one of an absent virtual server", nil, destCommand(ipvs.Delete, vs4(), "10.1.1.1:80"), syscall.ESRCH, unchanged},
		{"delete a destination", full, destCommand(ipvs.Delete, vs4(), "10.1.1.1:80"), 0, "TCP  10.96.0.1:80 rr\n"},
		{"create again with another weight", with(full, destCommand(ipvs.Delete, vs4(), "10.1.1.1:80")), destCommand(ipvs.Create, vs4(), "10.1.1.1:80", weight(3)), 0,
			"TCP  10.96.0.1:80 rr\n  -> 10.1.1.1:80                  Masq    3      0          0         \n"},
		{"of a mark, port 0", []ipvs.Command{serverCommand(ipvs.Create, mark(7, model.IPv6))}, destCommand(ipvs.Create, mark(7, model.IPv6), "[fd00::1]:0"), 0,
			"FWM  7 IPv6 rr\n  -> [fd00::1]:0                  Masq    1      0          0         \n"},
	}
}

func destSpecRows() []row {
	one := []ipvs.Command{serverCommand(ipvs.Create, vs4())}
	full := with(one, destCommand(ipvs.Create, vs4(), "10.1.1.1:80"))
	six := []ipvs.Command{serverCommand(ipvs.Create, vs6())}
	create := func(edit ...func(*ipvs.DestinationSpec)) ipvs.Command {
		return destCommand(ipvs.Create, vs4(), "10.1.1.1:80", edit...)
	}
	const head = "TCP  10.96.0.1:80 rr\n"
	rows := []row{
		{"largest weight", one, create(weight(math.MaxInt32)), 0, head + "  -> 10.1.1.1:80                  Masq    2147483647 0          0         \n"},
		{"weight too large", one, create(weight(math.MaxInt32 + 1)), syscall.ERANGE, unchanged},
		{"change to a weight too large", full, destCommand(ipvs.Change, vs4(), "10.1.1.1:80", weight(math.MaxUint32)), syscall.ERANGE, unchanged},
		{"change an absent one to a weight too large", one, destCommand(ipvs.Change, vs4(), "10.1.1.1:80", weight(math.MaxUint32)), syscall.ERANGE, unchanged},
		{"thresholds", one, create(thresholds(5, 10)), 0, head + "  -> 10.1.1.1:80                  Masq    1      0          0         \n"},
		{"lower threshold above the upper", one, create(thresholds(11, 10)), syscall.ERANGE, unchanged},
		{"lower threshold without an upper", one, create(thresholds(1, 0)), syscall.ERANGE, unchanged},
		{"routed", one, create(forward(ipvs.ForwardRoute)), 0, head + "  -> 10.1.1.1:80                  Route   1      0          0         \n"},
		{"to the node itself", one, create(forward(ipvs.LocalNode)), 0, head + "  -> 10.1.1.1:80                  Local   1      0          0         \n"},
		{"tunnel", one, create(tunnel(ipvs.IPIP, 0, 0)), 0, head + "  -> 10.1.1.1:80                  Tunnel  1      0          0         \n"},
		{"GUE tunnel", one, create(tunnel(ipvs.GUE, 6080, ipvs.Checksum)), 0, head + "  -> 10.1.1.1:80                  Tunnel  1      0          0         \n"},
		{"GUE tunnel without a port", one, create(tunnel(ipvs.GUE, 0, 0)), syscall.EINVAL, unchanged},
		{"GUE without a port though not a tunnel", one, create(tunnel(ipvs.GUE, 0, 0), forward(ipvs.Masquerade)), syscall.EINVAL, unchanged},
		{"change to GUE without a port", full, destCommand(ipvs.Change, vs4(), "10.1.1.1:80", tunnel(ipvs.GUE, 0, 0)), syscall.EINVAL, unchanged},
		{"any tunnel type", one, create(tunnel(9, 0, 9)), 0, head + "  -> 10.1.1.1:80                  Tunnel  1      0          0         \n"},
		{"another family", one, destCommand(ipvs.Create, vs4(), "[fd00::1]:80"), syscall.EINVAL, unchanged},
		{"another family by tunnel", one, destCommand(ipvs.Create, vs4(), "[fd00::1]:80", tunnel(ipvs.IPIP, 0, 0)), 0, head + "  -> [fd00::1]:80                 Tunnel  1      0          0         \n"},
		{"change an absent one of another family", six, destCommand(ipvs.Change, vs6(), "10.1.1.1:80"), syscall.EINVAL, unchanged},
		{"change an absent one of another family by tunnel", six, destCommand(ipvs.Change, vs6(), "10.1.1.1:80", tunnel(ipvs.IPIP, 0, 0)), syscall.ENOENT, unchanged},
	}
	for name, addr := range map[string]string{
		"multicast": "224.0.0.1:80", "broadcast": "255.255.255.255:80", "any": "0.0.0.0:80",
	} {
		rows = append(rows, row{name + " address", one, destCommand(ipvs.Create, vs4(), addr), syscall.EINVAL, unchanged})
	}
	for name, addr := range map[string]string{
		"multicast": "[ff02::1]:80", "link-local": "[fe80::1]:80", "any": "[::]:80",
	} {
		rows = append(rows, row{name + " IPv6 address", six, destCommand(ipvs.Create, vs6(), addr), syscall.EINVAL, unchanged})
	}
	return append(rows,
		row{"wrong address, changed: it cannot be there", one, destCommand(ipvs.Change, vs4(), "224.0.0.1:80"), syscall.ENOENT, unchanged},
		row{"an address of the node", one, destCommand(ipvs.Create, vs4(), "127.0.0.1:80"), 0, head + "  -> 127.0.0.1:80                 Masq    1      0          0         \n"},
		row{"an IPv6 address of the node", six, destCommand(ipvs.Create, vs6(), "[::1]:80"), 0,
			"TCP  [fd00:10:96::1]:80 rr\n  -> [::1]:80                     Masq    1      0          0         \n"})
}
