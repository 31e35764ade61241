package proxyconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// The kinds of documents that are read, and their versions.
const (
	KubeProxyVersion = "kubeproxy.config.k8s.io/v1alpha1"
	KubeProxyKind    = "KubeProxyConfiguration"
	AgentVersion     = "config.sluice.dev/v1alpha1"
	AgentKind        = "AgentConfiguration"
)

// Document is what one document of a file says.
type Document struct {
	Kind     string
	At       Place
	Settings []Setting
	Notes    []Note
}

// Setting is a flag as a file sets it.
type Setting struct {
	Flag   string   // without dashes
	Values []string // in the flag's words; more than one for a list only
	At     Place
}

// Note is something that has no effect.
type Note struct {
	At    Place
	Value string
	Why   string
	// Unknown: it is no field at all, and so may be a mistake.
	Unknown bool
}

// Place is where something is said.
type Place struct {
	File  string // "": on the command line
	Line  int    // from 1
	Field string // such as "ipvs.scheduler" or "--v"; "": the document
}

// String is "file:line: field", as compilers say it.
func (p Place) String() string {
	switch {
	case p.File == "":
		return p.Field
	case p.Field == "":
		return p.Where()
	}
	return p.Where() + ": " + p.Field
}

// Where is "file:line"; "": on the command line.
func (p Place) Where() string {
	if p.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Read reads the documents of a file. Keys are what an AgentConfiguration may
// say. An error names every mistake, one on a line.
func Read(path string, data []byte, keys Keys) ([]Document, error) {
	var docs []Document
	var errs []error
	for _, p := range split(path, data) {
		doc, err := p.read(keys)
		switch {
		case err != nil:
			errs = append(errs, err)
		case doc != nil:
			docs = append(docs, *doc)
		}
	}
	if len(docs)+len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: there is no document in it; write a %s or an %s", path, KubeProxyKind, AgentKind))
	}
	return docs, errors.Join(errs...)
}

// part is the text of one document.
type part struct {
	file string
	line int // of the file, on which the text begins; from 1
	text []byte
	root *yamlv3.Node // a mapping
}

// split cuts a file at the lines that begin with "---", which stay with what
// follows them.
func split(path string, data []byte) []part {
	parts := []part{{file: path, line: 1}}
	n := 1
	for line := range bytes.Lines(data) {
		if rest, marked := bytes.CutPrefix(line, []byte("---")); marked && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			parts = append(parts, part{file: path, line: n})
		}
		last := &parts[len(parts)-1]
		last.text = append(last.text, line...)
		n++
	}
	return parts
}

// at is a place in the part; the line counts from the part's first.
func (p part) at(line int, field string) Place {
	return Place{File: p.file, Line: p.line + max(line, 1) - 1, Field: field}
}

// read reads a document; nil: there is none between the marks.
func (p part) read(keys Keys) (*Document, error) {
	var doc yamlv3.Node
	if err := yamlv3.Unmarshal(p.text, &doc); err != nil {
		return nil, fmt.Errorf("%s: this is no YAML: %w (lines counted from there)", p.at(1, ""), err)
	}
	if doc.Kind == 0 || len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	p.root = doc.Content[0]
	if p.root.Kind != yamlv3.MappingNode {
		return nil, fmt.Errorf("%s: this is no object; write apiVersion, kind and fields", p.at(p.root.Line, ""))
	}
	version, kind := p.word("apiVersion"), p.word("kind")
	d := &Document{Kind: kind, At: p.at(p.root.Line, "")}
	var err error
	switch {
	case version == KubeProxyVersion && kind == KubeProxyKind:
		err = p.kubeProxy(d)
	case version == AgentVersion && kind == AgentKind:
		err = p.agent(keys, d)
	default:
		err = fmt.Errorf("%s: apiVersion %q, kind %q: %s", d.At, version, kind, remedyOf(kind))
	}
	return d, err
}

// word is what stands at a key of the document; "": nothing, or no word.
func (p part) word(key string) string {
	if n := under(p.root, key); n != nil && n.Kind == yamlv3.ScalarNode {
		return n.Value
	}
	return ""
}

// remedyOf says what to write instead of a document of another kind.
func remedyOf(kind string) string {
	switch kind {
	case "ConfigMap":
		return "give what stands in the ConfigMap at the key config.conf, without the ConfigMap around it"
	case KubeProxyKind:
		return "of this kind, " + KubeProxyVersion + " is read"
	case AgentKind:
		return "of this kind, " + AgentVersion + " is read"
	}
	return fmt.Sprintf("use kind %s of %s, or %s of %s", KubeProxyKind, KubeProxyVersion, AgentKind, AgentVersion)
}

// under is what a mapping has at a key, the last if it stands there more than
// once; nil: nothing.
func under(n *yamlv3.Node, key string) (found *yamlv3.Node) {
	n = target(n)
	if n.Kind != yamlv3.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			found = n.Content[i+1]
		}
	}
	return found
}

// target is the node that an alias stands for, or the node itself.
func target(n *yamlv3.Node) *yamlv3.Node {
	if n.Kind == yamlv3.AliasNode {
		return n.Alias
	}
	return n
}
