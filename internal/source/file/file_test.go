package file

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

// notes keeps what was told, one line for each event.
type notes struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // has something when there is something new
}

func (n *notes) Event(e model.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line(e))
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.lines
	n.lines = nil
	return got
}

// bell is a notifier that tests ring.
type bell struct {
	ev      chan fsnotify.Event
	err     chan error
	renewed chan struct{}
	fails   error // of renew
}

func newBell() *bell {
	return &bell{ev: make(chan fsnotify.Event), err: make(chan error), renewed: make(chan struct{}, 100)}
}

func (b *bell) events() <-chan fsnotify.Event { return b.ev }
func (b *bell) errors() <-chan error          { return b.err }
func (b *bell) close()                        {}
func (b *bell) renew() error {
	b.renewed <- struct{}{}
	return b.fails
}

// desk is a running source over a real directory, in a bubble.
type desk struct {
	t    *testing.T
	dir  string
	told notes
	bell *bell
	log  bytes.Buffer
}

func sit(t *testing.T, dir string) *desk {
	t.Helper()
	d := &desk{t: t, dir: dir, bell: newBell(), told: notes{more: make(chan struct{}, 1)}}
	s := New(Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&d.log, nil))})
	s.notify = func(string) (notifier, error) { return d.bell, nil }
	run(t, s, &d.told)
	return d
}

func run(t *testing.T, s *Source, told source.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, told) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (d *desk) write(name, data string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(data), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) ring(name string) {
	d.bell.ev <- fsnotify.Event{Name: filepath.Join(d.dir, name), Op: fsnotify.Write}
}

func (d *desk) expect(want ...string) {
	d.t.Helper()
	synctest.Wait()
	if got := d.told.take(); !slices.EqualFunc(got, want, strings.HasPrefix) {
		d.t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// mkdir makes a directory with files: name, data, name, data.
func mkdir(t *testing.T, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "objects")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(files, 2) {
		if err := os.WriteFile(filepath.Join(dir, pair[0]), []byte(pair[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFirstReading(t *testing.T) {
	dir := mkdir(t, "b.yaml", svc(2), "a.yml", svc(1), "c.json", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}`,
		".hidden.yaml", svc(3), "notes.txt", "x", "d.yaml~", svc(4))
	if err := os.Mkdir(filepath.Join(dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.expect("put service default/s1", "put service default/s2", "put node n1", "synced")
		time.Sleep(time.Hour) // polls find nothing new
		d.expect()
	})
}

func TestEmptyDirectory(t *testing.T) {
	dir := mkdir(t)
	synctest.Test(t, func(t *testing.T) {
		sit(t, dir).expect("synced")
	})
}

func TestNoDirectory(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	err := New(Options{Dir: missing}).Run(t.Context(), &notes{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
}

func TestChangesSettle(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1))
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.expect("put service default/s1", "synced")
		began := time.Now()
		for range 5 { // an editor at work
			d.write("a.yaml", svc(2))
			d.ring("a.yaml")
			time.Sleep(settleDefault / 2)
			d.expect()
		}
		time.Sleep(settleDefault/2 + 1)
		d.expect("put service default/s2", "delete model.ServiceKey {default/s1}")
		if took := time.Since(began); took > 4*settleDefault {
			t.Errorf("after %v", took)
		}

		began = time.Now()
		d.write("a.yaml", svc(3))
		for len(d.told.take()) == 0 { // something that never stops
			d.ring("a.yaml")
			time.Sleep(settleDefault / 4)
			synctest.Wait()
			if time.Since(began) > time.Minute {
				t.Fatal("never read")
			}
		}
		if took := time.Since(began); took < settleMost*settleDefault || took > (settleMost+1)*settleDefault {
			t.Errorf("read after %v", took)
		}

		d.write("a.yaml", svc(4))
		d.ring("a.yaml.swp")
		d.ring(".a.yaml.kate")
		time.Sleep(10 * settleDefault)
		d.expect() // nobody told of it
		time.Sleep(pollDefault)
		d.expect("put service default/s4", "delete model.ServiceKey {default/s3}")

		d.write("a.yaml", svc(5))
		d.ring("..data")
		time.Sleep(2 * settleDefault)
		d.expect("put service default/s5", "delete model.ServiceKey {default/s4}")

		d.write("a.yaml", svc(6))
		d.bell.err <- fsnotify.ErrEventOverflow
		time.Sleep(2 * settleDefault)
		d.expect("put service default/s6", "delete model.ServiceKey {default/s5}")
	})
}

func TestSyncedWaitsForBadFiles(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1), "b.yaml", svc(2)+"---\napiVersion: v1\nkind: nonsense\n")
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		bad := filepath.Join(dir, "b.yaml")
		d.expect("put service default/s1", "problem InvalidFile "+bad+": "+bad+":22: v1 has no kind")
		time.Sleep(10 * pollDefault)
		d.expect()
		if log := d.log.String(); strings.Count(log, "nothing is deleted before these files can be read") != 1 || !strings.Contains(log, bad+":22") {
			t.Errorf("log: %s", log)
		}
		d.write("b.yaml", svc(2))
		d.ring("b.yaml")
		time.Sleep(2 * settleDefault)
		d.expect("put service default/s2", "synced")
		d.write("b.yaml", "nonsense")
		d.ring("b.yaml")
		time.Sleep(2 * settleDefault)
		d.expect("problem InvalidFile")
	})
}

func TestSyncedComesWhenTheBadFileGoes(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1), "b.yaml", "")
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.expect("put service default/s1", "problem InvalidFile")
		if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
			t.Fatal(err)
		}
		d.ring("b.yaml")
		time.Sleep(2 * settleDefault)
		d.expect("synced")
	})
}

func TestVanishedDirectory(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1))
	away := dir + ".away"
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.expect("put service default/s1", "synced")
		d.bell.fails = os.ErrNotExist
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		d.bell.ev <- fsnotify.Event{Name: dir, Op: fsnotify.Rename}
		time.Sleep(10 * pollDefault)
		d.expect("problem DirectoryUnreadable " + dir)
		if n := strings.Count(d.log.String(), "directory cannot be read"); n != 1 {
			t.Errorf("said %d times:\n%s", n, &d.log)
		}
		d.bell.fails = nil
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		d.write("a.yaml", svc(2))
		for len(d.bell.renewed) > 0 {
			<-d.bell.renewed
		}
		d.bell.ev <- fsnotify.Event{Name: dir, Op: fsnotify.Create}
		<-d.bell.renewed
		time.Sleep(2 * settleDefault)
		d.expect("put service default/s2", "delete model.ServiceKey {default/s1}")
	})
}

func TestOddFiles(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1))
	if err := os.Symlink("nowhere", filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "c.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		b, c := filepath.Join(dir, "b.yaml"), filepath.Join(dir, "c.yaml")
		d.expect("put service default/s1", "problem InvalidFile "+b, "problem InvalidFile "+c+": "+c+": "+c+" is not a regular file")
	})
}

func TestWithoutWatch(t *testing.T) {
	dir := mkdir(t, "a.yaml", svc(1))
	synctest.Test(t, func(t *testing.T) {
		told := notes{more: make(chan struct{}, 1)}
		s := New(Options{Dir: dir, Poll: time.Second})
		s.notify = func(string) (notifier, error) { return nil, syscall.EMFILE }
		run(t, s, &told)
		d := desk{t: t, dir: dir}
		time.Sleep(2500 * time.Millisecond) // not when it polls, which is not to see the file half written
		d.write("a.yaml", svc(2))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want := []string{"put service default/s1", "synced", "put service default/s2", "delete model.ServiceKey {default/s1}"}
		if got := told.take(); !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("told %q", got)
		}
	})
}
