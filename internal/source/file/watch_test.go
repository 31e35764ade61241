package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWatch changes a directory in the ways that editors, people and the
// kubelet do. The kernel tells of it in real time, so events are waited for.
func TestWatch(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1))
	told := notes{more: make(chan struct{}, 1)}
	run(t, New(Options{Dir: dir, Settle: time.Millisecond, Poll: time.Hour}), &told)
	await(t, &told, "put service default/s1", "synced")

	do := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(path, data string) error { return os.WriteFile(path, []byte(data), 0o600) }

	do(write(in(".a.yaml.tmp"), svc(2)), os.Rename(in(".a.yaml.tmp"), in("a.yaml")))
	await(t, &told, "put service default/s2", "delete model.ServiceKey {default/s1}")

	do(write(in("b.yaml"), svc(3)))
	await(t, &told, "put service default/s3")

	do(os.Remove(in("b.yaml")))
	await(t, &told, "delete model.ServiceKey {default/s3}")

	// The kubelet's way: the files are links through ..data.
	do(os.Mkdir(in("..1"), 0o700), write(in("..1/c.yaml"), svc(4)), os.Symlink("..1", in("..data")), os.Symlink("..data/c.yaml", in("c.yaml")))
	await(t, &told, "put service default/s4")
	do(os.Mkdir(in("..2"), 0o700), write(in("..2/c.yaml"), svc(5)), os.Symlink("..2", in("..data_tmp")), os.Rename(in("..data_tmp"), in("..data")), os.RemoveAll(in("..1")))
	await(t, &told, "put service default/s5", "delete model.ServiceKey {default/s4}")

	// Another directory under the same name.
	next := mkdir(t, "z.yaml", svc(9))
	do(os.Rename(dir, dir+".away"), os.Rename(next, dir))
	await(t, &told, "put service default/s9", "delete model.ServiceKey {default/s2}", "delete model.ServiceKey {default/s5}")
	do(write(in("y.yaml"), svc(8)))
	await(t, &told, "put service default/s8")
}

// TestWatchThroughLink swaps the link that the directory's name is.
func TestWatchThroughLink(t *testing.T) {
	one, two := mkdir(t, "a.yaml", svc(1)), mkdir(t, "a.yaml", svc(2))
	at := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(one, at); err != nil {
		t.Fatal(err)
	}
	told := notes{more: make(chan struct{}, 1)}
	run(t, New(Options{Dir: at, Settle: time.Millisecond, Poll: time.Hour}), &told)
	await(t, &told, "put service default/s1", "synced")
	if err := os.Symlink(two, at+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at+".tmp", at); err != nil {
		t.Fatal(err)
	}
	await(t, &told, "put service default/s2", "delete model.ServiceKey {default/s1}")
	if err := os.WriteFile(filepath.Join(two, "b.yaml"), []byte(svc(3)), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, &told, "put service default/s3")
}

// await waits until all of these were told; what else comes on the way is a
// directory caught in the middle of a change.
func await(t *testing.T, told *notes, want ...string) {
	t.Helper()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	var got []string
	for {
		got = append(got, told.take()...)
		want = slices.DeleteFunc(want, func(w string) bool {
			return slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) })
		})
		if len(want) == 0 {
			return
		}
		select {
		case <-told.more:
		case <-patience.C:
			t.Fatalf("told %q, still wanted %q", got, want)
		}
	}
}
