package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// world is an API server, and what talks to it.
type world struct {
	kubeconfig string
	api        kubernetes.Interface
	objects    dynamic.Interface
}

func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

// start starts a program that ends with the test; its output goes to a file
// that is shown when the test fails.
func start(t *testing.T, name, bin string, args ...string) *exec.Cmd {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = out.Close()
		if text, err := os.ReadFile(out.Name()); err == nil && t.Failed() {
			t.Logf("end of %s:\n%s", name, tail(string(text)))
		}
	})
	return cmd
}

func tail(text string) string {
	const most = 6000
	return text[max(0, len(text)-most):]
}

// freePort is a port of the loopback that nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits until something is so; without it, it says what is missing.
func eventually(t *testing.T, limit time.Duration, what string, is func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// build starts an API server that knows our kinds.
func build(t *testing.T) world {
	t.Helper()
	bin := os.Getenv("CONTROLPLANE_BIN")
	if bin == "" || os.Getenv("SLUICE_BIN") == "" {
		t.Skip("SLUICE_BIN and CONTROLPLANE_BIN say what is tested, and against what; see doc.go")
	}
	dir := t.TempDir()
	start(t, "controlplane", bin, "-dir", dir, "-listen", freePort(t))
	eventually(t, 2*time.Minute, "API server", func() error { _, err := os.Stat(filepath.Join(dir, "ready")); return err })
	w := world{kubeconfig: filepath.Join(dir, "kubeconfig")}
	config, err := clientcmd.BuildConfigFromFlags("", w.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = -1, -1
	w.api, w.objects = kubernetes.NewForConfigOrDie(config), dynamic.NewForConfigOrDie(config)
	w.kinds(t)
	return w
}

// kinds creates the CustomResourceDefinitions of deploy/crds.
func (w world) kinds(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	crds := w.objects.Resource(resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var crd unstructured.Unstructured
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if _, err := crds.Create(t.Context(), &crd, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
	for _, kind := range []string{"addresspools", "addressclaims", "bgppeers", "bgpadvertisements"} {
		eventually(t, time.Minute, kind, func() error {
			_, err := w.own(kind).List(t.Context(), metav1.ListOptions{})
			return err
		})
	}
}

// own is a kind of ours.
func (w world) own(kind string) dynamic.ResourceInterface {
	return w.objects.Resource(resource("sluice.dev", "v1alpha1", kind))
}

func (w world) pool(t *testing.T, name string, addresses ...any) {
	t.Helper()
	_, err := w.own("addresspools").Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sluice.dev/v1alpha1", "kind": "AddressPool",
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"addresses": addresses},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// controller is one `sluice controller`, and those that followed it under its
// name.
type controller struct {
	world
	name    string
	metrics string
	cmd     *exec.Cmd
	starts  int
}

func (w world) controller(t *testing.T, name string) *controller {
	t.Helper()
	c := &controller{world: w, name: name, metrics: freePort(t)}
	c.start(t)
	return c
}

func (c *controller) start(t *testing.T) {
	t.Helper()
	c.starts++
	c.cmd = start(t, fmt.Sprintf("%s-%d", c.name, c.starts), os.Getenv("SLUICE_BIN"),
		"controller", "--kubeconfig", c.kubeconfig, "--metrics-bind-address", c.metrics)
}

// kill ends it as a power cut would.
func (c *controller) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
}

func (c *controller) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// leads reports whether it says that it leads.
func (c *controller) leads(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.metrics+"/metrics", nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return strings.Contains(string(text), "\nsluice_ipam_leader 1\n"), err
}

// leader is the controller that leads; the other one follows.
func leader(t *testing.T, a, b *controller) (leads, follows *controller) {
	t.Helper()
	eventually(t, time.Minute, "one of two leads", func() error {
		x, errX := a.leads(t.Context())
		y, errY := b.leads(t.Context())
		switch {
		case errX != nil || errY != nil:
			return errors.Join(errX, errY)
		case x == y:
			return fmt.Errorf("%s leads: %v, %s leads: %v", a.name, x, b.name, y)
		case x:
			leads, follows = a, b
		default:
			leads, follows = b, a
		}
		return nil
	})
	return leads, follows
}
