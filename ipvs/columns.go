package ipvs

import (
	"fmt"
	"strconv"
	"strings"
)

// Columns are the facts that a listing shows of each entry.
type Columns uint8

// The columns, each named after ipvsadm's option.
const (
	RuleColumns       Columns = iota // without an option
	StatsColumns                     // --stats
	RateColumns                      // --rate
	ThresholdColumns                 // --thresholds
	PersistentColumns                // --persistent-conn
	TunnelColumns                    // --tun-info
)

// columns is what the listing's options differ in: which facts of an entry
// stand behind its name.
type columns interface {
	title() [2]string
	server(name string, e VirtualServerEntry) string
	destination(name string, e DestinationEntry) string
}

func (s Style) columns() columns {
	switch s.Columns {
	case StatsColumns:
		return statsColumns{s.Exact}
	case RateColumns:
		return rateColumns{s.Exact}
	case ThresholdColumns:
		return thresholdColumns{}
	case PersistentColumns:
		return persistentColumns{}
	case TunnelColumns:
		return tunnelColumns{}
	}
	return ruleColumns{}
}

const (
	serverTitle      = "Prot LocalAddress:Port"
	destinationTitle = "  -> RemoteAddress:Port"
)

// ruleColumns is the listing without options. The others that are no counters
// show of a virtual server the same.
type ruleColumns struct{}

func (ruleColumns) title() [2]string {
	return [2]string{serverTitle + " Scheduler Flags", destinationTitle + "           Forward Weight ActiveConn InActConn"}
}

func (ruleColumns) server(name string, e VirtualServerEntry) string {
	return name + " " + e.Spec.Scheduler + serverFlags(e)
}

func (ruleColumns) destination(name string, e DestinationEntry) string {
	return fmt.Sprintf("  -> %-28s %-7s %-6d %-10d %-10d",
		name, e.Spec.Forward, int32(e.Spec.Weight), e.Active, e.Inactive) // signed in the kernel
}

type statsColumns struct{ exact bool }

func (statsColumns) title() [2]string {
	return counterTitle("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
}

func (c statsColumns) server(name string, e VirtualServerEntry) string {
	return fmt.Sprintf("%-33s", name) + c.numbers(e.Counters)
}

func (c statsColumns) destination(name string, e DestinationEntry) string {
	return fmt.Sprintf("  -> %-28s", name) + c.numbers(e.Counters)
}

func (c statsColumns) numbers(n Counters) string {
	return largeNumbers(c.exact, n.Connections, n.PacketsIn, n.PacketsOut, n.BytesIn, n.BytesOut)
}

type rateColumns struct{ exact bool }

func (rateColumns) title() [2]string {
	return counterTitle("CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")
}

func (c rateColumns) server(name string, e VirtualServerEntry) string {
	n := e.Counters
	return fmt.Sprintf("%-33s", name) + largeNumbers(c.exact, n.ConnectionRate, n.PacketRateIn, n.PacketRateOut, n.ByteRateIn, n.ByteRateOut)
}

// destination writes the first three in full whatever is asked for, as
// ipvsadm does.
func (c rateColumns) destination(name string, e DestinationEntry) string {
	n := e.Counters
	return fmt.Sprintf("  -> %-28s %8d %8d %8d", name, n.ConnectionRate, n.PacketRateIn, n.PacketRateOut) +
		largeNumbers(c.exact, n.ByteRateIn, n.ByteRateOut)
}

type thresholdColumns struct{ ruleColumns }

func (thresholdColumns) title() [2]string {
	return [2]string{fmt.Sprintf("%-33s %-10s %-10s %-10s %-10s", serverTitle, "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"), destinationTitle}
}

func (thresholdColumns) destination(name string, e DestinationEntry) string {
	return fmt.Sprintf("  -> %-28s %-10d %-10d %-10d %-10d", name, e.Spec.UpperThreshold, e.Spec.LowerThreshold, e.Active, e.Inactive)
}

type persistentColumns struct{ ruleColumns }

func (persistentColumns) title() [2]string {
	return [2]string{fmt.Sprintf("%-33s %-9s %-11s %-10s %-10s", serverTitle, "Weight", "PersistConn", "ActiveConn", "InActConn"), destinationTitle}
}

func (persistentColumns) destination(name string, e DestinationEntry) string {
	return fmt.Sprintf("  -> %-28s %-9d %-11d %-10d %-10d", name, e.Spec.Weight, e.Persistent, e.Active, e.Inactive)
}

type tunnelColumns struct{ ruleColumns }

func (tunnelColumns) title() [2]string {
	return [2]string{serverTitle + " Scheduler Flags", destinationTitle + "           Forward TunnelInfo    Weight ActiveConn InActConn"}
}

func (tunnelColumns) destination(name string, e DestinationEntry) string {
	return fmt.Sprintf("  -> %-28s %-7s %-13s %-6d %-10d %-10d",
		name, e.Spec.Forward, tunnelText(e.Spec), int32(e.Spec.Weight), e.Active, e.Inactive)
}

// tunnelText is "ipip", "gue:6080:+c" or "gre:-c", and "n/a" where there is no
// tunnel.
func tunnelText(spec DestinationSpec) string {
	t := spec.Tunnel
	switch {
	case spec.Forward != ForwardTunnel || t.Type > GRE:
		return "n/a"
	case t.Type == GUE:
		return "gue:" + strconv.Itoa(int(t.Port)) + ":" + t.Flags.String()
	case t.Type == GRE:
		return "gre:" + t.Flags.String()
	}
	return "ipip"
}

// String is the flags' name in a listing.
func (f TunnelFlags) String() string {
	switch f {
	case NoChecksum:
		return "-c"
	case Checksum:
		return "+c"
	case RemoteChecksum:
		return "r+c"
	}
	return "flags " + strconv.Itoa(int(f)) // which ipvsadm has no word for
}

func counterTitle(names ...string) [2]string {
	var s strings.Builder
	fmt.Fprintf(&s, "%-33s", serverTitle)
	for _, name := range names {
		fmt.Fprintf(&s, " %8s", name)
	}
	return [2]string{s.String(), destinationTitle}
}

// largeNumbers writes counters in columns of nine. What would not fit is cut
// to thousands and so on, unless exact: then it makes its column wider.
func largeNumbers(exact bool, numbers ...uint64) string {
	var s strings.Builder
	for _, n := range numbers {
		switch {
		case exact:
			fmt.Fprintf(&s, "%*d", max(9, len(strconv.FormatUint(n, 10))+1), n)
		case n < 1e8:
			fmt.Fprintf(&s, "%9d", n)
		case n < 1e9:
			fmt.Fprintf(&s, "%8dK", n/1e3)
		case n < 1e11:
			fmt.Fprintf(&s, "%8dM", n/1e6)
		case n < 1e14:
			fmt.Fprintf(&s, "%8dG", n/1e9)
		default:
			fmt.Fprintf(&s, "%8dT", n/1e12)
		}
	}
	return s.String()
}
