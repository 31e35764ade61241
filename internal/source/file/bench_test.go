package file

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"
)

const benchSize = 10000

func total(texts []text) (n int64) {
	for _, t := range texts {
		n += int64(len(t.data))
	}
	return n
}

// busy reports the processor time of each round, which a busy machine changes
// less than the time that passes.
func busy(b *testing.B) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	b.Cleanup(func() {
		b.ReportMetric(float64((used()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
	})
}

// BenchmarkFirst reads 10,000 Services and 10,000 EndpointSlices of ten
// endpoints from four files.
func BenchmarkFirst(b *testing.B) {
	texts := big(4, benchSize, "yaml")
	b.SetBytes(total(texts))
	b.ReportAllocs()
	busy(b)
	for b.Loop() {
		m := newMemory(quiet())
		m.take(texts)
		if n := len(m.events()); n != 2*benchSize {
			b.Fatalf("%d events", n)
		}
	}
}

// BenchmarkFirstUnusual is the same in a style that the YAML library has to
// read.
func BenchmarkFirstUnusual(b *testing.B) {
	texts := big(4, benchSize, "yaml")
	for i := range texts {
		texts[i].data = bytes.ReplaceAll(texts[i].data, []byte("metadata:\n"), []byte("metadata: # x\n"))
	}
	b.SetBytes(total(texts))
	b.ReportAllocs()
	busy(b)
	for b.Loop() {
		m := newMemory(quiet())
		m.take(texts)
		if n := len(m.events()); n != 2*benchSize {
			b.Fatalf("%d events", n)
		}
	}
}

// BenchmarkFirstJSON is the same as two Lists in JSON, as kubectl prints them.
func BenchmarkFirstJSON(b *testing.B) {
	var services, slices []string
	for i := range benchSize {
		for _, doc := range []string{
			serviceYAML(fmt.Sprintf("svc-%d", i), fmt.Sprintf("10.%d.%d.%d", 96+i>>16, i>>8&255, i&255)),
			sliceYAML(fmt.Sprintf("svc-%d-x", i), fmt.Sprintf("svc-%d", i), 10),
		} {
			js, _, ok := plainJSON([]byte(doc))
			if !ok {
				b.Fatal(doc)
			}
			if strings.Contains(doc, "EndpointSlice") {
				slices = append(slices, string(js))
			} else {
				services = append(services, string(js))
			}
		}
	}
	list := func(items []string) []byte {
		return []byte(`{"apiVersion":"v1","kind":"List","items":[` + strings.Join(items, ",\n") + "]}")
	}
	texts := []text{{path: "a.json", data: list(services)}, {path: "b.json", data: list(slices)}}
	b.SetBytes(total(texts))
	b.ReportAllocs()
	busy(b)
	for b.Loop() {
		m := newMemory(quiet())
		m.take(texts)
		if n := len(m.events()); n != 2*benchSize {
			b.Fatalf("%d events", n)
		}
	}
}

// BenchmarkLibrary is what sigs.k8s.io/yaml alone takes for it.
func BenchmarkLibrary(b *testing.B) {
	texts := big(4, benchSize, "yaml")
	b.SetBytes(total(texts))
	b.ReportAllocs()
	busy(b)
	for b.Loop() {
		for _, t := range texts {
			for doc := range bytes.SplitSeq(t.data, []byte("---\n")) {
				var err error
				if bytes.Contains(doc, []byte("EndpointSlice")) {
					err = yaml.UnmarshalStrict(doc, new(discoveryv1.EndpointSlice))
				} else {
					err = yaml.UnmarshalStrict(doc, new(corev1.Service))
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkOneLine reads a directory of that size again after a change of one
// line.
func BenchmarkOneLine(b *testing.B) {
	dir := b.TempDir()
	texts := big(4, benchSize, "yaml")
	for _, t := range texts {
		if err := os.WriteFile(filepath.Join(dir, t.path), t.data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	m := newMemory(quiet())
	read := func() {
		texts, err := readDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		m.take(texts)
	}
	read()
	m.events()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		changed := bytes.Replace(texts[1].data, []byte("port: 80\n"), fmt.Appendf(nil, "port: %d\n", 81+i%1000), 1)
		if err := os.WriteFile(filepath.Join(dir, texts[1].path), changed, 0o600); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		read()
		if n := len(m.events()); n != 1 {
			b.Fatalf("%d events", n)
		}
	}
}

// BenchmarkUnchanged is what a poll costs.
func BenchmarkUnchanged(b *testing.B) {
	dir := b.TempDir()
	for _, t := range big(4, benchSize, "yaml") {
		if err := os.WriteFile(filepath.Join(dir, t.path), t.data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	m := newMemory(quiet())
	read := func() {
		texts, err := readDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		m.take(texts)
	}
	read()
	busy(b)
	for b.Loop() {
		read()
	}
}
