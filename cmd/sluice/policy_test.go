package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/policy"
)

// shopYAML is a namespace in which web may reach db's port 5432 and nothing else
// may, by a policy that is free of mistakes.
const shopYAML = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, uid: u1, labels: {app: web}}
spec: {nodeName: n1}
status: {phase: Running, podIPs: [{ip: 10.244.1.5}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, uid: u2, labels: {app: db}}
spec: {nodeName: n1}
status: {phase: Running, podIPs: [{ip: 10.244.1.7}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{protocol: TCP, port: 5432}]
`

// misnested is the mistake of a well-known tutorial: without "to" the rule
// allows everybody.
const misnested = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - namespaceSelector: {}
    ports: [{protocol: UDP, port: 53}]
`

// folder is a directory of YAML.
func folder(t *testing.T, texts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shopFacts are those of shopYAML.
func shopFacts(t *testing.T) *policy.Facts {
	t.Helper()
	facts, _, err := factsOf{directory: folder(t, shopYAML)}.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// policing is what an agent answers that enforces the policies of facts.
func policing(facts *policy.Facts, denials *policy.Denials) http.Handler {
	return status.MetricsHandler(status.Metrics{
		Loops: func() []reconcile.Status { return nil },
		Policy: &status.Policy{
			Explain: facts.Explain, Denials: denials,
			Status: func() policy.Status { return policy.Status{} }, Revoked: func() uint64 { return 0 },
		},
	})
}

// command runs a command as main does, and returns the code it exits with and
// what it writes to stdout and stderr.
func command(t *testing.T, args ...string) (code int, out, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := root()
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		code = complain(&stderr, err)
	}
	return code, stdout.String(), stderr.String()
}

// TestExplainCommand: allowed is 0, denied 1, no answer 2, from a directory and
// from the agent alike.
func TestExplainCommand(t *testing.T) {
	server := httptest.NewServer(policing(shopFacts(t), policy.NewDenials(policy.DenialOptions{Facts: shopFacts(t)})))
	defer server.Close()
	dir := folder(t, shopYAML)
	for args, want := range map[string]struct {
		code      int
		out, said string // parts
	}{
		"--from shop/web-0 --to shop/db-0:5432":                     {0, "ALLOWED: shop/web-0", ""},
		"--from shop/web-0 --to shop/db-0 --port 5432":              {0, "shop/db ingress[0]", ""},
		"--from shop/web-0 --to 10.244.1.7 --port 80":               {1, "DENIED: shop/web-0", ""},
		"--from shop/web-0 --to shop/db-0:5432 --protocol UDP":      {1, "DENIED: shop/web-0", ""},
		"--from 198.51.100.1 --to shop/db-0:5432":                   {1, "DENIED: 198.51.100.1", ""},
		"--from shop/db-0 --to shop/web-0:80 -o json":               {0, `"allowed": true`, ""},
		"--from shop/web-0 --to shop/db-0:80 -o json":               {1, `"allowed": false`, ""},
		"--from shop/no --to shop/db-0:80":                          {2, "", "sluice: no answer: from: "},
		"--from shop/no --to shop/db-0:80 -o json":                  {2, `"error": "from: `, "sluice: no answer: from: "},
		"--from shop/web-0 --to shop/db-0":                          {2, "", "sluice: no answer: to: "},
		"--from shop/web-0":                                         {2, "", "sluice: --from and --to: name who connects"},
		"--from shop/web-0 --to shop/db-0:80 --protocol quic":       {2, "", `sluice: --protocol "quic" is none; use TCP`},
		"--from shop/web-0 --to shop/db-0:80 -o yaml":               {2, "", `sluice: --output "yaml": use text or json`},
		"--from shop/web-0 --to shop/db-0 --port http":              {2, "", `sluice: invalid argument "http" for "--port"`},
		"--from shop/web-0 --to shop/db-0:80 shop/more":             {2, "", "sluice: unknown command"},
		"--from shop/web-0 --to shop/db-0:80 --kubeconfig /no/such": {2, "", "sluice: "},
	} {
		for where, flags := range map[string][]string{"directory": {"-f", dir}, "agent": {"--agent", server.URL}} {
			code, out, said := command(t, append(append([]string{"policy", "explain"}, strings.Fields(args)...), flags...)...)
			if code != want.code || !strings.Contains(out, want.out) || !strings.Contains(said, want.said) || want.said == "" && said != "" || want.out == "" && out != "" {
				t.Errorf("%s by the %s: exit %d\n%s%swant exit %d, %q and %q", args, where, code, out, said, want.code, want.out, want.said)
			}
		}
	}
}

// TestExplainCommandHasNoAnswer: what is wrong and what to do about it.
func TestExplainCommandHasNoAnswer(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + gone.Addr().String()
	gone.Close()
	without := httptest.NewServer(status.MetricsHandler(status.Metrics{Loops: func() []reconcile.Status { return nil }}))
	defer without.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	defer other.Close()
	old := httptest.NewServer(http.NotFoundHandler())
	defer old.Close()
	broken := folder(t, shopYAML, "kind: NetworkPolicy\n  apiVersion: {")
	for name, c := range map[string]struct {
		flags, want string
	}{
		"nobody listens":   {"--agent " + closed, "no agent answers at " + closed + ": dial tcp"},
		"no address":       {"--agent ftp://x", `--agent "ftp://x": use host:port or http://host:port, such as 127.0.0.1:10249`},
		"policy is off":    {"--agent " + without.URL, ": NetworkPolicy is not enforced here: the agent runs with --enable-policy=false"},
		"an older agent":   {"--agent " + strings.TrimPrefix(old.URL, "http://"), "has no /policy/explain: it is older than this command"},
		"something else":   {"--agent " + other.URL, "is no explanation; see that --agent is the agent's"},
		"both":             {"-f " + broken + " --kubeconfig x", "-f and --kubeconfig exclude each other"},
		"a file is broken": {"-f " + broken, "not every file can be used: "},
		"no directory":     {"-f /no/such", "/no/such"},
		"an agent too":     {"-f " + broken + " --agent " + closed, "--agent excludes -f and --kubeconfig"},
	} {
		args := append([]string{"policy", "explain", "--from", "shop/web-0", "--to", "shop/db-0:80"}, strings.Fields(c.flags)...)
		if code, out, said := command(t, args...); code != codeError || out != "" || !strings.Contains(said, c.want) {
			t.Errorf("%s: exit %d\n%s%swant %q", name, code, out, said, c.want)
		}
	}
}

func TestLintCommand(t *testing.T) {
	for name, c := range map[string]struct {
		args      []string
		code      int
		out, said string
	}{
		"nothing to find":     {[]string{"-f", folder(t, shopYAML)}, 0, "", "0 found in 1 NetworkPolicies\n"},
		"a tutorial's policy": {[]string{"-f", folder(t, shopYAML, misnested)}, 1, "shop/dns spec.egress[0].namespaceSelector: ", "NetworkPolicies\n"},
		"as JSON":             {[]string{"-f", folder(t, misnested), "-o", "json"}, 1, `"code": "UnknownField"`, ""},
		"nothing as JSON":     {[]string{"-f", folder(t, shopYAML), "-o", "json"}, 0, "[]\n", ""},
		"a broken file":       {[]string{"-f", folder(t, "a: [")}, 2, "", "sluice: not every file can be used: "},
		"nothing named":       {nil, 2, "", "sluice: name what is to be looked at: -f DIRECTORY or --kubeconfig FILE\n"},
	} {
		code, out, said := command(t, append([]string{"policy", "lint"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.out) || c.out == "" && out != "" || !strings.Contains(said, c.said) || c.said == "" && said != "" {
			t.Errorf("%s: exit %d\n%s%swant exit %d, %q and %q", name, code, out, said, c.code, c.out, c.said)
		}
	}
	_, out, _ := command(t, "policy", "lint", "-f", folder(t, misnested), "-o", "json")
	var found []map[string]string
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) == 0 || found[0]["object"] != "shop/dns" {
		t.Errorf("%v: %s", err, out)
	}
}

// screen is where a command writes while it runs.
type screen struct {
	mu    sync.Mutex
	text  strings.Builder
	wrote chan struct{}
}

func newScreen() *screen { return &screen{wrote: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.wrote <- struct{}{}:
	default:
	}
	return s.text.Write(b)
}

// await waits until a text stands there, and returns all that does.
func (s *screen) await(t *testing.T, text string) string {
	t.Helper()
	for {
		s.mu.Lock()
		all := s.text.String()
		s.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
		select {
		case <-s.wrote:
		case <-time.After(20 * time.Second):
			t.Fatalf("no %q in\n%s", text, all)
		}
	}
}

// denyTo tells of a packet from web-0 to a port of db-0.
func denyTo(d *policy.Denials, port uint16, at time.Time) {
	d.Tell(policy.Refused{
		At: at, Prefix: policy.LogIngress, Protocol: model.TCP, In: "veth1",
		Src: netip.MustParseAddrPort("10.244.1.5:40000"), Dst: netip.AddrPortFrom(netip.MustParseAddr("10.244.1.7"), port),
	})
}

// TestWatchCommand: the last denials, then each as it comes, also of an agent
// that has gone and come back; none twice.
func TestWatchCommand(t *testing.T) {
	facts := shopFacts(t)
	start := func(listener net.Listener, d *policy.Denials) *httptest.Server {
		server := httptest.NewUnstartedServer(policing(facts, d))
		if listener != nil {
			server.Listener.Close()
			server.Listener = listener
		}
		server.Start()
		return server
	}
	kept := policy.NewDenials(policy.DenialOptions{Facts: facts, Node: "n1"})
	now := time.Now()
	for i := range 4 {
		denyTo(kept, uint16(1001+i), now.Add(time.Duration(i-100)*time.Second))
	}
	server := start(nil, kept)
	out, said := newScreen(), newScreen()
	cmd := root()
	cmd.SetOut(out)
	cmd.SetErr(said)
	cmd.SetArgs([]string{"policy", "watch", "--agent", server.URL, "--last", "2", "--pod", "shop/web-0"})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	out.await(t, ":1004")
	denyTo(kept, 1005, now.Add(time.Second))
	out.await(t, ":1005")

	address := server.Listener.Addr().String()
	server.CloseClientConnections()
	server.Close()
	said.await(t, "the agent at http://"+address+" has gone (")
	for i := range 3 { // more than --last
		denyTo(kept, uint16(1006+i), now.Add(time.Duration(2+i)*time.Second))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server = start(listener, kept) // it was not restarted: it still has the ones before
	defer server.Close()
	said.await(t, "the agent at http://"+address+" answers again\n")
	all := out.await(t, ":1008")
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a watch that was stopped ends with %v", err)
	}
	var got []string
	for line := range strings.Lines(all) {
		_, rest, _ := strings.Cut(line, "n1 ingress: shop/web-0 10.244.1.5 -> shop/db-0 10.244.1.7:")
		port, why, _ := strings.Cut(rest, " TCP; isolated by shop/db: ")
		got = append(got, port)
		if !strings.Contains(why, "shop/db ingress[0]") {
			t.Errorf("%q", line)
		}
	}
	if want := []string{"1003", "1004", "1005", "1006", "1007", "1008"}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
	if n := strings.Count(said.await(t, ""), "has gone"); n != 1 {
		t.Errorf("said %d times that it has gone, want once", n)
	}
}

func TestWatchCommandFails(t *testing.T) {
	without := httptest.NewServer(status.MetricsHandler(status.Metrics{Loops: func() []reconcile.Status { return nil }}))
	defer without.Close()
	for args, want := range map[string]string{
		"--agent " + without.URL: "NetworkPolicy is not enforced here",
		"--agent 127.0.0.1:1":    "no agent answers at http://127.0.0.1:1: ",
		"--pod web-0":            `--pod "web-0": use namespace/name, such as default/web-0`,
		"--pod 10.0.0.1":         `--pod "10.0.0.1": use namespace/name`,
		"--last -1":              "--last -1: use a number of 0 or more",
		"-o wide":                `--output "wide": use text or json`,
	} {
		if code, out, said := command(t, append([]string{"policy", "watch"}, strings.Fields(args)...)...); code != codeError || out != "" || !strings.Contains(said, want) {
			t.Errorf("%s: exit %d\n%s%swant %q", args, code, out, said, want)
		}
	}
}

// TestPolicyHelp: every command of policy says how it ends and shows an example.
func TestPolicyHelp(t *testing.T) {
	for name, want := range map[string][]string{
		"explain": {"Ends with 0 when it is allowed", "1 when it is denied", "2 when there is no answer", "--kubeconfig", "--agent"},
		"lint":    {"Ends with 0 when nothing is found", "1 when something is", "--kubeconfig"},
		"watch":   {"--pod", "--agent", "json"},
	} {
		code, out, _ := command(t, "policy", name, "--help")
		for _, w := range append(want, "Examples:\n  sluice policy "+name) {
			if code != 0 || !strings.Contains(out, w) {
				t.Errorf("%s --help: exit %d, lacks %q:\n%s", name, code, w, out)
			}
		}
	}
}

// TestOthersEndWith1: commands without codes of their own.
func TestOthersEndWith1(t *testing.T) {
	if code, _, said := command(t, "services", "--agent", "127.0.0.1:1"); code != 1 || !strings.HasPrefix(said, "sluice: no agent answers") {
		t.Errorf("exit %d, %s", code, said)
	}
}
