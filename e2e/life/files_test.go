package life

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	examplesDir = "../../deploy/examples/life"
	docsDir     = "../../docs"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func matching(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v, %v", pattern, paths, err)
	}
	return paths
}

// TestPictures: every picture is well-formed and shown, and all that it names is
// what the page speaks of.
func TestPictures(t *testing.T) {
	page := read(t, filepath.Join(docsDir, "life-of-a-packet.md"))
	for _, path := range matching(t, filepath.Join(docsDir, "pictures", "*.svg")) {
		name := filepath.Base(path)
		if !strings.Contains(page, "(pictures/"+name+")") {
			t.Errorf("%s is not shown", name)
		}
		words, err := wellFormed(read(t, path))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		addresses := 0
		for _, w := range words {
			if _, err := netip.ParseAddr(w); err != nil {
				if _, err := netip.ParseAddrPort(w); err != nil {
					continue
				}
			}
			addresses++
			if !strings.Contains(page, w) {
				t.Errorf("%s: the page does not speak of %s", name, w)
			}
		}
		if addresses < 5 {
			t.Errorf("%s has %d addresses", name, addresses)
		}
		for i, w := range words {
			if w == "pod" && !strings.Contains(page, "`"+words[i+1]+"`") && !strings.Contains(page, words[i+1]) {
				t.Errorf("%s: the page does not speak of pod %s", name, words[i+1])
			}
		}
	}
	for _, m := range regexp.MustCompile(`\(pictures/([^)]+)\)`).FindAllStringSubmatch(page, -1) {
		read(t, filepath.Join(docsDir, "pictures", m[1]))
	}
}

// TestExamplesAreUsed: every example is applied by a page or the world.
func TestExamplesAreUsed(t *testing.T) {
	var all strings.Builder
	for _, path := range append(matching(t, "testdata/*.tmpl"), "world_lab_test.go") {
		all.WriteString(read(t, path))
	}
	for _, path := range matching(t, filepath.Join(examplesDir, "*.yaml")) {
		if name := filepath.Base(path); !strings.Contains(all.String(), `"`+name+`"`) {
			t.Errorf("%s is used nowhere", name)
		}
	}
}

// slug is the anchor that a heading has on GitHub.
func slug(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#")))
	heading = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
	return strings.ReplaceAll(heading, " ", "-")
}

// TestLinks: what the documents lead to is there, anchors too.
func TestLinks(t *testing.T) {
	pages := append(matching(t, filepath.Join(docsDir, "*.md")), matching(t, filepath.Join(docsDir, "decisions", "*.md"))...)
	pages = append(pages, "../../README.md", "../README.md")
	for _, page := range pages {
		text := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(read(t, page), "")
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, path)), anchor) {
				t.Errorf("%s: %s has no heading for #%s", page, path, anchor)
			}
		}
	}
}

func anchors(text string) (list []string) {
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			list = append(list, slug(line))
		}
	}
	return list
}

func TestSlug(t *testing.T) {
	for heading, want := range map[string]string{
		"## NodePort, policy Local":     "nodeport-policy-local",
		"### What `x` is: [a](b.md)":    "what-x-is-a",
		"## A load-balancer IP pending": "a-load-balancer-ip-pending",
	} {
		if got := slug(heading); got != want {
			t.Errorf("%s: %s, want %s", heading, got, want)
		}
	}
}
