package main

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/api/proxyconfig"
)

const (
	kubeProxyDoc = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
	agentDoc     = "apiVersion: config.sluice.dev/v1alpha1\nkind: AgentConfiguration\n"
	ofKubeProxy  = "../../internal/api/proxyconfig/testdata/"
)

// told is what `sluice run` makes of its arguments.
type told struct {
	config   config
	flags    *pflag.FlagSet
	settings settings
}

func tell(args ...string) (*told, error) {
	r := &told{flags: pflag.NewFlagSet("run", pflag.ContinueOnError)}
	r.config.flags(r.flags)
	if err := r.flags.Parse(args); err != nil {
		return r, err
	}
	if err := r.config.read(r.flags); err != nil {
		return r, err
	}
	var err error
	r.settings, err = r.config.check()
	return r, err
}

// inFile writes a file, which is then named f in errors.
func inFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// value is a flag's, as an AgentConfiguration has it.
func (r *told) value(flag string) string { return inYAML(r.flags.Lookup(flag).Value) }

// ignored are the settings without effect.
func (r *told) ignored() (list []string) {
	for _, n := range r.config.file.notes {
		list = append(list, n.At.Field+"="+n.Value)
	}
	return list
}

// TestWhoGoesBefore: the command line before an AgentConfiguration, that before a
// KubeProxyConfiguration, whatever their order in the files.
func TestWhoGoesBefore(t *testing.T) {
	proxy := kubeProxyDoc + "nodePortAddresses: [primary]\n"
	for _, c := range []struct {
		name, text, args, flag, want string
	}{
		{"nobody", "", "", "audit-period", "30s"},
		{"kube-proxy's file", proxy + "ipvs: {syncPeriod: 1m}\n", "", "audit-period", "1m0s"},
		{"both files", proxy + "ipvs: {syncPeriod: 1m}\n---\n" + agentDoc + "auditPeriod: 2m\n", "", "audit-period", "2m0s"},
		{"both, the other way", agentDoc + "auditPeriod: 2m\n---\n" + proxy + "ipvs: {syncPeriod: 1m}\n", "", "audit-period", "2m0s"},
		{"all", agentDoc + "auditPeriod: 2m\n---\n" + proxy + "ipvs: {syncPeriod: 1m}\n", "--audit-period=3m", "audit-period", "3m0s"},
		{"all, by kube-proxy's name", agentDoc + "auditPeriod: 2m\n", "--ipvs-sync-period=3m", "audit-period", "3m0s"},
		{"a flag with the default's value", proxy + "ipvs: {syncPeriod: 1m}\n", "--audit-period=30s", "audit-period", "30s"},
		{"a file's list replaces the default", agentDoc + "clusterCIDR: [10.1.0.0/16, fd00::/64]\n", "", "cluster-cidr", `["10.1.0.0/16", "fd00::/64"]`},
		{"kube-proxy's pair", proxy + "clusterCIDR: 10.1.0.0/16,fd00::/64\n", "", "cluster-cidr", `["10.1.0.0/16", "fd00::/64"]`},
		{"a flag's list", proxy + "clusterCIDR: 10.1.0.0/16\n", "--cluster-cidr=10.2.0.0/16", "cluster-cidr", `["10.2.0.0/16"]`},
		{"an empty list", proxy + "clusterCIDR: 10.1.0.0/16\n---\n" + agentDoc + "clusterCIDR: []\n", "", "cluster-cidr", `[]`},
		{"debug in kube-proxy's words", proxy + "logging: {verbosity: 4}\n", "", "log-level", `"debug"`},
		{"chatty, but no debug", proxy + "logging: {verbosity: 3}\n", "", "log-level", `"info"`},
		{"ours before it", proxy + "logging: {verbosity: 4}\n---\n" + agentDoc + "logLevel: warn\n", "", "log-level", `"warn"`},
		{"its flag before ours in a file", agentDoc + "logLevel: warn\n", "-v=5", "log-level", `"debug"`},
		{"and that takes debug back", agentDoc + "logLevel: debug\n", "--v=2", "log-level", `"info"`},
		{"ours before it, both flags", "", "-v=5 --log-level=error", "log-level", `"error"`},
		{"JSON in kube-proxy's words", proxy + "logging: {format: json}\n", "", "log-json", "true"},
		{"and not", proxy + "logging: {format: json}\n", "--logging-format=text", "log-json", "false"},
		{"the API server's rate", proxy + "clientConnection: {qps: 50.5, burst: 99}\n", "", "kube-api-qps", "50.5"},
		{"masquerading as in mode nftables", proxy + "mode: nftables\nnftables: {masqueradeBit: 9}\niptables: {masqueradeBit: 8}\n", "", "iptables-masquerade-bit", "9"},
		{"masquerading as in mode ipvs", proxy + "mode: ipvs\nnftables: {masqueradeBit: 9}\niptables: {masqueradeBit: 8}\n", "", "iptables-masquerade-bit", "8"},
		{"IPv6 defaults", proxy + "bindAddress: '::'\n", "", "healthz-bind-address", `"[::]:10256"`},
		{"and the metrics'", proxy + "bindAddress: '::'\n", "", "metrics-bind-address", `"[::1]:10249"`},
		{"which are defaults only", proxy + "bindAddress: '::'\nmetricsBindAddress: 0.0.0.0:1\n", "", "metrics-bind-address", `"0.0.0.0:1"`},
		{"a port is added", proxy + "metricsBindAddress: 0.0.0.0\n", "", "metrics-bind-address", `"0.0.0.0:10249"`},
		{"in IPv6 too", "", "--healthz-bind-address=fd00::1", "healthz-bind-address", `"[fd00::1]:10256"`},
		{"nowhere", agentDoc + "metricsBindAddress: \"\"\n", "", "metrics-bind-address", `""`},
	} {
		args := strings.Fields(c.args)
		if c.text != "" {
			args = append(args, "--config", inFile(t, c.text))
		}
		r, err := tell(args...)
		if err != nil || r.value(c.flag) != c.want {
			t.Errorf("%s: --%s is %s, %v; want %s", c.name, c.flag, r.value(c.flag), err, c.want)
		}
	}
}

// TestTwoFiles: kubeadm's, which nobody edits, and one of our own.
func TestTwoFiles(t *testing.T) {
	own := inFile(t, agentDoc+"kubeconfig: /etc/sluice.conf\nnodePortAddresses: [all]\n")
	r, err := tell("--config", ofKubeProxy+"kubeadm.conf", "--config", own, "--hostname-override", " Node1 ")
	if err != nil {
		t.Fatal(err)
	}
	if s := r.settings; s.source.kubeconfig != "/etc/sluice.conf" || len(s.nodePortCIDRs) != 2 || s.source.nodeName != "node1" || len(s.clusterCIDRs) != 1 {
		t.Errorf("%+v", s)
	}
	if got := r.ignored(); len(got) != 0 {
		t.Errorf("ignored: %q", got)
	}
	if _, err := tell("--config", own, "--config", inFile(t, agentDoc)); err == nil || !strings.Contains(err.Error(), "a second AgentConfiguration; put it together with the one at "+own+":1") {
		t.Errorf("two of a kind: %v", err)
	}
	if _, err := tell("--config", "/nowhere"); err == nil || err.Error() != "--config: open /nowhere: no such file or directory" {
		t.Errorf("no file: %v", err)
	}
}

// TestErrorsNameTheirPlace: a value that cannot be used is named where it stands,
// on the command line or in a file.
func TestErrorsNameTheirPlace(t *testing.T) {
	for _, c := range []struct{ args, text, want string }{
		{"--ipvs-scheduler=best", "", `--ipvs-scheduler "best": use one of `},
		{"", kubeProxyDoc + "ipvs:\n  scheduler: best\n", `f:4: ipvs.scheduler: "best": use one of `},
		{"", agentDoc + "ipvsScheduler: best\n", `f:3: ipvsScheduler: "best": use one of `},
		{"--ipvs-scheduler=best", agentDoc + "ipvsScheduler: rr\n", `--ipvs-scheduler "best": use one of `},
		{"", kubeProxyDoc + "clusterCIDR: 10.0.0.1\n", `f:3: clusterCIDR: "10.0.0.1": use a range such as 10.244.0.0/16`},
		{"", kubeProxyDoc + "mode: kernelspace\n", `f:3: mode: "kernelspace": use ipvs, which is what Sluice does`},
		{"--proxy-mode=userspace", "", `--proxy-mode "userspace": use ipvs, which is what Sluice does`},
		{"", kubeProxyDoc + "detectLocalMode: Somehow\n", `f:3: detectLocalMode: "Somehow": use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix`},
		{"", kubeProxyDoc + "detectLocalMode: BridgeInterface\n", `--pod-bridge-interface "": --detect-local-mode needs it, with 1 to 15 characters as ` + "`ip link` shows them"},
		{"--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=fifteen-letters", "", `--pod-interface-name-prefix "fifteen-letters": --detect-local-mode needs it, with 1 to 14`},
		{"", kubeProxyDoc + "iptables: {masqueradeBit: 32}\n", `f:3: iptables.masqueradeBit: 32: a packet mark has the bits 0 to 31`},
		{"", kubeProxyDoc + "conntrack: {min: -1}\n", `f:3: conntrack.min: -1: use a number of 0 or more`},
		{"", kubeProxyDoc + "conntrack:\n  udpTimeout: 1500ms\n", `f:4: conntrack.udpTimeout: 1.5s: use whole seconds`},
		{"", kubeProxyDoc + "ipvs: {tcpFinTimeout: 1ms}\n", `f:3: ipvs.tcpFinTimeout: 1ms: use whole seconds`},
		{"", kubeProxyDoc + "metricsBindAddress: metrics\n", `f:3: metricsBindAddress: "metrics": use an address and a port`},
		{"--healthz-bind-address=:1 --metrics-bind-address=:1", "", `--metrics-bind-address ":1" is the address of --healthz-bind-address too`},
		{"", kubeProxyDoc + "bindAddress: here\n", `f:3: bindAddress: "here": use an address, such as 0.0.0.0 or ::`},
		{"", kubeProxyDoc + "logging: {format: xml}\n", `f:3: logging.format: "xml": use text or json`},
		{"", kubeProxyDoc + "clientConnection: {burst: -1}\n", `f:3: clientConnection.burst: -1: use 1 or more`},
		{"--kube-api-qps=0", "", `--kube-api-qps 0: use a number above 0`},
		{"--nodeport-addresses=primary,10.0.0.0/8", "", `--nodeport-addresses "primary,10.0.0.0/8": "primary" and ranges exclude each other`},
		{"", agentDoc + "policyLogGroup: 65536\n", `f:3: policyLogGroup: "65536": strconv.ParseUint: parsing "65536": value out of range`},
		{"", agentDoc + "policyDenyAction: ask\n", `f:3: policyDenyAction: "ask": use reject or drop`},
		{"", agentDoc + "policyConnmarkBit: 32\n", `f:3: policyConnmarkBit: 32: a connection mark has the bits 0 to 31`},
		{"", agentDoc + "logLevel: loud\n", `f:3: logLevel: "loud": use debug, info, warn or error`},
		{"", agentDoc + "auditPeriod: -1s\n", `f:3: auditPeriod: -1s: use a time of 0 or more`},
		{"--manifests=x --kubeconfig=y", "", "--manifests and --kubeconfig exclude each other"},
		{"--manifests=x", agentDoc + "kubeconfig: y\n", "--manifests and --kubeconfig exclude each other"},
		{"--audit-period=1s --ipvs-sync-period=1s", "", "--ipvs-sync-period is another name of --audit-period: give one of them"},
		{"--hostname-override=\u00a0", "", `--hostname-override "\u00a0": use the name of this node's Node object`},
		{"--cleanup", "", "invalid argument \"true\" for \"--cleanup\" flag: use `sluice cleanup`"},
		{"--write-config-to=x", "", "use `sluice run --print-config`"},
		{"--version", "", "use `sluice version`"},
		{"", agentDoc + "config: [x]\n", "f:3: config: unknown field"},
		{"", agentDoc + "proxyMode: ipvs\n", "f:3: proxyMode: unknown field"},
	} {
		args := strings.Split(c.args, " ")
		if c.args == "" {
			args = nil
		}
		if c.text != "" {
			args = append(args, "--config", inFile(t, c.text))
		}
		_, err := tell(args...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v\nwant %s", c.args, c.text, err, c.want)
		}
	}
}

// TestKubeProxysFlags: every flag that kube-proxy v1.36.3 shows can be given,
// with one line of the log for each that has no effect; those of older versions
// and the ones that ask for something else are known too.
func TestKubeProxysFlags(t *testing.T) {
	f, err := os.Open(ofKubeProxy + "kube-proxy-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	values := map[string]string{
		"detect-local-mode": "NodeCIDR", "ipvs-scheduler": "lc", "logging-format": "json", "proxy-mode": "ipvs", "nodeport-addresses": "10.0.0.0/8",
		"bind-address": "::", "cluster-cidr": "10.0.0.0/8", "healthz-bind-address": ":1", "metrics-bind-address": ":2", "pod-bridge-interface": "cni0",
		"iptables-masquerade-bit": "3",
	}
	byType := map[string]string{"bool": "true", "duration": "7s", "int32": "7", "float32": "7", "Level": "7", "string": "word"}
	n, without := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		name, kind, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "--"), " ")
		switch name {
		case "cleanup", "write-config-to", "version", "config", "help":
			continue // TestErrorsNameTheirPlace, TestWhoGoesBefore
		}
		value := values[name]
		if value == "" {
			value = byType[kind]
		}
		if value == "" {
			value = "word"
		}
		args := []string{"--" + name + "=" + value}
		if kind == "bool" {
			args = []string{"--" + name}
		}
		r, err := tell(args...)
		if err != nil {
			t.Errorf("--%s %s: %v", name, value, err)
			continue
		}
		_, is := r.flags.Lookup(name).Value.(*unused)
		want := []string(nil)
		if is {
			want = []string{"--" + name + "=" + value}
			without++
		}
		if got := r.ignored(); !slices.Equal(got, want) {
			t.Errorf("--%s: ignored %q, want %q", name, got, want)
		}
	}
	if n < 50 || without != len(unusedFlags())-2 { // healthz-port and metrics-port are not shown any more
		t.Errorf("%d flags, %d without effect", n, without)
	}
}

// TestOneLineForEachThatIsIgnored is what an operator sees who gives the agent
// kubeadm's file, with much set in it, and a kube-proxy's command line.
func TestOneLineForEachThatIsIgnored(t *testing.T) {
	r, err := tell("--config", ofKubeProxy+"kubeadm-tuned.conf", "--hostname-override=node1", "--healthz-port=10256", "--manifests=m", "--proxy-mode=iptables", "--bind-address=192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r.config.file.tell(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	t.Logf("\n%s", &log)
	want := []string{
		"--healthz-port", "featureGates", "clientConnection.contentType", "logging.flushFrequency", "bindAddressHardFail",
		"iptables.localhostNodePorts", "iptables.minSyncPeriod", "ipvs.minSyncPeriod", "ipvs.excludeCIDRs", "winkernel.enableDSR",
		"oomScoreAdj", "configSyncPeriod", "clientConnection.kubeconfig", "--proxy-mode", "--bind-address",
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d", len(lines), len(want))
	}
	for _, w := range want {
		n := 0
		for _, l := range lines {
			if strings.Contains(l, " setting="+w+" value=") && strings.Contains(l, " why=") && strings.Contains(l, "level=INFO") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s has %d lines", w, n)
		}
	}
}

// TestNodePortsOfAnUnsetField: kube-proxy would serve them at all addresses.
func TestNodePortsOfAnUnsetField(t *testing.T) {
	for _, c := range []struct {
		name, text, args string
		noted            bool
	}{
		{"kubeadm's file", kubeProxyDoc, "", true},
		{"no such file", agentDoc, "", false},
		{"chosen", kubeProxyDoc + "nodePortAddresses: [primary]\n", "", false},
		{"chosen by flag", kubeProxyDoc, "--nodeport-addresses=primary", false},
		{"kube-proxy does the same", kubeProxyDoc + "mode: nftables\n", "", false},
	} {
		r, err := tell(append(strings.Fields(c.args), "--config", inFile(t, c.text))...)
		if got := slices.Contains(r.ignored(), "nodePortAddresses=(not set)"); err != nil || got != c.noted {
			t.Errorf("%s: %v, %q", c.name, err, r.ignored())
		}
	}
}

// others are values of flags that are not their defaults, where not every word
// will do.
func others() map[string]string {
	return map[string]string{
		"detect-local-mode": `"NodeCIDR"`, "ipvs-scheduler": `"lc"`, "log-level": `"warn"`, "bgp-on-stop": `"keep"`, "policy-deny-action": `"drop"`,
		"policy-hairpin": `"enforce"`, "policy-unknown-pods": `"deny"`, "healthz-bind-address": `"1.1.1.1:1"`, "metrics-bind-address": `"1.1.1.1:2"`,
		"enable-policy": "false",
	}
}

// TestEveryFlagCanStandInAFile, and what is printed is taken back as it was.
func TestEveryFlagCanStandInAFile(t *testing.T) {
	byType := map[string]string{"string": `"word"`, "bool": "true", "duration": "7s", "int": "7", "uint16": "7", "float32": "7", "stringSlice": `["10.0.0.0/8", "fd00::/8"]`}
	fresh, err := tell()
	if err != nil {
		t.Fatal(err)
	}
	all := agentDoc
	var names []string
	fresh.flags.VisitAll(func(flag *pflag.Flag) {
		if !settable(flag) {
			return
		}
		value := others()[flag.Name]
		if value == "" {
			value = byType[flag.Value.Type()]
		}
		line := proxyconfig.KeyOf(flag.Name) + ": " + value + "\n"
		r, err := tell("--config", inFile(t, agentDoc+line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			return
		}
		if got := r.value(flag.Name); got != value && flag.Value.Type() != "duration" || got == fresh.value(flag.Name) {
			t.Errorf("%s: it is %s", line, got)
		}
		if flag.Name != "manifests" { // excludes kubeconfig
			all += line
			names = append(names, flag.Name)
		}
	})
	r, err := tell("--config", inFile(t, all))
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	r.config.printConfig(&printed, r.flags)
	again, err := tell("--config", inFile(t, printed.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, &printed)
	}
	for _, name := range names {
		if a, b := r.value(name), again.value(name); a != b {
			t.Errorf("--%s was %s and is %s when read again", name, a, b)
		}
	}
	if len(names) < 35 {
		t.Errorf("only %q", names)
	}
}

// TestFieldsNameFlags: what a field is said to be done by is a flag of ours.
func TestFieldsNameFlags(t *testing.T) {
	r, err := tell()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range proxyconfig.Fields() {
		if f.Flag != "" && r.flags.Lookup(f.Flag) == nil {
			t.Errorf("%s: there is no --%s", f.Path, f.Flag)
		}
	}
	for _, u := range unusedFlags() {
		if u.why == "" && whyOf(u.field) == "" {
			t.Errorf("--%s: no reason", u.name)
		}
	}
}

func TestProfiling(t *testing.T) {
	h := profiled(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "metrics at ", r.URL.Path) }))
	for path, want := range map[string]string{
		"/metrics": "metrics at /metrics", "/debug/pprof/": "full goroutine stack dump", "/debug/pprof/heap?debug=1": "heap profile", "/debug/pprof/cmdline": "sluice",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.80q, want %q", path, w.Code, w.Body, want)
		}
	}
}

// TestDeployedArguments: what deploy/ gives the agent as arguments and as a file
// is taken, and says what it is to say.
func TestDeployedArguments(t *testing.T) {
	var settings struct{ Data map[string]string }
	decode(t, "../../deploy/base/config.yaml", &settings)
	own := inFile(t, settings.Data["config.yaml"])
	for _, c := range []struct{ manifest, mount, file, detect string }{
		{"base", "/etc/sluice/config.yaml", own, nodeCIDRMode},
		{"kubeadm", "/var/lib/kube-proxy/config.conf", ofKubeProxy + "kubeadm.conf", clusterCIDRMode},
	} {
		var set appsv1.DaemonSet
		decode(t, "../../deploy/"+c.manifest+"/agent.yaml", &set)
		var args []string
		for _, container := range set.Spec.Template.Spec.Containers {
			for _, a := range container.Args[1:] {
				args = append(args, strings.NewReplacer(c.mount, c.file, "$(NODE_NAME)", "node1").Replace(a))
			}
		}
		r, err := tell(args...)
		if err != nil || !slices.Contains(args, "--config="+c.file) {
			t.Errorf("%s: %q: %v", c.manifest, args, err)
			continue
		}
		if s := r.settings; s.service.detect.mode != c.detect || s.source.nodeName != "node1" || s.serve.health != ":10256" {
			t.Errorf("%s: %+v", c.manifest, s.config)
		}
	}
}

// decode reads the first document of a YAML file.
func decode(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(part, "kind: DaemonSet") || strings.Contains(part, "kind: ConfigMap") {
			if err := yaml.Unmarshal([]byte(part), into); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s: neither a DaemonSet nor a ConfigMap", path)
}
