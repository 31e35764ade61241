package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// String is the explanation for people: the verdict, then each way with what
// its ends say, then the hints. Ways that differ in the family only are one.
//
//	DENIED: x/a → y/b, TCP 80
//	  egress   allowed  no policy isolates x/a for egress
//	  ingress  DENIED   y/p ingress[0] has TCP 80, but only from pods app=web …
//
//	  hint: …
func (e Explanation) String() string {
	var b strings.Builder
	asked := fmt.Sprintf("%s → %s", e.Query.From, e.Query.To)
	if e.Error != "" {
		fmt.Fprintf(&b, "NO ANSWER: %s\n  %s\n", asked, e.Error)
		return b.String()
	}
	ways := merge(e.Path)
	fmt.Fprintf(&b, "%s: %s%s%s\n", e.verdict(), asked, e.target(), open(ways))
	for _, w := range ways {
		w.write(&b, len(ways) > 1)
	}
	for i, hint := range e.Hints {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "  hint: %s\n", hint)
	}
	return b.String()
}

func (e Explanation) verdict() string {
	some := false
	for _, s := range e.Path {
		some = some || s.Allowed()
	}
	switch {
	case e.Allowed:
		return "ALLOWED"
	case some:
		return "PARTLY ALLOWED"
	}
	return "DENIED"
}

// target names protocol and port, as far as the query's To does not.
func (e Explanation) target() string {
	p := e.Query.Protocol
	if p == 0 {
		p = model.TCP
	}
	return ", " + Packet{Protocol: p, Port: e.Query.Port}.target()
}

// textWay are steps that read alike.
type textWay struct {
	Step
	families map[model.Family]netip.Addr // of the destination
}

func open(ways []textWay) string {
	if len(ways) < 2 {
		return ""
	}
	n := 0
	for _, w := range ways {
		if w.Allowed() {
			n++
		}
	}
	return fmt.Sprintf(" (%d of %d ways open)", n, len(ways))
}

// merge makes one of the steps that differ in the family only.
func merge(path []Step) []textWay {
	var ways []textWay
next:
	for _, s := range path {
		family := model.FamilyOf(s.Dst)
		for i := range ways {
			_, has := ways[i].families[family]
			if !has && ways[i].reads(s) {
				ways[i].families[family] = s.Dst
				continue next
			}
		}
		ways = append(ways, textWay{s, map[model.Family]netip.Addr{family: s.Dst}})
	}
	return ways
}

// reads reports whether a step says the same, but for addresses.
func (w textWay) reads(s Step) bool {
	return w.From == s.From && w.To == s.To && w.Port == s.Port && w.Node == s.Node && w.Alike == s.Alike && w.Seen.IsValid() == s.Seen.IsValid() &&
		w.Refused == s.Refused && w.Egress.Why == s.Egress.Why && w.Ingress.Why == s.Ingress.Why && (w.Via == "") == (s.Via == "")
}

func (w textWay) write(b *strings.Builder, several bool) {
	indent := "  "
	if several || w.Via != "" {
		fmt.Fprintf(b, "\n  %s%s\n", w.headline(), map[bool]string{true: "open", false: "CLOSED"}[w.Allowed()])
		indent = "    "
	}
	if w.Refused != "" {
		fmt.Fprintf(b, "%srefused           %s\n", indent, w.Refused)
	}
	for _, f := range []Finding{w.Egress, w.Ingress} {
		fmt.Fprintf(b, "%s%-8s %-8s %s\n", indent, f.Side, map[bool]string{true: "allowed", false: "DENIED"}[f.Allowed], f.Why)
	}
}

// headline says where a way leads: through which Service and node, to whom.
func (w textWay) headline() string {
	var text []string
	if w.Via != "" {
		text = append(text, "by "+w.Via)
	}
	if w.Node != "" && (w.Seen.IsValid() || w.Egress.Pod == (model.Name{})) {
		at := "at node " + w.Node
		if w.Alike > 0 {
			at += fmt.Sprintf(" and %d more", w.Alike)
		}
		text = append(text, at)
	}
	if w.Seen.IsValid() {
		text = append(text, fmt.Sprintf("which the receiver sees as %s", w.Seen))
	}
	return strings.Join(append(text, "to "+w.destination()), ", ") + ": "
}

func (w textWay) destination() string {
	text := w.To
	if w.Dst.IsValid() {
		at := w.Dst.String()
		if w.Port != 0 {
			at = netip.AddrPortFrom(w.Dst, w.Port).String()
		}
		if w.To == w.Dst.String() {
			text = at
		} else {
			text += " " + at
		}
	}
	if len(w.families) > 1 {
		text += " and the same in the other family"
	}
	return text
}
