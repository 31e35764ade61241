package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// yamlOf is a step's objects as one file.
func yamlOf(t *testing.T, step sourcetest.Step) string {
	t.Helper()
	docs := []string{"# " + step.Name + "\n"}
	for _, o := range step.Objects {
		doc, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(doc))
	}
	return strings.Join(docs, "---\n")
}

func TestLives(t *testing.T) {
	for _, life := range sourcetest.Lives() {
		t.Run(life.Name, func(t *testing.T) {
			dir := mkdir(t)
			synctest.Test(t, func(t *testing.T) {
				told := sourcetest.NewPicture(t, source.File)
				s, bell := New(Options{Dir: dir}), newBell()
				s.notify = func(string) (notifier, error) { return bell, nil }
				run(t, s, told)
				synctest.Wait()
				path := filepath.Join(dir, "life.yaml")
				for _, step := range life.Steps {
					if err := os.WriteFile(path, []byte(yamlOf(t, step)), 0o600); err != nil {
						t.Fatal(err)
					}
					bell.ev <- fsnotify.Event{Name: path, Op: fsnotify.Write}
					time.Sleep(2 * settleDefault)
					synctest.Wait()
					told.Expect(t, step.Name, step.Want)
				}
				if !told.Synced() {
					t.Error("never synced")
				}
			})
		})
	}
}

// TestSyncedOnce: whatever happens to the files, and even when the source is run
// a second time.
func TestSyncedOnce(t *testing.T) {
	dir := mkdir(t, "a.yaml", "kind: nonsense\n")
	synctest.Test(t, func(t *testing.T) {
		told := sourcetest.NewPicture(t, source.File)
		s, bell := New(Options{Dir: dir}), newBell()
		s.notify = func(string) (notifier, error) { return bell, nil }
		stop := run(t, s, told)
		path := filepath.Join(dir, "a.yaml")
		for _, data := range []string{svc(1), "kind: nonsense\n", "", svc(2)} {
			if synctest.Wait(); told.Synced() && data == svc(1) {
				t.Error("synced before the file could be read")
			}
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
			bell.ev <- fsnotify.Event{Name: path, Op: fsnotify.Write}
			time.Sleep(2 * pollDefault)
		}
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * pollDefault)
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * pollDefault)
		stop()
		run(t, s, told)
		synctest.Wait()
		told.Expect(t, "at last", []string{"service default/s2 : [10.96.0.2], 80/TCP, app s2"})
		if !told.Synced() {
			t.Error("never synced")
		}
	})
}
