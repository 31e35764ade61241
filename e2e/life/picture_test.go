package life

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"testing"
)

// scene is the part of the world that a picture shows.
type scene struct {
	outside []string          // client and router, if they are in it
	nodes   []string          // all
	pods    []string          // those that are shown
	addr    map[string]string // by name
	node    map[string]string // by pod
}

// Of a picture, in pixels.
const (
	margin     = 16
	outsideGap = 60
	outsideW   = 120
	boxH       = 44
	nodeW      = 560
	nodeHead   = 30
	nodeGap    = 14
	coreAt     = 74 // from the node's left
	coreW      = 130
	podAt      = 320
	podW       = 222
	podStep    = boxH + 10
	lineH      = 20
	apart      = 7 // the way there and the way back, from the middle between them
)

// box is a host's place in a picture.
type box struct{ x, y, w, h int }

func (b box) left() point  { return point{b.x, b.y + b.h/2} }
func (b box) right() point { return point{b.x + b.w, b.y + b.h/2} }

type point struct{ x, y int }

// drawing is a picture under way.
type drawing struct {
	strings.Builder
	scene
	hosts map[string]box // a node's is that of its kernel
	width int
}

// draw makes a picture of a trip, as SVG: the hosts, an arrow with a number for
// each hop, and below what the packet looked like there.
func draw(s scene, t trip) string {
	d := &drawing{scene: s, hosts: map[string]box{}}
	bottom := d.place()
	legend := t.legend()
	height := bottom + 10 + lineH*len(legend) + margin
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">
<style>
.node { fill: #f4f6f8; stroke: #8a97a6 } .pod { fill: #e3f1e5; stroke: #5b9a63 } .core { fill: #fdf3dc; stroke: #c29a3c } .out { fill: #e6eefb; stroke: #5f86c4 }
.there { stroke: #1d4f91; stroke-width: 2; fill: none } .back { stroke: #7a7a7a; stroke-width: 1.6; fill: none; stroke-dasharray: 5 3 }
.mono { font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: 12.5px } .new { font-weight: bold; fill: #b03a00 } .bad { fill: #b00020; font-weight: bold } .small { font-size: 11px; fill: #555 }
</style>
<defs>
<marker id="t" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#1d4f91"/></marker>
<marker id="b" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#7a7a7a"/></marker>
</defs>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#ffffff"/>
`, d.width, height)
	d.boxes()
	d.arrows(t)
	for i, line := range legend {
		d.text(margin, bottom+10+lineH*(i+1)-4, "mono", line)
	}
	d.WriteString("</svg>\n")
	return d.String()
}

// place finds everybody's place, and returns where the hosts end.
func (d *drawing) place() int {
	x := margin
	for range d.outside {
		x += outsideW + outsideGap
	}
	y := margin
	for _, n := range d.nodes {
		pods := 0
		for _, p := range d.pods {
			if d.node[p] == n {
				d.hosts[p] = box{x + podAt, y + nodeHead + pods*podStep, podW, boxH}
				pods++
			}
		}
		inner := max(1, pods)*podStep - 10
		d.hosts[n] = box{x + coreAt, y + nodeHead + (inner-boxH)/2, coreW, boxH}
		y += nodeHead + inner + 12 + nodeGap
	}
	bottom := y - nodeGap
	for i, name := range d.outside {
		d.hosts[name] = box{margin + i*(outsideW+outsideGap), (margin+bottom)/2 - boxH/2, outsideW, boxH}
	}
	d.width = x + nodeW + margin
	return bottom + margin
}

func (d *drawing) boxes() {
	for _, name := range d.outside {
		d.host(name, "out", name, d.addr[name])
	}
	for _, n := range d.nodes {
		core := d.hosts[n]
		top, inner := core.y-nodeHead, boxH
		for _, p := range d.pods {
			if d.node[p] == n {
				top = min(top, d.hosts[p].y-nodeHead)
				inner = max(inner, d.hosts[p].y+boxH-top-nodeHead)
			}
		}
		fmt.Fprintf(d, "<rect class=\"node\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", core.x-coreAt, top, nodeW, nodeHead+inner+12)
		d.text(core.x-coreAt+podAt+10, top+20, "", []span{{text: n + " "}, {text: d.addr[n], class: "mono"}})
		d.host(n, "core", "rules, IPVS", "kernel of "+n)
	}
	for _, p := range d.pods {
		d.host(p, "pod", "pod "+p, d.addr[p])
	}
}

func (d *drawing) host(name, class, title, below string) {
	b := d.hosts[name]
	fmt.Fprintf(d, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"5\"/>\n", class, b.x, b.y, b.w, b.h)
	d.text(b.x+10, b.y+18, "", []span{{text: title}})
	kind := "mono"
	if class == "core" {
		kind = "small"
	}
	d.text(b.x+10, b.y+36, kind, []span{{text: below}})
}

// span is text of one look.
type span struct{ text, class string }

func (d *drawing) text(x, y int, class string, spans []span) {
	fmt.Fprintf(d, "<text x=\"%d\" y=\"%d\" class=\"%s\" xml:space=\"preserve\">", x, y, class)
	for _, s := range spans {
		fmt.Fprintf(d, "<tspan class=\"%s\">%s</tspan>", s.class, html.EscapeString(s.text))
	}
	d.WriteString("</text>\n")
}

func (d *drawing) arrows(t trip) {
	number := 0
	for i, leg := range [][]hop{t.There, t.Back} {
		for _, h := range leg {
			number++
			d.arrow(h, number, i == 1)
		}
	}
	if verdict := t.verdict(); verdict != "" {
		where := t.end()
		if len(t.Back) > 0 {
			where = t.Back[0].From
		}
		b := d.hosts[where]
		d.text(b.x+b.w+8, b.y+boxH+8, "bad", []span{{text: "✕ " + verdict}})
	}
}

func (d *drawing) arrow(h hop, number int, back bool) {
	class, head, off := "there", "t", -apart
	if back {
		class, head, off = "back", "b", apart
	}
	a, b := d.hosts[h.From], d.hosts[h.To]
	from, to := a.right(), b.left()
	if a.x > b.x {
		from, to = a.left(), b.right()
	}
	from.y, to.y = from.y+off, to.y+off
	path := fmt.Sprintf("M%d,%d L%d,%d", from.x, from.y, to.x, to.y)
	// Where the numbers of both ways do not meet: the ends of one are the other's.
	middle := point{from.x + (to.x-from.x)*2/5, from.y + (to.y-from.y)*2/5}
	if a.x == b.x {
		path, middle = d.between(h, off)
	}
	fmt.Fprintf(d, "<path class=\"%s\" d=\"%s\" marker-end=\"url(#%s)\"/>\n", class, path, head)
	fmt.Fprintf(d, "<circle cx=\"%d\" cy=\"%d\" r=\"8\" fill=\"#ffffff\" stroke=\"#555\"/>\n", middle.x, middle.y)
	fmt.Fprintf(d, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" font-size=\"10\">%d</text>\n", middle.x, middle.y+4, number)
}

// between is the way from the kernel of a node to that of another: straight to a
// neighbour, else around those that are between them.
func (d *drawing) between(h hop, off int) (path string, middle point) {
	a, b := d.hosts[h.From], d.hosts[h.To]
	if i, j := slices.Index(d.nodes, h.From), slices.Index(d.nodes, h.To); i-j == 1 || j-i == 1 {
		x, from, to := a.x+a.w/2+3*off, a.y+a.h, b.y
		if i > j {
			from, to = a.y, b.y+b.h
		}
		return fmt.Sprintf("M%d,%d L%d,%d", x, from, x, to), point{x, from + (to-from)*2/5}
	}
	from, to, out := a.left(), b.left(), a.x-(44-2*off)
	from.y, to.y = from.y+off, to.y+off
	path = fmt.Sprintf("M%d,%d C%d,%d %d,%d %d,%d", from.x, from.y, out, from.y, out, to.y, to.x, to.y)
	return path, point{a.x - (a.x-out)*3/4, (from.y+to.y)/2 + 2*off}
}

// verdict is what became of what was not answered.
func (t trip) verdict() string {
	switch {
	case len(t.Back) == 0:
		return "dropped"
	case t.Back[0].Kind != accept:
		return "refused"
	}
	return ""
}

// legend is what the packet looked like, a line for each hop, with what has become
// new on the way.
func (t trip) legend() [][]span {
	var lines [][]span
	for _, leg := range [][]hop{t.There, t.Back} {
		for i, h := range leg {
			look := func(is bool) string {
				if is {
					return "new"
				}
				return ""
			}
			before := h
			if i > 0 {
				before = leg[i-1]
			}
			line := []span{
				{text: fmt.Sprintf("%2d  %-8s → %-8s  ", len(lines)+1, h.From, h.To)},
				{t.where(h.Src), look(h.Src != before.Src)}, {text: " → "}, {t.where(h.Dst), look(h.Dst != before.Dst)},
			}
			if h.Kind != request && h.Kind != accept {
				line = append(line, span{"  " + string(h.Kind), "bad"})
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// wellFormed reads a text as XML to its end, and returns the words in it.
func wellFormed(text string) (words []string, err error) {
	d := xml.NewDecoder(strings.NewReader(text))
	style := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return words, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			style = token.Name.Local == "style"
		case xml.EndElement:
			style = false
		case xml.CharData:
			if !style {
				words = append(words, strings.Fields(string(token))...)
			}
		}
	}
}

func TestDraw(t *testing.T) {
	way, err := follow("client", nodePort())
	if err != nil {
		t.Fatal(err)
	}
	s := scene{
		outside: []string{"client", "router"}, nodes: []string{"node1", "node2"}, pods: []string{"web-1", "web-2", "db"},
		addr: map[string]string{"client": "192.168.20.2", "router": "192.168.10.1", "node1": "192.168.10.11", "node2": "192.168.10.12", "web-1": "10.244.1.2", "web-2": "10.244.2.2", "db": "10.244.2.3"},
		node: map[string]string{"web-1": "node1", "web-2": "node2", "db": "node2"},
	}
	words, err := wellFormed(draw(s, way))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"client", "router", "node2", "web-1", "10.244.2.3", "192.168.10.11:30080", "→"} {
		if !slices.Contains(words, want) {
			t.Errorf("there is no %s in %v", want, words)
		}
	}
	if _, err := wellFormed("<svg><a></svg>"); err == nil {
		t.Error("what is not well-formed passes")
	}
}
