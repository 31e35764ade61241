package proxyconfig

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/kube-proxy/config/v1alpha1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kubeProxy reads a KubeProxyConfiguration as kube-proxy does: case matters,
// and what is not known is passed over with a note.
func (p part) kubeProxy(d *Document) error {
	js, err := yaml.YAMLToJSON(p.text)
	if err != nil {
		return fmt.Errorf("%s: this is no YAML: %w", d.At, err)
	}
	var c v1alpha1.KubeProxyConfiguration
	if err := kjson.UnmarshalCaseSensitivePreserveInts(js, &c); err != nil {
		return p.blame(err)
	}
	said := map[string]leaf{}
	for _, l := range leaves(reflect.ValueOf(c), "") {
		said[l.path] = l
	}
	for _, f := range Fields() {
		l := said[f.Path]
		if l.unset() {
			continue
		}
		p.field(d, string(c.Mode), f, l)
	}
	p.strangers(d, said)
	return nil
}

// field is one field that is set to something.
func (p part) field(d *Document, mode string, f Field, l leaf) {
	at, values := p.at(lineOf(p.root, f.Path), f.Path), l.values()
	why := f.Why
	switch {
	case f.Flag == "":
	case f.Modes != nil && !slices.Contains(f.Modes, cmp.Or(mode, ModeIPTables)):
		why = fmt.Sprintf("kube-proxy reads it in the mode %s, and the mode is %s", strings.Join(f.Modes, " or "), cmp.Or(mode, "not set"))
	default:
		d.Settings = append(d.Settings, Setting{Flag: f.Flag, Values: values, At: at})
		return
	}
	d.Notes = append(d.Notes, Note{At: at, Value: strings.Join(values, ","), Why: why})
}

// strangers notes what stands in the document and is no field, or stands there
// twice.
func (p part) strangers(d *Document, known map[string]leaf) {
	names := slices.Sorted(maps.Keys(known))
	branch := func(path string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, path+".") })
	}
	var walk func(n *yamlv3.Node, under string)
	walk = func(n *yamlv3.Node, under string) {
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], target(n.Content[i+1])
			path := strings.TrimPrefix(under+"."+name.Value, ".")
			_, is := known[path]
			note := Note{At: p.at(name.Line, path), Value: oneLine(value), Unknown: true}
			switch {
			case path == "apiVersion" || path == "kind" || name.Value == "<<":
			case seen[name.Value]:
				note.Why = "it stands in this object twice, and the last one counts"
				d.Notes = append(d.Notes, note)
			case !is && !branch(path):
				note.Why = "kube-proxy has no such field"
				if meant := nearest(path, names); meant != "" {
					note.Why += "; is " + meant + " meant?"
				}
				d.Notes = append(d.Notes, note)
			case !is && value.Kind == yamlv3.MappingNode:
				walk(value, path)
			}
			seen[name.Value] = true
		}
	}
	walk(p.root, "")
}

func oneLine(n *yamlv3.Node) string {
	if n.Kind == yamlv3.ScalarNode {
		return n.Value
	}
	return shown(n)
}

// blame finds the field for which a document cannot be decoded: the first that
// cannot be when it is alone.
func (p part) blame(whole error) error {
	var all []error
	var walk func(n *yamlv3.Node, path []string)
	walk = func(n *yamlv3.Node, path []string) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			here := append(slices.Clone(path), n.Content[i].Value)
			value := target(n.Content[i+1])
			err := alone(here, value)
			before := len(all)
			if err != nil && value.Kind == yamlv3.MappingNode {
				walk(value, here)
			}
			if err != nil && len(all) == before { // nothing below it is to blame
				at := p.at(n.Content[i].Line, strings.Join(here, "."))
				all = append(all, fmt.Errorf("%s: %s: %s", at, oneLine(value), reasonOf(err)))
			}
		}
	}
	walk(p.root, nil)
	if len(all) == 0 {
		return fmt.Errorf("%s: %w", p.at(p.root.Line, ""), whole)
	}
	return errors.Join(all...)
}

// alone decodes a document that has one field only.
func alone(path []string, n *yamlv3.Node) error {
	text, err := yamlv3.Marshal(n)
	if err != nil {
		return fmt.Errorf("write it anew: %w", err)
	}
	js, err := yaml.YAMLToJSON(text)
	if err != nil {
		return fmt.Errorf("make JSON of it: %w", err)
	}
	for _, name := range slices.Backward(path) {
		js, err = json.Marshal(map[string]json.RawMessage{name: js})
		if err != nil {
			return fmt.Errorf("write it anew: %w", err)
		}
	}
	var c v1alpha1.KubeProxyConfiguration
	return kjson.UnmarshalCaseSensitivePreserveInts(js, &c)
}

func reasonOf(err error) string {
	if wrong, is := errors.AsType[*json.UnmarshalTypeError](err); is {
		return fmt.Sprintf("it is of type %s, and %s is needed", wrong.Value, wrong.Type)
	}
	return err.Error()
}

// lineOf is the line on which a field of a document stands, from 1.
func lineOf(root *yamlv3.Node, path string) int {
	n, line := root, root.Line
	for name := range strings.SplitSeq(path, ".") {
		n = target(n)
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				line = n.Content[i].Line
			}
		}
		if n = under(n, name); n == nil {
			break
		}
	}
	return line
}

// leaf is a field of a configuration that has no fields of its own.
type leaf struct {
	path  string
	value reflect.Value
}

// leaves are those of a value, by the names that they have in a file.
func leaves(v reflect.Value, path string) []leaf {
	if v.Kind() != reflect.Struct || reflect.PointerTo(v.Type()).Implements(reflect.TypeFor[json.Marshaler]()) {
		return []leaf{{path, v}}
	}
	var out []leaf
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Name == "TypeMeta":
		case strings.Contains(options, "inline"):
			out = append(out, leaves(v.Field(i), path)...)
		default:
			out = append(out, leaves(v.Field(i), strings.TrimPrefix(path+"."+name, "."))...)
		}
	}
	return out
}

// json is the leaf as a file has it.
func (l leaf) json() []byte {
	js, err := json.Marshal(l.value.Interface())
	if err != nil {
		return []byte("null")
	}
	return js
}

// unset reports whether a leaf is as if the file said nothing of it. A pointer
// is there to tell that from 0.
func (l leaf) unset() bool {
	if l.value.Kind() == reflect.Pointer {
		return l.value.IsNil()
	}
	switch string(l.json()) {
	case "null", "0", `"0"`, `"0s"`, `""`, "false", "[]", "{}":
		return true
	}
	return false
}

// values are the leaf's words.
func (l leaf) values() []string {
	var list []string
	if json.Unmarshal(l.json(), &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal(l.json(), &text) == nil {
		return []string{text}
	}
	var table map[string]bool
	if json.Unmarshal(l.json(), &table) == nil {
		for _, k := range slices.Sorted(maps.Keys(table)) {
			list = append(list, fmt.Sprintf("%s=%t", k, table[k]))
		}
		return list
	}
	return []string{string(bytes.TrimSpace(l.json()))}
}
