package file

import (
	"bytes"
	"strings"

	kjson "sigs.k8s.io/json"
)

// kind is what an object says it is.
type kind struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// part is a piece of a file that is decoded by itself, so that a change of one
// piece leaves the others alone: a document, or an item of a List.
type part struct {
	line int    // of the file, from 1
	text []byte // aliases the file's
	dash int    // text[dash] is the '-' of an item of a YAML list; -1: none
	json bool
	of   kind // of the item, if it does not say so itself: ServiceList holds Services
	item bool
}

// body is the part as a document of its own.
func (p part) body() []byte {
	if p.dash < 0 {
		return p.text
	}
	b := bytes.Clone(p.text)
	b[p.dash] = ' '
	return b
}

// split cuts a file into parts, in haste or with care. In haste Lists are cut
// too, by lines and brackets: if their items share anchors or hold strings that
// look like lines of YAML, parts come out that cannot be decoded. Then the
// caller has to try again with care.
func split(data []byte, haste bool) []part {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var parts []part
	for _, doc := range documents(data) {
		switch first := bytes.TrimLeft(doc.text, " \t\r\n"); {
		case len(first) == 0:
			continue
		case first[0] == '{':
			if values, ok := jsonParts(doc, haste); ok {
				parts = append(parts, values...)
				continue
			}
		case haste && !oddBreaks(doc.text):
			if items, ok := yamlItems(doc); ok {
				parts = append(parts, items...)
				continue
			}
		}
		parts = append(parts, doc)
	}
	return parts
}

// documents cuts at the marks of YAML, which cannot be anything else at the
// beginning of a line. A mark belongs to a document only if there is more on
// its line.
func documents(data []byte) []part {
	var docs []part
	start, line, began := 0, 1, 1
	add := func(end int) {
		if end > start && !directives(data[start:end]) {
			docs = append(docs, part{line: began, text: data[start:end], dash: -1})
		}
	}
	for pos := 0; pos < len(data); line++ {
		end := pos + lineLen(data[pos:])
		switch l := data[pos:end]; {
		case mark(l, "...") || mark(l, "---") && len(bytes.TrimSpace(l)) == 3:
			add(pos)
			start, began = end, line+1
		case mark(l, "---"):
			add(pos)
			start, began = pos, line
		}
		pos = end
	}
	add(len(data))
	return docs
}

// mark reports whether a line is a document mark.
func mark(line []byte, m string) bool {
	if len(line) < 3 || string(line[:3]) != m {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// directives reports whether a text before a mark says nothing but how to read
// what follows, or nothing at all.
func directives(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '%' && line[0] != '#' {
			return false
		}
	}
	return true
}

// lineLen is the length of the first line, with its end.
func lineLen(text []byte) int {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	return len(text)
}

// yamlItems cuts a List in block style into its items, as kubectl prints them;
// ok is false when it is none, or anything about it is unusual.
func yamlItems(doc part) (items []part, ok bool) {
	if !bytes.Contains(doc.text, []byte("items:\n")) {
		return nil, false // as nearly always
	}
	c := cutter{doc: doc}
	pos := 0
	for n := doc.line; pos < len(doc.text); n++ {
		end := pos + lineLen(doc.text[pos:])
		if !c.line(doc.text[pos:end], pos, n) {
			return nil, false
		}
		pos = end
	}
	c.end(pos)
	is, ok := listHead(c.head)
	if !ok || len(c.items) == 0 {
		return nil, false
	}
	return inherit(c.items, is)
}

// listHead reads a List without its items.
func listHead(text []byte) (is kind, ok bool) {
	js, is, ok := plainJSON(text)
	if !ok {
		return kind{}, false
	}
	var head struct {
		kind
		Metadata map[string]string `json:"metadata"`
		Items    *struct{}         `json:"items"`
	}
	mistakes, err := kjson.UnmarshalStrict(js, &head)
	return is, err == nil && len(mistakes) == 0
}

// cutter goes through a List line by line.
type cutter struct {
	doc    part
	head   []byte // the lines that belong to no item
	state  int
	indent int // of the items' dashes
	column int // where the item at hand begins after its dash
	start  int // of the item at hand
	items  []part
}

// Where a cutter is in the List.
const (
	beforeItems = iota
	atItems     // on the line after "items:"
	inItems
	afterItems
)

// line takes the line that begins at pos, the n-th of the file; false: this is
// not a List that can be cut.
func (c *cutter) line(line []byte, pos, n int) bool {
	l := bytes.TrimRight(line, " \t\r\n")
	content := bytes.TrimLeft(l, " ")
	depth := len(l) - len(content)
	dash := bytes.HasPrefix(content, []byte("- "))
	switch {
	case len(content) == 0 || content[0] == '#':
		return true
	case c.state == atItems && dash, c.state == inItems && dash && depth == c.indent:
		c.end(pos)
		object := bytes.TrimLeft(content[1:], " ")
		c.state, c.indent, c.column, c.start = inItems, depth, len(l)-len(object), pos
		c.items = append(c.items, part{line: n, dash: depth})
		_, _, ok := cutKey(object)
		return ok
	case c.state == inItems && depth >= c.column:
		return true
	case c.state == atItems, c.state == inItems && depth > 0:
		return false
	}
	c.end(pos)
	c.head = append(c.head, line...)
	if c.state == beforeItems && string(l) == "items:" {
		c.state = atItems
	}
	return true
}

// end ends the item at hand, if there is one, before pos.
func (c *cutter) end(pos int) {
	if c.state == inItems {
		c.items[len(c.items)-1].text = c.doc.text[c.start:pos]
		c.state = afterItems
	}
}

// inherit marks items as those of a list, if it is one. The items of a plain
// List say themselves what they are.
func inherit(items []part, list kind) ([]part, bool) {
	of, isList := list.item()
	for i := range items {
		items[i].item, items[i].of = true, of
	}
	return items, isList && len(items) > 0
}

// item is what the items of a list are; the zero kind when they have to say so.
func (k kind) item() (of kind, isList bool) {
	name, isList := strings.CutSuffix(k.Kind, "List")
	if !isList || name == "" {
		return kind{}, isList
	}
	return kind{k.APIVersion, name}, true
}
