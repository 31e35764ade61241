//go:build lab

package life

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/topo"
)

// docs is where the pages stand, and pictures below it.
const docs = "../../docs"

// writing reports whether pages are to be written and not compared. They go to
// the directory SLUICE_LAB_OUT, the one that a guest's writes reach.
func writing() bool { return os.Getenv("SLUICE_WRITE") != "" }

// page is a template that is being executed. Its functions are what a template may
// call; they do what they say in the world and return what there is to see. When
// one fails so does the test, and the page goes on.
type page struct {
	*world
	t        *testing.T
	pictures map[string]string // by name
	vacate   func() error      // see occupy
}

func (p *page) functions() template.FuncMap {
	return template.FuncMap{
		"apply":   func(file string) string { return p.seen(p.show(file)) },
		"load":    func(files ...string) string { return p.change(files, p.apply) },
		"remove":  func(files ...string) string { return p.change(files, p.remove) },
		"unready": func(pods ...string) string { return p.change(pods, p.setUnready) },
		"ready":   func(pods ...string) string { return p.change(pods, p.setReady) },
		"occupy":  func(host string, port int) string { return p.seen("", p.occupy(host, port)) },
		"vacate":  func() string { return p.seen("", p.vacate()) },
		"run":     func(host, command string) string { return p.seen(p.run(host, 0, command)) },
		"fail":    func(host string, code int, command string) string { return p.seen(p.run(host, code, command)) },
		"quietly": func(host, command string) string { _, err := p.shell(host, 0, command); return p.seen("", err) },
		"await":   func(host, command, want string) string { return p.seen("", p.await(host, command, want)) },
		"trace":   func(from, to, by, name string) string { return p.seen(p.follow(from, "", to, by, name)) },
		"traceFrom": func(from, source, to, by, name string) string {
			return p.seen(p.follow(from, source, to, by, name))
		},
	}
}

// seen is what a function shows, or what went wrong.
func (p *page) seen(text string, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Error(err)
		return "FAILED: " + err.Error()
	}
	return text
}

// change does something to each of several things, and waits until all agents have
// followed.
func (p *page) change(things []string, do func(string) error) string {
	p.t.Helper()
	var errs []error
	for _, thing := range things {
		errs = append(errs, do(thing))
	}
	return p.seen("", errors.Join(errors.Join(errs...), p.settle()))
}

// occupy has another program listen on a port, until vacate.
func (p *page) occupy(host string, port int) (err error) {
	p.vacate, err = p.hosts[host].Serve(topo.TCP, uint16(port))
	return err
}

// show applies a file of the examples and shows it.
func (p *page) show(file string) (string, error) {
	if err := errors.Join(p.apply(file), p.settle()); err != nil {
		return "", err
	}
	text := p.applied[file]
	return fmt.Sprintf("[%s](../deploy/examples/life/%[1]s):\n\n```yaml\n%s```", file, text), nil
}

// run runs a command on a host as in a shell there, and shows both. The command
// has to end with a code. What ipvsadm lists, sluice has to list too.
func (p *page) run(host string, code int, command string) (string, error) {
	out, err := p.shell(host, code, command)
	if err != nil {
		return "", err
	}
	if list, is := strings.CutPrefix(command, "ipvsadm -L"); is {
		ours, err := p.shell(host, code, "sluice ipvs -L"+list)
		if err != nil {
			return "", err
		}
		if a, b := strings.Join(normal(ours), "\n"), strings.Join(normal(out), "\n"); a != b {
			return "", fmt.Errorf("%s: %s says\n%s\nand sluice ipvs\n%s", host, command, b, a)
		}
	}
	prompt := "$"
	if strings.HasPrefix(host, "node") || host == "router" {
		prompt = "#"
	}
	return strings.TrimRight(fmt.Sprintf("%s%s %s\n%s", host, prompt, command, out), "\n"), nil
}

// shell runs a command line with sluice among the programs, and returns what it
// says on both streams. DIR is where manifests and logs are.
func (p *page) shell(host string, code int, command string) (string, error) {
	h := p.hosts[host]
	if h == nil {
		return "", fmt.Errorf("there is no host %s", host)
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	cmd := h.Command(ctx, "sh", "-c", "PATH="+filepath.Dir(p.bin)+":$PATH; "+strings.ReplaceAll(command, "DIR", p.dir))
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "COLUMNS=140")
	out, err := cmd.CombinedOutput()
	exit, ended := errors.AsType[*exec.ExitError](err)
	if err != nil && !ended {
		return "", fmt.Errorf("%s: %s: %w", host, command, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return "", fmt.Errorf("%s: %s: exit %d (%v), want %d:\n%s", host, command, got, exit, code, out)
	}
	return strings.ReplaceAll(string(out), p.dir, "DIR"), nil
}

// await runs a command until it says something, whatever its exit code, and shows
// nothing.
func (p *page) await(host, command, want string) error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	return topo.Eventually(ctx, func() error {
		out, err := p.shell(host, 0, command)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("%s: %s says\n%swithout %q", host, command, out, want)
		}
		return err
	})
}

// follow makes a connection and shows its way, as a table and as a picture that is
// called name. source is an address of the host's, or ""; by is a host that has to
// be on the way; "": any way will do.
func (p *page) follow(from, source, to, by, name string) (string, error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return "", err
	}
	var src netip.Addr
	if source != "" {
		if src, err = netip.ParseAddr(source); err != nil {
			return "", err
		}
	}
	t, err := p.trace(p.hosts[from], src, addr, by)
	if err != nil {
		return "", err
	}
	shown := p.scene(t, addr)
	if source != "" {
		shown.addr[from] = source
	}
	p.pictures[name] = draw(shown, t)
	return fmt.Sprintf("![%s -> %s](pictures/%s.svg)\n\n```\n%s```", from, to, name, t), nil
}

// scene is what there is to be drawn of a trip to an address: all nodes, the pods
// that it came by, and those that could have answered.
func (p *page) scene(t trip, to netip.AddrPort) scene {
	s := scene{addr: map[string]string{}, node: map[string]string{}}
	for name, h := range p.hosts {
		s.addr[name] = h.V4.String()
	}
	if t.There[0].From == "client" {
		s.outside = []string{"client", "router"}
	}
	for _, n := range p.Nodes {
		s.nodes = append(s.nodes, n.Name)
	}
	possible := p.meant(to)
	for _, pod := range p.pods {
		if t.There[0].From == pod.Name || t.passes(pod.Name) || slices.Contains(possible, pod) {
			s.pods, s.node[pod.Name] = append(s.pods, pod.Name), pod.Spec.NodeName
		}
	}
	return s
}

// meant are the pods behind the Service of an address.
func (p *page) meant(to netip.AddrPort) []*corev1.Pod {
	for _, s := range p.services {
		addr := to.Addr().String()
		has := s.Spec.ClusterIP == addr || slices.Contains(s.Spec.ExternalIPs, addr) ||
			s.Spec.Type == corev1.ServiceTypeLoadBalancer && strings.HasPrefix(addr, "203.0.113.")
		if has || int32(to.Port()) == s.Spec.Ports[0].NodePort {
			return p.behind(s)
		}
	}
	return nil
}

// askBriefly asks over HTTP. What becomes of it is for those who watch.
func (w *world) askBriefly(from *topo.Host, source netip.Addr, to netip.AddrPort) (topo.Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return from.AskFrom(ctx, topo.HTTP, netip.AddrPortFrom(source, 0), to)
}

// produce executes a template and compares what comes of it with the page of its
// name in docs and its pictures, or writes them.
func produce(t *testing.T, w *world, name string, more template.FuncMap) {
	t.Helper()
	p := &page{world: w, t: t, pictures: map[string]string{}}
	file := name + ".tmpl"
	tmpl, err := template.New(file).Funcs(p.functions()).Funcs(more).ParseFiles(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "<!-- Made by e2e/life of testdata/%s: `make docs` writes it, the test compares. -->\n", file)
	if err := tmpl.Execute(&text, nil); err != nil {
		t.Fatal(err)
	}
	same(t, name, text.String())
	for name, svg := range p.pictures {
		same(t, filepath.Join("pictures", name+".svg"), svg)
	}
}

// same compares a file of docs with what it should be, or writes it.
func same(t *testing.T, name, want string) {
	t.Helper()
	if writing() {
		path := filepath.Join(os.Getenv("SLUICE_LAB_OUT"), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(want), 0o644)); err != nil {
			t.Error(err)
		}
		return
	}
	have, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Errorf("%v: `make docs` writes it", err)
		return
	}
	if a, b := normal(want), normal(string(have)); strings.Join(a, "\n") != strings.Join(b, "\n") {
		t.Errorf("docs/%s is not what happens now (missing: what does; extra: what does not); look, and `make docs` writes it anew:%s", name, topo.Difference(a, b))
	}
}
