package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func peerYAML(name string, more ...string) string {
	return own("BGPPeer", name, append([]string{"peerAddress: 192.0.2.1", "peerASN: 64513", "myASN: 64512"}, more...)...)
}

// says compares what was told since with beginnings of lines.
func (d *desk) says(when string, want ...string) {
	d.t.Helper()
	synctest.Wait()
	got := d.told.take()
	slices.Sort(got)
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		d.t.Errorf("%s: told\n\t%s\nwant\n\t%s", when, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestPasswordFile: a password in a file counts as the peer's own text does. One
// in the directory is read again when it changes, another with the next poll;
// while it cannot be read the peer stays as it was, and is never told without.
func TestPasswordFile(t *testing.T) {
	dir, elsewhere := mkdir(t), filepath.Join(mkdir(t), "secret")
	write := func(path, data string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "peers.yaml"), peerYAML("tor1", "passwordFile: tor1.password")+"---\n"+peerYAML("tor2", "passwordFile: "+elsewhere)+"---\n"+peerYAML("tor3"))
	write(filepath.Join(dir, "tor1.password"), "one\n")
	write(elsewhere, "two\r\n")
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.says("at first", `put peer tor1 "one"`, `put peer tor2 "two"`, `put peer tor3 ""`, "synced")

		d.write("tor1.password", "three")
		d.ring("tor1.password")
		time.Sleep(2 * settleDefault)
		d.says("changed in the directory", `put peer tor1 "three"`)

		write(elsewhere, "four")
		time.Sleep(2 * settleDefault)
		d.says("changed elsewhere")
		time.Sleep(pollDefault)
		d.says("at the poll", `put peer tor2 "four"`)

		if err := os.Remove(elsewhere); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pollDefault)
		d.says("gone", `problem InvalidPassword tor2: spec.passwordFile: "`+elsewhere+`" cannot be used: stat `+elsewhere+`: no such file or directory; correct it or the file (in peers.yaml)`)
		time.Sleep(10 * pollDefault)
		d.says("still gone")
		write(elsewhere, "four")
		time.Sleep(pollDefault)
		d.says("back", `put peer tor2 "four"`)

		d.write("peers.yaml", peerYAML("tor1", "passwordFile: tor1.password", "passwordSecret: tor1"))
		d.ring("peers.yaml")
		time.Sleep(2 * settleDefault)
		d.says("two passwords", "delete model.PeerKey {tor2}", "delete model.PeerKey {tor3}", `problem InvalidPassword tor1: spec.passwordFile: "tor1.password" and passwordSecret exclude each other`)
		d.write("tor1.password", "five")
		d.ring("tor1.password")
		time.Sleep(2 * settleDefault)
		d.says("nobody's file any more")
		if strings.Contains(d.log.String(), "three") || strings.Contains(d.log.String(), "four") {
			t.Errorf("the log tells passwords:\n%s", &d.log)
		}
	})
}

// TestUnusableKeepsWhatWas: an edit that cannot be used is told as a problem and
// never as a deletion.
func TestUnusableKeepsWhatWas(t *testing.T) {
	dir := mkdir(t, "a.yaml", own("AddressPool", "blue", "addresses: [192.0.2.0/31]"), "b.yaml", peerYAML("tor"))
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, dir)
		d.says("at first", `put peer tor ""`, "put pool blue [{192.0.2.0 192.0.2.1}]", "synced")
		change := func(name, data string, want ...string) {
			t.Helper()
			d.write(name, data)
			d.ring(name)
			time.Sleep(2 * settleDefault)
			d.says(data, want...)
		}
		change("a.yaml", own("AddressPool", "blue", "addresses: [192.0.2.0]"), "problem InvalidRange blue: spec.addresses[0]")
		change("b.yaml", peerYAML("tor", "holdTime: 2s"), "problem InvalidTime tor: spec.holdTime")
		change("b.yaml", peerYAML("tor", "holdTime: 1s"), "problem InvalidTime tor: spec.holdTime")
		change("b.yaml", peerYAML("tor", "holdTime: 3s"), `put peer tor ""`)
		change("b.yaml", "# none\n", "delete model.PeerKey {tor}")
		change("b.yaml", peerYAML("tor", "holdTime: 2s"), "problem InvalidTime tor: spec.holdTime")
		change("a.yaml", "# none\n", "delete model.AddressPoolKey {blue}")
	})
}

func TestTwiceOfOurs(t *testing.T) {
	dir := mkdir(t, "a.yaml", peerYAML("tor"), "b.yaml", peerYAML("tor", "peerPort: 1179"),
		"c.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: tor, namespace: a}, stringData: {password: x}}\n---\n"+
			"{apiVersion: v1, kind: Secret, metadata: {name: tor, namespace: b}, stringData: {password: other}}\n")
	synctest.Test(t, func(t *testing.T) {
		sit(t, dir).says("at first",
			"problem DefinedTwice "+dir+"/b.yaml: "+dir+"/b.yaml: BGPPeer tor is already in "+dir+"/a.yaml, which counts",
			"problem DefinedTwice "+dir+"/c.yaml: "+dir+"/c.yaml: Secret tor stands there twice",
			"put model.Secret", `put peer tor ""`, "synced")
	})
}

// TestExamples: what the documentation shows can be used as it stands.
func TestExamples(t *testing.T) {
	texts, err := readDir("../../../deploy/examples")
	if err != nil || len(texts) < 2 {
		t.Fatalf("%d files, %v", len(texts), err)
	}
	m := newMemory(quiet())
	m.take(texts)
	for _, e := range m.events() {
		if e.Problem != nil {
			t.Errorf("%s", e.Problem.Message)
		}
	}
	if waits := m.neverGood(); len(waits) > 0 {
		t.Errorf("cannot be read: %q", waits)
	}
}
