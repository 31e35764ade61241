package file

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// jsonParts cuts JSON values that follow each other; ok is false when it is not
// JSON (YAML in braces looks alike). In haste the values' insides are left for
// the decoder to check.
func jsonParts(doc part, haste bool) (parts []part, ok bool) {
	c := cursor{text: doc.text, line: doc.line}
	for !c.end() {
		value, ok := c.object()
		if !ok || !haste && !json.Valid(value.text) {
			return nil, false
		}
		if haste {
			if items, ok := jsonItems(value); ok {
				parts = append(parts, items...)
				continue
			}
		}
		parts = append(parts, value)
	}
	return parts, true
}

// jsonItems cuts a List into its items; ok is false when it is none.
func jsonItems(doc part) (items []part, ok bool) {
	if !bytes.Contains(doc.text, []byte(`"items"`)) {
		return nil, false
	}
	c := cursor{text: doc.text, line: doc.line}
	var is kind
	var seen []string
	for more := c.take('{'); more; more = c.take(',') {
		key, ok := c.key()
		if !ok || slices.Contains(seen, key) {
			return nil, false
		}
		seen = append(seen, key)
		switch key {
		case "kind":
			ok = c.read(&is.Kind)
		case "apiVersion":
			ok = c.read(&is.APIVersion)
		case "metadata":
			ok = c.read(new(json.RawMessage))
		case "items":
			items, ok = c.array()
		default:
			ok = false
		}
		if !ok {
			return nil, false
		}
	}
	if !c.take('}') || !c.end() {
		return nil, false
	}
	return inherit(items, is)
}

// cursor goes through JSON by brackets and quotes alone.
type cursor struct {
	text []byte
	pos  int
	line int // of pos, as far as counted
	seen int // how far lines were counted
}

// end skips space and reports whether nothing else is left.
func (c *cursor) end() bool {
	for c.pos < len(c.text) && strings.IndexByte(" \t\r\n", c.text[c.pos]) >= 0 {
		c.pos++
	}
	return c.pos == len(c.text)
}

// take takes one character, if it is next.
func (c *cursor) take(b byte) bool {
	if c.end() || c.text[c.pos] != b {
		return false
	}
	c.pos++
	return true
}

// key takes a key without escapes and its colon.
func (c *cursor) key() (string, bool) {
	if c.end() {
		return "", false
	}
	raw := c.value()
	if len(raw) < 2 || raw[0] != '"' || bytes.IndexByte(raw, '\\') >= 0 || !c.take(':') {
		return "", false
	}
	return string(raw[1 : len(raw)-1]), true
}

// read takes a value and decodes it.
func (c *cursor) read(into any) bool {
	return !c.end() && json.Unmarshal(c.value(), into) == nil
}

// object takes an object.
func (c *cursor) object() (part, bool) {
	if c.end() || c.text[c.pos] != '{' {
		return part{}, false
	}
	c.line += bytes.Count(c.text[c.seen:c.pos], []byte("\n"))
	c.seen = c.pos
	p := part{line: c.line, dash: -1, json: true}
	p.text = c.value()
	return p, len(p.text) > 0
}

// array takes an array of objects.
func (c *cursor) array() (items []part, ok bool) {
	for more := c.take('['); more; more = c.take(',') {
		p, ok := c.object()
		if !ok {
			return nil, false
		}
		items = append(items, p)
	}
	return items, c.take(']')
}

// value takes the value that begins at pos; nil: it does not end.
func (c *cursor) value() []byte {
	start, depth := c.pos, 0
	for c.pos < len(c.text) {
		switch c.text[c.pos] {
		case '"':
			if !c.quoted() {
				return nil
			}
			c.pos--
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default:
			if depth > 0 || !c.last() {
				c.pos++
				continue
			}
		}
		c.pos++
		if depth <= 0 {
			return c.text[start:c.pos]
		}
	}
	return nil
}

// last reports whether a number or word ends at pos.
func (c *cursor) last() bool {
	return c.pos+1 == len(c.text) || strings.IndexByte(",:]} \t\r\n", c.text[c.pos+1]) >= 0
}

// quoted takes a string.
func (c *cursor) quoted() bool {
	for c.pos++; c.pos < len(c.text); c.pos++ {
		switch c.text[c.pos] {
		case '\\':
			c.pos++
		case '"':
			c.pos++
			return true
		}
	}
	return false
}
