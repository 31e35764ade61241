package file

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestSplit(t *testing.T) {
	rows := []struct {
		name, data string
		want       []string // "line: text", items with what their list says they are
	}{
		{"empty", "", nil},
		{"blank", "\n  \n", nil},
		{"one", "a: b\n", []string{"1: a: b\n"}},
		{"byte order mark", "\xef\xbb\xbfa: b\n", []string{"1: a: b\n"}},
		{"marks", "---\na: b\n---\nc: d\n", []string{"2: a: b\n", "4: c: d\n"}},
		{"marks without content", "---\n---\n# nothing\n---\na: b\n---\n", []string{"5: a: b\n"}},
		{"content on the mark", "a: b\n--- {c: d}\n", []string{"1: a: b\n", "2: --- {c: d}\n"}},
		{"windows", "a: b\r\n---\r\nc: d\r\n", []string{"1: a: b\r\n", "3: c: d\r\n"}},
		{"no mark", "a: b\n----\n ---\n---x: y\n", []string{"1: a: b\n----\n ---\n---x: y\n"}},
		{"end marks", "a: b\n...\nc: d\n...\n", []string{"1: a: b\n", "3: c: d\n"}},
		{"directives", "%YAML 1.2\n# c\n---\na: b\n", []string{"4: a: b\n"}},
		{"JSON", "{\"a\":1}", []string{`1: {"a":1}`}},
		{"JSON one after another", "\n{\"a\":\n1}\n\n{\"b\":2} {\"c\":3}\n", []string{"2: {\"a\":\n1}", `5: {"b":2}`, `5: {"c":3}`}},
		{"JSON after YAML", "a: b\n---\n{\"b\":2}\n", []string{"1: a: b\n", `3: {"b":2}`}},
		{"braces that are not JSON", "{a: b}\n", []string{"1: {a: b}"}},
		{
			"JSON list", "{\"apiVersion\":\"v1\",\n\"items\":[\n{\"a\":\n1},\n {\"b\":2}\n],\"kind\":\"List\"}",
			[]string{"3 item: {\"a\":\n1}", `5 item: {"b":2}`},
		},
		{
			"JSON list of a kind", `{"kind":"ServiceList","apiVersion":"v1","metadata":{"x":[]},"items":[{"a":1}]}`,
			[]string{`1 item v1 Service: {"a":1}`},
		},
		{"JSON with items that is no list", `{"kind":"X","items":[{"a":1}]}`, []string{`1: {"kind":"X","items":[{"a":1}]}`}},
		{"JSON list with a comma too many", `{"kind":"List","items":[{"a":1},]}`, []string{`1: {"kind":"List","items":[{"a":1},]}`}},
		{"JSON list without a comma", `{"kind":"List","items":[{"a":1}{"b":1}]}`, []string{`1: {"kind":"List","items":[{"a":1}{"b":1}]}`}},
		{"JSON list with keys twice", `{"kind":"List","items":[{"a":1}],"items":[]}`, []string{`1: {"kind":"List","items":[{"a":1}],"items":[]}`}},
		{"JSON list with odd values", `{"kind":5,"items":[{"a":1}]}`, []string{`1: {"kind":5,"items":[{"a":1}]}`}},
		{"JSON with brackets in strings", `{"kind":"List","items":[{"a":"}]\\\"{","b":-1.5e3},{"c":[null,{}]}]}`, []string{`1 item: {"a":"}]\\\"{","b":-1.5e3}`, `1 item: {"c":[null,{}]}`}},
		{"JSON that does not end", `{"kind":"List","items":[{"a":"}`, []string{`1: {"kind":"List","items":[{"a":"}`}},
		{"JSON list without items", `{"kind":"List","items":[]}`, []string{`1: {"kind":"List","items":[]}`}},
		{"JSON list with null items", `{"kind":"List","items":null}`, []string{`1: {"kind":"List","items":null}`}},
		{
			"list as kubectl prints it", "apiVersion: v1\nitems:\n- a: b\n  c:\n  - d\n- a: e\nkind: List\nmetadata:\n  resourceVersion: \"\"\n",
			[]string{"3 item:   a: b\n  c:\n  - d\n", "6 item:   a: e\n"},
		},
		{
			"list with deeper items and comments", "---\n# list\nkind: ServiceList\napiVersion: v1\nmetadata: {}\nitems:\n  # first\n  - a: b\n    # within\n\n    c: d\n  - a: e\n",
			[]string{"8 item v1 Service:     a: b\n    # within\n\n    c: d\n", "12 item v1 Service:     a: e\n"},
		},
		{"flow items", "kind: List\nitems: []\n", []string{"1: kind: List\nitems: []\n"}},
		{"items of no list", "kind: Other\nitems:\n- a: b\n", []string{"1: kind: Other\nitems:\n- a: b\n"}},
		{"items twice", "kind: List\nitems:\n- a: b\nitems:\n- c: d\n", []string{"1: kind: List\nitems:\n- a: b\nitems:\n- c: d\n"}},
		{"other keys", "kind: List\nspec: x\nitems:\n- a: b\n", []string{"1: kind: List\nspec: x\nitems:\n- a: b\n"}},
		{"kind with a comment", "kind: List # x\nitems:\n- a: b\n", []string{"1: kind: List # x\nitems:\n- a: b\n"}},
		{"a text at the margin", "kind: List\nitems:\n- a: \"b\nc\"\n", []string{"1: kind: List\nitems:\n- a: \"b\nc\"\n"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			for _, p := range split([]byte(row.data), true) {
				where := fmt.Sprint(p.line)
				if p.item {
					where = strings.TrimSpace(where + " item " + p.of.APIVersion + " " + p.of.Kind)
				}
				got = append(got, where+": "+string(p.body()))
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

// FuzzSplitLists: if every item of a list that was cut can be read as an object,
// then so can the whole, and it holds the same.
func FuzzSplitLists(f *testing.F) {
	for _, data := range []string{
		"apiVersion: v1\nitems:\n- a: b\n  c:\n  - d\n- a: e\nkind: List\n",
		"kind: List\nitems:\n  - a: |\n      x\n      - y\n  - a: \"b\n    c\"\n",
		"kind: List\nitems:\n- a: &x b\n- a: *x\n",
		"kind: List\nitems:\n- 'a\n- b'\n", "kind: XList\nitems:\n- a: >\n    b\n\n  c: d\nmetadata:\n  a: b\n",
		`{"kind":"List","items":[{"a":1},{"b":[{}]}]}`, "kind: List\nmetadata:\n  - items:\nitems:\n- {a: b}\n- [c]\n# d\n",
		// What was cut wrongly once.
		"kind: List\nitems:\n- {0000}00", "kind: List\nitems:\n- 0:\n 00", "kind: List\nitems:\n-  0:\n  0", "kind: List\nitems:\n- A: \r0", "kind:List\nitems:\n- 0",
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		parts := split([]byte(data), true)
		if len(documents([]byte(data))) != 1 || !slices.ContainsFunc(parts, func(p part) bool { return p.item }) {
			return
		}
		var items []any
		for _, p := range parts {
			var item map[string]any
			if p.json && !json.Valid(p.text) {
				return
			}
			if err := yaml.UnmarshalStrict(p.body(), &item); err != nil || item == nil {
				return
			}
			items = append(items, item)
		}
		var whole struct {
			Kind  string `json:"kind"`
			Items []any  `json:"items"`
		}
		js, err := yaml.YAMLToJSONStrict([]byte(data))
		if err == nil {
			err = json.Unmarshal(js, &whole)
		}
		if err != nil {
			t.Fatalf("%q cannot be read as a whole: %v", data, err)
		}
		if !reflect.DeepEqual(items, whole.Items) || !strings.HasSuffix(whole.Kind, "List") {
			t.Fatalf("%q\n got %v\nwant %v", data, items, whole)
		}
	})
}
