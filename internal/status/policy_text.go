package status

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// WriteDenied writes a denial as one line:
//
//	TIME NODE SIDE: WHO -> WHOM PROTOCOL through SERVICE; POLICIES: WHY
func WriteDenied(w io.Writer, d Denied) error {
	var b strings.Builder
	if d.Missed > 0 {
		fmt.Fprintf(&b, "(%d more came too fast to be shown)\n", d.Missed)
	}
	fmt.Fprintf(&b, "%s ", d.Time.Format(time.RFC3339))
	if d.Node != "" {
		b.WriteString(d.Node + " ")
	}
	// The client's port is another at each attempt.
	fmt.Fprintf(&b, "%s: %s -> %s %s", d.Side, end(d.SrcPod, netip.AddrPortFrom(d.Src.Addr(), 0)), end(d.DstPod, d.Dst), d.Protocol)
	if through := strings.Join(d.Services, " or "); through != "" || d.Dialled.IsValid() {
		b.WriteString(" through")
		if through != "" {
			b.WriteString(" " + through)
		}
		if d.Dialled.IsValid() {
			b.WriteString(" " + d.Dialled.String())
		}
	}
	b.WriteString("; ")
	if len(d.Policies) > 0 {
		b.WriteString("isolated by " + strings.Join(d.Policies, ", ") + ": ")
	}
	b.WriteString(oneLine(d.Why))
	if d.Suppressed > 0 {
		fmt.Fprintf(&b, " (and %d like it before)", d.Suppressed)
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// end is one end of a packet: its pod, if there is one, and its address.
func end(pod string, at netip.AddrPort) string {
	text := at.String()
	if at.Port() == 0 {
		text = at.Addr().String()
	}
	if pod == "" {
		return text
	}
	return pod + " " + text
}
