package file

import (
	"reflect"
	"testing"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// checkPlain compares plainJSON with the library, where it does not decline.
func checkPlain(t *testing.T, doc []byte) (ok bool) {
	t.Helper()
	js, is, ok := plainJSON(doc)
	if !ok {
		return false
	}
	var got, want any
	twice, err := kjson.UnmarshalStrict(js, &got)
	if err != nil {
		t.Fatalf("not JSON: %v\n%s\nof\n%s", err, js, doc)
	}
	if len(twice) > 0 {
		return false // a key stands twice, which the library refuses as well, if later
	}
	library, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		t.Fatalf("the library refuses: %v\n%s", err, doc)
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(library, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\n got %s\nwant %s", doc, js, library)
	}
	var head kind
	if err := kjson.UnmarshalCaseSensitivePreserveInts(library, &head); err == nil && head != is {
		t.Fatalf("%q: is %v, want %v", doc, is, head)
	}
	return true
}

func TestPlain(t *testing.T) {
	rows := []struct {
		name, doc string
		ok        bool
	}{
		{"mapping", "a: b\nc: 1\n", true},
		{"mark, which split takes away", "---\na: b\n", false},
		{"indented, as an item of a list is", "  a: b\n  c: d\n", true},
		{"nested", "a:\n  b:\n    c: true\n  d: false\ne: x\n", true},
		{"sequence at its key's indentation", "a:\n- x\n- q\nb: z\n", true},
		{"sequence deeper", "a:\n  - x\n  - q\nb: z\n", true},
		{"mappings in a sequence", "a:\n- b: 1\n  c: 2\n- b: 3\n", true},
		{"sequence in a mapping in a sequence", "a:\n- b:\n  - x\n  c:\n    d: 1\n- b:\n  - q\n", true},
		{"wide dash", "a:\n-   b: 1\n    c: 2\n", true},
		{"null values", "a:\nb:\nc:\n  d:\n", true},
		{"empty collections", "a: {}\nb: []\n", true},
		{"quoted kind", "apiVersion: 'v1'\nkind: \"Service\"\n", true},
		{"quoted", "a: \"8080\"\nb: 'true'\nc: \"\"\nd: \"a b: # c\"\n", true},
		{"addresses", "a: 10.0.0.1\nb: 10.0.0.0/8\nc: fd00::1\nd: 2001:db8::1\ne: 2001:db8::/32\nf: ::1\n", false},
		{"addresses that begin well", "a: 10.0.0.1\nb: 10.0.0.0/8\nc: fd00::1\nd: 2001:db8::1\ne: 2001:db8::/32\n", true},
		{"lines of comment", "# one\na: b\n  # two\n\nc: d\n#three", true},
		{"labels", "kubernetes.io/service-name: web\n", true},

		{"empty", "", false},
		{"only comments", "# a\n", false},
		{"a scalar", "hello\n", false},
		{"a sequence", "- a\n", false},
		{"comment after a value", "a: b # c\n", false},
		{"words that are not strings", "a: yes\n", false},
		{"and as keys", "y: 1\n", false},
		{"null", "a: null\n", false},
		{"tilde", "a: ~\n", false},
		{"octal", "a: 0755\n", false},
		{"hexadecimal", "a: 0x10\n", false},
		{"float", "a: 1.5\n", false},
		{"exponent", "a: 1e3\n", false},
		{"underscores", "a: 1_000\n", false},
		{"long number", "a: 12345678901234567890\n", false},
		{"negative", "a: -1\n", false},
		{"sexagesimal", "a: 1:30\n", false},
		{"timestamp", "a: 2024-01-01T00:00:00Z\n", false},
		{"continued", "a: b\n  c\n", false},
		{"continued below", "a:\n  b\n  c\n", false},
		{"block scalar", "a: |\n  b\n", false},
		{"flow", "a: [b]\n", false},
		{"anchor", "a: &x b\n", false},
		{"tag", "a: !!str b\n", false},
		{"merge", "<<: b\n", false},
		{"tab", "a:\tb\n", false},
		{"carriage return", "a: b\r\n", false},
		{"not ASCII", "a: \u00fc\n", false},
		{"escape", `a: "\n"` + "\n", false},
		{"quote in quotes", "a: 'it''s'\n", false},
		{"unterminated", "a: \"b\n", false},
		{"too deep below a scalar", "a: b\n  c: d\n", false},
		{"indentation that fits nowhere", "a:\n    b: 1\n  c: 2\n", false},
		{"two colons", "a: b: c\n", false},
		{"colon at the end", "a: b:\n", false},
		{"nested dashes", "a:\n- - b\n", false},
		{"bare dash", "a:\n-\n  b: 1\n", false},
		{"sequence where a key should be", "a: b\n- c\n", false},
		{"second document", "a: b\n---\nc: d\n", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if ok := checkPlain(t, []byte(row.doc)); ok != row.ok {
				t.Errorf("taken: %v, want %v", ok, row.ok)
			}
		})
	}
}

func FuzzPlain(f *testing.F) {
	for _, doc := range []string{
		serviceYAML("web", "10.96.0.1"), sliceYAML("web-1", "web", 3),
		"a:\n- b:\n  - x\n  c:\n    d: 1\n- b:\n  - y\n", "  a: \"x\"\n  b: 'y'\n  c: 1.1.1.1/8\n", "y: 1\nn: 2::3\n",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) { checkPlain(t, doc) })
}
