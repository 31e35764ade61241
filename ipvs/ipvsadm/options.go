package ipvsadm

import "slices"

// command is what a command line asks for. It is always its first option.
type command uint8

const (
	noCommand command = iota
	addService
	editService
	deleteService
	clearTable
	list
	addServer
	editServer
	deleteServer
	setTimeouts
	startDaemon
	stopDaemon
	restore
	save
	zero
	help
	version
)

// String is the command's name in error texts.
func (c command) String() string {
	return [...]string{
		addService: "add-service", editService: "edit-service", deleteService: "delete-service", clearTable: "clear", list: "list",
		addServer: "add-server", editServer: "edit-server", deleteServer: "delete-server", setTimeouts: "set",
		startDaemon: "start-daemon", stopDaemon: "stop-daemon", restore: "restore", save: "save", zero: "zero",
		help: "help", version: "version",
	}[c]
}

// mark is what an invocation remembers of an option: that it was there. Their
// order is ipvsadm's, in which it looks for what must not be together.
type mark uint8

const (
	numeric mark = iota
	connection
	serviceAddress
	scheduler
	persistent
	netmask
	realServer
	forwardingMethod
	weight
	upperThreshold
	lowerThreshold
	mcastInterface
	timeout
	daemon
	stats
	rate
	thresholds
	persistentConn
	nosort
	syncID
	exact
	ops
	engine
	schedFlags
	mcastGroup
	mcastPort
	mcastTTL
	syncMaxlen
	tunInfo
	tunType
	tunPort
	tunNocsum
	tunCsum
	tunRemcsum

	// Those that ipvsadm has not.
	resolve
	names
	agent
	asJSON
	watch
	source
	virtual
	destination
	state
	limit
	complete
	force

	marks
	unmarked = marks // an option of which nothing is remembered
)

// String is the option's name in error texts.
func (m mark) String() string {
	return [...]string{
		numeric: "numeric", connection: "connection", serviceAddress: "service-address", scheduler: "scheduler",
		persistent: "persistent", netmask: "netmask", realServer: "real-server", forwardingMethod: "forwarding-method",
		weight: "weight", upperThreshold: "u-threshold", lowerThreshold: "l-threshold", mcastInterface: "mcast-interface",
		timeout: "timeout", daemon: "daemon", stats: "stats", rate: "rate", thresholds: "thresholds",
		persistentConn: "persistent-conn", nosort: "nosort", syncID: "syncid", exact: "exact", ops: "ops", engine: "pe",
		schedFlags: "sched-flags", mcastGroup: "mcast-group", mcastPort: "mcast-port", mcastTTL: "mcast-ttl",
		syncMaxlen: "sync-maxlen", tunInfo: "tun-info", tunType: "tun-type", tunPort: "tun-port", tunNocsum: "tun-nocsum",
		tunCsum: "tun-csum", tunRemcsum: "tun-remcsum",
		resolve: "resolve", names: "names", agent: "agent", asJSON: "json", watch: "watch", source: "source",
		virtual: "virtual", destination: "destination", state: "state", limit: "limit", complete: "complete", force: "force",
	}[m]
}

// option is a row of the table of options. It is a command, or it has a mark
// and perhaps a meaning (parse.go).
type option struct {
	long    string
	short   byte // 0: none
	takes   takes
	command command
	mark    mark
	means   func(p *parsing, g *given) error // nil: nothing but its mark
}

func findLong(name string) *option {
	return find(func(o option) bool { return o.long == name })
}

func findShort(letter byte) *option {
	return find(func(o option) bool { return o.short == letter && letter != 0 })
}

func find(is func(option) bool) *option {
	for _, table := range [][]option{commands(), ruleOptions(), listOptions(), daemonOptions(), ownOptions()} {
		if i := slices.IndexFunc(table, is); i >= 0 {
			return &table[i]
		}
	}
	return nil
}

func commands() []option {
	return []option{
		{long: "add-service", short: 'A', command: addService},
		{long: "edit-service", short: 'E', command: editService},
		{long: "delete-service", short: 'D', command: deleteService},
		{long: "clear", short: 'C', command: clearTable},
		{long: "list", short: 'L', command: list},
		{long: "list", short: 'l', command: list},
		{long: "zero", short: 'Z', command: zero},
		{long: "add-server", short: 'a', command: addServer},
		{long: "edit-server", short: 'e', command: editServer},
		{long: "delete-server", short: 'd', command: deleteServer},
		{long: "set", command: setTimeouts},
		{long: "help", short: 'h', command: help},
		{long: "version", short: 'v', command: version},
		{long: "restore", short: 'R', command: restore},
		{long: "save", short: 'S', command: save},
		{long: "start-daemon", takes: value, command: startDaemon},
		{long: "stop-daemon", takes: value, command: stopDaemon},
	}
}

// ruleOptions describe a virtual server or a destination.
func ruleOptions() []option {
	return []option{
		{long: "tcp-service", short: 't', takes: value, mark: serviceAddress, means: (*parsing).service},
		{long: "udp-service", short: 'u', takes: value, mark: serviceAddress, means: (*parsing).service},
		{long: "sctp-service", takes: value, mark: serviceAddress, means: (*parsing).service},
		{long: "fwmark-service", short: 'f', takes: value, mark: serviceAddress, means: (*parsing).fwmark},
		{long: "ipv6", short: '6', mark: unmarked, means: (*parsing).ipv6},
		{long: "scheduler", short: 's', takes: value, mark: scheduler, means: (*parsing).scheduler},
		{long: "persistent", short: 'p', takes: perhaps, mark: persistent, means: (*parsing).persistent},
		{long: "netmask", short: 'M', takes: value, mark: netmask, means: (*parsing).netmask},
		{long: "pe", takes: value, mark: engine, means: (*parsing).engine},
		{long: "ops", short: 'o', mark: ops, means: (*parsing).ops},
		{long: "sched-flags", short: 'b', takes: value, mark: schedFlags, means: (*parsing).schedFlags},
		{long: "real-server", short: 'r', takes: value, mark: realServer, means: (*parsing).realServer},
		{long: "masquerading", short: 'm', mark: forwardingMethod, means: (*parsing).forward},
		{long: "ipip", short: 'i', mark: forwardingMethod, means: (*parsing).forward},
		{long: "gatewaying", short: 'g', mark: forwardingMethod, means: (*parsing).forward},
		{long: "weight", short: 'w', takes: value, mark: weight, means: (*parsing).weight},
		{long: "u-threshold", short: 'x', takes: value, mark: upperThreshold, means: (*parsing).upperThreshold},
		{long: "l-threshold", short: 'y', takes: value, mark: lowerThreshold, means: (*parsing).lowerThreshold},
		{long: "tun-type", takes: value, mark: tunType, means: (*parsing).tunType},
		{long: "tun-port", takes: value, mark: tunPort, means: (*parsing).tunPort},
		{long: "tun-nocsum", mark: tunNocsum},
		{long: "tun-csum", mark: tunCsum, means: (*parsing).tunFlags},
		{long: "tun-remcsum", mark: tunRemcsum, means: (*parsing).tunFlags},
	}
}

// listOptions say what a listing shows.
func listOptions() []option {
	return []option{
		{long: "numeric", short: 'n', mark: numeric},
		{long: "connection", short: 'c', mark: connection},
		{long: "timeout", mark: timeout},
		{long: "daemon", mark: daemon},
		{long: "stats", mark: stats},
		{long: "rate", mark: rate},
		{long: "thresholds", mark: thresholds},
		{long: "persistent-conn", mark: persistentConn},
		{long: "tun-info", mark: tunInfo},
		{long: "nosort", mark: nosort},
		{long: "sort", mark: unmarked},
		{long: "exact", short: 'X', mark: exact},
	}
}

// daemonOptions are for commands that are refused here, and errors elsewhere.
// Their values are looked at all the same, because ipvsadm does that first.
func daemonOptions() []option {
	return []option{
		{long: "mcast-interface", takes: value, mark: mcastInterface},
		{long: "syncid", takes: value, mark: syncID, means: (*parsing).syncID},
		{long: "mcast-group", takes: value, mark: mcastGroup, means: (*parsing).mcastGroup},
		{long: "mcast-port", takes: value, mark: mcastPort, means: (*parsing).mcastPort},
		{long: "mcast-ttl", takes: value, mark: mcastTTL, means: (*parsing).mcastTTL},
		{long: "sync-maxlen", takes: value, mark: syncMaxlen, means: (*parsing).syncMaxlen},
	}
}

// ownOptions are those that ipvsadm has not.
func ownOptions() []option {
	return []option{
		{long: "resolve", mark: resolve},
		{long: "names", mark: names},
		{long: "agent", takes: value, mark: agent, means: (*parsing).agent},
		{long: "json", mark: asJSON},
		{long: "watch", takes: perhaps, mark: watch, means: (*parsing).watch},
		{long: "source", takes: value, mark: source, means: (*parsing).filter},
		{long: "virtual", takes: value, mark: virtual, means: (*parsing).filter},
		{long: "destination", takes: value, mark: destination, means: (*parsing).filter},
		{long: "state", takes: value, mark: state, means: (*parsing).state},
		{long: "limit", takes: value, mark: limit, means: (*parsing).limit},
		{long: "complete", mark: complete},
		{long: "force", mark: force},
	}
}
