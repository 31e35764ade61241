package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// promtool runs Prometheus' own tool in a directory.
func promtool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	bin := os.Getenv("PROMTOOL_BIN")
	if bin == "" {
		t.Skip("PROMTOOL_BIN does not say where promtool is; see make deploy-lint")
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// rules are those of an object of the Prometheus Operator, as a rule file has
// them.
type rules struct {
	Groups []struct {
		Name  string           `json:"name"`
		Rules []map[string]any `json:"rules"`
	} `json:"groups"`
}

func alerts(t *testing.T) rules {
	t.Helper()
	text, err := os.ReadFile("../monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Spec rules `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return object.Spec
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAlerts: the rules are sound, each alert fires when it is to, and not next
// to that.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "rules.yaml", text(alerts(t)))
	cases, err := os.ReadFile("../monitoring/rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "rules_test.yaml", string(cases))
	for _, group := range alerts(t).Groups {
		for _, rule := range group.Rules {
			name := rule["alert"].(string)
			if !strings.Contains(string(cases), "- alertname: "+name+"\n") {
				t.Errorf("no case has %s fire", name)
			}
			if !strings.Contains(string(cases), "alertname: "+name+", ") && !firesBeside(string(cases), name) {
				t.Errorf("no case has %s not fire", name)
			}
			labels, _ := rule["labels"].(map[string]any)
			if s := labels["severity"]; s != "info" && s != "warning" && s != "critical" {
				t.Errorf("%s: severity %v", name, s)
			}
		}
	}
	t.Log(promtool(t, dir, "check", "rules", "rules.yaml"))
	t.Log(promtool(t, dir, "test", "rules", "rules_test.yaml"))
}

// firesBeside reports whether the case in which an alert fires has a series for
// which it does not.
func firesBeside(cases, alert string) bool {
	for c := range strings.SplitSeq(cases, "\n  - name: ") {
		if strings.Contains(c, "- alertname: "+alert+"\n") && strings.Count(c, "- series: ") > 1 {
			return true
		}
	}
	return false
}

// TestDashboard: every question of the dashboard is one that Prometheus
// understands, and every panel has a place of its own.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Type    string `json:"type"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var questions strings.Builder
	fmt.Fprintf(&questions, "groups:\n- name: dashboard\n  rules:\n")
	taken, ids, asked := map[[2]int]string{}, map[int]bool{}, 0
	for _, p := range board.Panels {
		if p.Title == "" || ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: no title, no question, or a number that another has", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x >= 24 {
					t.Fatalf("panel %q is where %q is", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$node", ".*").Replace(q.Expr)
			asked++
			fmt.Fprintf(&questions, "  - record: panel:%d_%d\n    expr: %q\n", p.ID, asked, expr)
		}
	}
	if asked < 20 {
		t.Errorf("only %d questions", asked)
	}
	dir := t.TempDir()
	write(t, dir, "dashboard.yaml", questions.String())
	t.Log(promtool(t, dir, "check", "rules", "dashboard.yaml"))
}
