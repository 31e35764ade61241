package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/strvals"
)

const guide = "../../docs/install.md"

// TestGuidePaths: every file that the guide names is there, but for those that it
// has the reader make.
func TestGuidePaths(t *testing.T) {
	made := map[string]bool{"deploy/kubeadm-takeover/kube-proxy.yaml": true}
	named := regexp.MustCompile(`deploy/[a-z0-9_./-]*[a-z0-9]`).FindAllString(file(t, guide), -1)
	if len(named) < 20 {
		t.Errorf("only %d files are named: %q", len(named), named)
	}
	for _, path := range named {
		if _, err := os.Stat(filepath.Join("../..", path)); err != nil && !made[path] {
			t.Errorf("the guide names %s: %v", path, err)
		}
	}
}

// TestGuideValues: the chart takes the values of the guide's commands.
func TestGuideValues(t *testing.T) {
	commands := regexp.MustCompile(`(?m)^    helm (?:install|upgrade) .*$`).FindAllString(file(t, guide), -1)
	if len(commands) != 4 {
		t.Fatalf("%d commands with Helm: %q", len(commands), commands)
	}
	for _, command := range commands {
		values := map[string]any{}
		for _, m := range regexp.MustCompile(`--set ([A-Za-z.]+=(?:"[^"]*"|'[^']*'|\S*))`).FindAllStringSubmatch(command, -1) {
			set := strings.NewReplacer("'", "", `"`, "").Replace(m[1])
			if key, _, computed := strings.Cut(set, "=$("); computed {
				set = key + "=" + kubeProxyImage
			}
			if err := strvals.ParseInto(set, values); err != nil {
				t.Errorf("%s: %v", m[0], err)
			}
		}
		if _, _, err := installed(t, text(values)); err != nil || len(values) == 0 {
			t.Errorf("%s\nwith %v: %v", command, values, err)
		}
	}
}

// TestGuideKustomization: the kustomization that the guide shows can be applied,
// and does what it says.
func TestGuideKustomization(t *testing.T) {
	_, shown, _ := strings.Cut(file(t, guide), "# kustomization.yaml\n")
	shown, _, found := strings.Cut(shown, "```")
	if !found {
		t.Fatal("the guide shows no kustomization")
	}
	_, images, _ := strings.Cut(file(t, guide), "```yaml\nimages:\n")
	images, _, _ = strings.Cut(images, "```")
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "deploy"), os.DirFS("..")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ours"), "kustomization.yaml", shown+"images:\n"+images)
	all := kustomized(t, filepath.Join(dir, "ours"))
	typed(t, all)
	for key, want := range map[string]string{
		"ConfigMap kube-system/sluice":             "KUBERNETES_SERVICE_HOST: 192.0.2.10",
		"Deployment kube-system/sluice-controller": "--reserved-cidrs=10.244.0.0/16,10.96.0.0/12",
		"DaemonSet kube-system/sluice-agent":       "image: registry.example.net/sluice:v0.1.0",
		"PodMonitor kube-system/sluice":            "port: metrics",
	} {
		if !strings.Contains(text(all[key]), want) {
			t.Errorf("%s lacks %q:\n%s", key, want, text(all[key]))
		}
	}
	if strings.Contains(text(all["DaemonSet kube-system/sluice-agent"]), "image: sluice") {
		t.Error("an image has kept its name")
	}
}
