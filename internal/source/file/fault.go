package file

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"sluice.dev/sluice/internal/model"
)

// Reasons of problems with files. They concern no object an API server has.
const (
	reasonFile      = "InvalidFile"
	reasonDirectory = "DirectoryUnreadable"
	reasonTwice     = "DefinedTwice"
)

// FileKind is the kind of problems that are a file's, named by its path.
const FileKind = "File"

// fault is why a file cannot be used.
type fault struct {
	line   int // from 1; 0: not known
	reason string
}

// String is "path:line: reason", as compilers say it.
func (f fault) String(path string) string {
	if f.line == 0 {
		return path + ": " + f.reason
	}
	return fmt.Sprintf("%s:%d: %s", path, f.line, f.reason)
}

func problem(path, reason, message string) model.Problem {
	return model.Problem{Kind: FileKind, Object: model.Name{Name: path}, Reason: reason, Message: message}
}

// syntaxFault makes the lines that the YAML library names, which begin with
// the part, those of the file.
func syntaxFault(first int, err error) fault {
	f := fault{line: first}
	lines := regexp.MustCompile(`line \d+`)
	named := false
	f.reason = lines.ReplaceAllStringFunc(err.Error(), func(s string) string {
		n, _ := strconv.Atoi(s[len("line "):])
		n += first - 1
		if !named {
			f.line, named = n, true
		}
		return fmt.Sprintf("line %d", n)
	})
	return f
}

// lineOf finds the line of a document, from 1, on which a mistake stands; if it
// cannot be found, the first line that is known to hold it.
func lineOf(doc []byte, m mistake) int {
	var root yamlv3.Node
	if m.field == "" || yamlv3.Unmarshal(doc, &root) != nil || len(root.Content) == 0 {
		return firstLine(doc)
	}
	for _, value := range []string{m.value, ""} {
		if n := lineIn(root.Content[0], steps(m.field), value); n != 0 {
			return n
		}
	}
	return root.Content[0].Line
}

// firstLine is the first line of a document that says something.
func firstLine(doc []byte) int {
	n := 1
	for line := range strings.Lines(string(doc)) {
		if t := strings.TrimSpace(line); t != "" && t[0] != '#' && t != "---" {
			return n
		}
		n++
	}
	return 1
}

// steps cuts "spec.ports[0].port" into spec, ports, [0], port.
func steps(path string) []string {
	return strings.FieldsFunc(strings.ReplaceAll(path, "[", ".["), func(r rune) bool { return r == '.' })
}

// lineIn looks for the node at a path, and if value is given for one of that
// type; 0: there is none. Some errors' paths leave out the positions in lists:
// then all items are looked at.
func lineIn(n *yamlv3.Node, path []string, value string) int {
	switch {
	case len(path) == 0:
		if strings.HasPrefix(value, jsonType(n)) || value == "" {
			return n.Line
		}
	case n.Kind == yamlv3.SequenceNode:
		return lineInList(n, path, value)
	case n.Kind == yamlv3.MappingNode:
		return lineInMapping(n, path, value)
	}
	return 0
}

func lineInList(n *yamlv3.Node, path []string, value string) int {
	if i, err := strconv.Atoi(strings.Trim(path[0], "[]")); err == nil && path[0][0] == '[' {
		if i >= len(n.Content) {
			return 0
		}
		return lineIn(n.Content[i], path[1:], value)
	}
	for _, item := range n.Content {
		if line := lineIn(item, path, value); line != 0 {
			return line
		}
	}
	return 0
}

// lineInMapping finds a key. One that stands twice is a mistake where it stands
// the second time.
func lineInMapping(n *yamlv3.Node, path []string, value string) (line int) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, under := n.Content[i], n.Content[i+1]
		if key.Value != path[0] {
			continue
		}
		found := lineIn(under, path[1:], value)
		if found != 0 && len(path) == 1 {
			found = key.Line
		}
		line = max(line, found)
	}
	return line
}

// jsonType is how encoding/json calls what a node is.
func jsonType(n *yamlv3.Node) string {
	switch n.Kind {
	case yamlv3.MappingNode:
		return "object"
	case yamlv3.SequenceNode:
		return "array"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "number"
	case "!!bool":
		return "bool"
	}
	return "string"
}
