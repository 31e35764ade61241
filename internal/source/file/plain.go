package file

import (
	"bytes"
	"strings"
)

// plainJSON turns YAML into JSON if it is of the plain kind that programs
// write: block style, one line for each scalar, no tags, anchors, comments
// after values or flow style. It is ten times as fast as a YAML library and
// declines (ok is false) whatever it is not certain of, mistakes included, so
// that the library decides and explains. FuzzPlain holds it to the library's
// reading.
//
// is are the values of the keys apiVersion and kind at the top.
func plainJSON(doc []byte) (js []byte, is kind, ok bool) {
	if !printable(doc) {
		return nil, kind{}, false
	}
	p := plain{rest: doc, out: make([]byte, 0, len(doc)+len(doc)/2)}
	if !p.next() {
		return nil, kind{}, false
	}
	if p.indent != 0 && doc[0] != ' ' { // an item of a list begins indented
		return nil, kind{}, false
	}
	if !p.mapping(p.indent, 0) || len(p.line) > 0 {
		return nil, kind{}, false
	}
	return p.out, p.is, true
}

// printable reports whether a text holds only ASCII and no tabs: what else YAML
// takes for a space or the end of a line is none of our concern.
func printable(text []byte) bool {
	for _, c := range text {
		if (c < ' ' || c > '~') && c != '\n' {
			return false
		}
	}
	return true
}

// plain reads YAML line by line.
type plain struct {
	rest   []byte // after the line
	line   []byte // without indentation and trailing space; empty: the end
	indent int
	out    []byte
	is     kind
}

const (
	maxDepth  = 30
	maxKey    = 512 // YAML's own limit is 1024
	maxDigits = 15  // of a number that any JSON reader takes for an integer
)

// next goes to the next line that says something; false at the end.
func (p *plain) next() bool {
	for len(p.rest) > 0 {
		n := lineLen(p.rest)
		l := bytes.TrimRight(p.rest[:n], " \n")
		p.rest = p.rest[n:]
		p.line = bytes.TrimLeft(l, " ")
		p.indent = len(l) - len(p.line)
		if len(p.line) > 0 && p.line[0] != '#' {
			return true
		}
	}
	p.line, p.indent = nil, -1
	return false
}

func (p *plain) block(indent, depth int) bool {
	if dash(p.line) {
		return p.sequence(indent, depth)
	}
	return p.mapping(indent, depth)
}

// mapping reads the lines of one indentation as keys and values.
func (p *plain) mapping(indent, depth int) bool {
	if depth > maxDepth {
		return false
	}
	p.out = append(p.out, '{')
	for first := true; p.indent == indent && len(p.line) > 0; first = false {
		key, value, ok := cutKey(p.line)
		if !ok {
			return false
		}
		if !first {
			p.out = append(p.out, ',')
		}
		p.out = append(p.out, '"')
		p.out = append(p.out, key...)
		p.out = append(p.out, '"', ':')
		if depth == 0 && !p.note(key, value) || !p.value(value, indent, depth) {
			return false
		}
	}
	p.out = append(p.out, '}')
	return p.indent < indent
}

// note keeps what the document says it is, if it says so once. Quotes hold
// nothing special here.
func (p *plain) note(key, value []byte) bool {
	var said *string
	switch string(key) {
	case "kind":
		said = &p.is.Kind
	case "apiVersion":
		said = &p.is.APIVersion
	default:
		return true
	}
	if *said != "" {
		return false
	}
	*said = strings.Trim(string(value), `"'`)
	return true
}

// value reads what follows a key: on its line, or on the next ones.
func (p *plain) value(text []byte, indent, depth int) bool {
	if len(text) > 0 {
		return p.scalar(text) && (!p.next() || p.indent <= indent)
	}
	switch {
	case !p.next() || p.indent < indent:
	case p.indent > indent:
		return p.block(p.indent, depth+1)
	case dash(p.line):
		return p.sequence(indent, depth+1)
	}
	p.out = append(p.out, "null"...)
	return true
}

// sequence reads the lines of one indentation that begin with dashes.
func (p *plain) sequence(indent, depth int) bool {
	if depth > maxDepth {
		return false
	}
	p.out = append(p.out, '[')
	for first := true; p.indent == indent && dash(p.line); first = false {
		if !first {
			p.out = append(p.out, ',')
		}
		item := bytes.TrimLeft(p.line[2:], " ")
		if _, _, isKey := cutKey(item); isKey {
			p.indent += len(p.line) - len(item)
			p.line = item
			if !p.mapping(p.indent, depth+1) {
				return false
			}
			continue
		}
		if !p.scalar(item) || p.next() && p.indent > indent {
			return false
		}
	}
	p.out = append(p.out, ']')
	return p.indent <= indent
}

func dash(line []byte) bool { return len(line) > 2 && line[0] == '-' && line[1] == ' ' }

// cutKey cuts a line into a key that is certainly a string and the text after
// its colon.
func cutKey(line []byte) (key, value []byte, ok bool) {
	n := 0
	for n < len(line) && (letter(line[n]) || digit(line[n]) || strings.IndexByte("._/-", line[n]) >= 0) {
		n++
	}
	if n == 0 || n > maxKey || n == len(line) || line[n] != ':' || n+1 < len(line) && line[n+1] != ' ' {
		return nil, nil, false
	}
	if !word(line[:n]) {
		return nil, nil, false
	}
	return line[:n], bytes.TrimLeft(line[n+1:], " "), true
}

// scalar writes a value, if it is certain what YAML takes it for.
func (p *plain) scalar(text []byte) bool {
	s := string(text)
	switch {
	case s == "true", s == "false", s == "{}", s == "[]", integer(s):
		p.out = append(p.out, text...)
		return true
	case text[0] == '"', text[0] == '\'':
		inner := text[1:]
		if len(inner) == 0 || inner[len(inner)-1] != text[0] {
			return false
		}
		text = inner[:len(inner)-1]
		if bytes.ContainsAny(text, `"'\`) {
			return false
		}
	case !word(text) && !address(s):
		return false
	}
	p.out = append(p.out, '"')
	p.out = append(p.out, text...)
	p.out = append(p.out, '"')
	return true
}

// word reports whether a scalar begins with a letter, holds nothing that means
// anything to YAML and is no word that YAML takes for something else.
func word(s []byte) bool {
	if !letter(s[0]) || s[len(s)-1] == ':' {
		return false
	}
	for _, c := range s {
		if !letter(c) && !digit(c) && strings.IndexByte("._/-:@+=", c) < 0 {
			return false
		}
	}
	if len(s) > 5 {
		return true
	}
	switch strings.ToLower(string(s)) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf":
		return false
	}
	return true
}

// integer reports whether a scalar is a decimal number, and an ordinary one.
func integer(s string) bool {
	if s == "0" {
		return true
	}
	if len(s) > maxDigits || s[0] < '1' || s[0] > '9' {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

// address reports whether a scalar has the form of an IP address or CIDR that
// begins with a digit and cannot be a number.
func address(s string) bool {
	if !digit(s[0]) {
		return false
	}
	host, _, _ := strings.Cut(s, "/")
	if strings.Count(host, ".") == 3 {
		return strings.Trim(s, "0123456789./") == ""
	}
	return strings.Contains(host, "::") && s[len(s)-1] != ':' && strings.Trim(s, "0123456789abcdefABCDEF:/") == ""
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }
