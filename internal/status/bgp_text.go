package status

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"
)

// shownServices is how many Services that share an address a narrow table
// names.
const shownServices = 2

// WritePeers writes sessions as a table, and below it what is wrong with
// objects and does not show as a session's reason. Wide adds our own ASN.
func WritePeers(w io.Writer, list PeerList, now time.Time, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	header := []string{"PEER", "ADDRESS", "ASN", "STATE", "FOR", "LOST", "TOLD", "REASON"}
	if wide {
		header = append(header[:3], append([]string{"MY ASN"}, header[3:]...)...)
	}
	fmt.Fprintln(t, strings.Join(header, "\t"))
	refused := map[Problem]bool{}
	for _, p := range list.Peers {
		line := []string{p.Peer, "-", "-"}
		if p.Address.IsValid() {
			line = []string{p.Peer, p.Address.String(), fmt.Sprint(p.ASN)}
		}
		if wide {
			line = append(line, number(p.MyASN))
		}
		if p.State == NoSession {
			line = append(line, p.State, "-", "-", "-")
			refused[Problem{Kind: peerKind, Object: p.Peer, Message: p.Error}] = true
		} else {
			line = append(line, p.State, age(p.Since, now), fmt.Sprint(p.Lost), fmt.Sprint(p.Told))
		}
		fmt.Fprintln(t, strings.Join(append(line, cmp.Or(p.Error, "-")), "\t"))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
	for _, p := range list.Problems {
		if !refused[Problem{Kind: p.Kind, Object: p.Object, Message: p.Message}] {
			fmt.Fprintf(w, "%s %s: %s: %s\n", p.Kind, p.Object, p.Reason, p.Message)
		}
	}
}

// WriteRoutes writes routes as a table. Wide adds their attributes, and names
// every Service.
func WriteRoutes(w io.Writer, list RouteList, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	attributes, shown := "", shownServices
	if wide {
		attributes = "NEXT HOP\tCOMMUNITIES\tLOCAL PREF\tMED\t"
	}
	fmt.Fprintf(t, "ADDRESS\tPREFIX\tPEER\tSTATE\tSERVICES\t%sREASON\n", attributes)
	for _, r := range list.Routes {
		if wide {
			attributes, shown = r.attributes(), len(r.Services)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s%s\n", r.Address, prefix(r.Prefix), cmp.Or(r.Peer, "-"), r.State,
			services(r.Services, shown), attributes, cmp.Or(r.Reason, "-"))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
}

// attributes are a route's wide columns.
func (r Route) attributes() string {
	hop, med := "-", "-"
	if r.NextHop.IsValid() {
		hop = r.NextHop.String()
	}
	if r.MED != nil {
		med = fmt.Sprint(*r.MED)
	}
	communities := strings.Join(append(append([]string{}, r.Communities...), r.LargeCommunities...), ",")
	return fmt.Sprintf("%s\t%s\t%s\t%s\t", hop, cmp.Or(communities, "-"), number(r.LocalPref), med)
}

func prefix(p netip.Prefix) string {
	if !p.IsValid() {
		return "-"
	}
	return p.String()
}

// number is a number of which 0 means that none is set.
func number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func services(names []string, shown int) string {
	if len(names) > shown {
		return fmt.Sprintf("%s,+%d", strings.Join(names[:shown], ","), len(names)-shown)
	}
	return cmp.Or(strings.Join(names, ","), "-")
}

// age is how long ago a time was, in its two greatest units: "12s", "4m10s",
// "3h12m", "5d4h".
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}
