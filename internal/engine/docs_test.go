package engine_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKnownFaults: the tests that docs/known-faults.md calls as witnesses exist.
func TestKnownFaults(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "known-faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{} // by directory: all its tests' text
	witness := regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)(?:/([a-z-]+))?`")
	found := 0
	for _, m := range witness.FindAllStringSubmatch(string(text), -1) {
		dir, name, script := m[1], m[2], m[3]
		found++
		if _, read := known[dir]; !read {
			known[dir] = testsOf(t, filepath.Join(root, filepath.FromSlash(dir)))
		}
		if !strings.Contains(known[dir], "\nfunc "+name+"(") {
			t.Errorf("docs/known-faults.md: there is no %s in %s", name, dir)
		}
		if script == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join("testdata", script+".txtar")); err != nil {
			t.Errorf("docs/known-faults.md: %v", err)
		}
	}
	if found < 100 {
		t.Errorf("docs/known-faults.md names %d tests", found)
	}
}

func testsOf(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}
