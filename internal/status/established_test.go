package status

import (
	"fmt"
	"strings"
	"testing"
)

func TestEstablishedCondition(t *testing.T) {
	var many string
	for i := range FailingLimit {
		many += fmt.Sprintf("m%02d\n", i)
	}
	three := []string{"n1", "n2", "n3"}
	for name, c := range map[string]struct {
		failing  string // "node error", one a line
		dialling []string
		want     string
	}{
		"nobody complains":           {"", three, "True Established none of 3 nodes misses its session"},
		"a single node":              {"", three[:1], "True Established none of 1 node misses its session"},
		"one without a session":      {"n2 connection refused", three, "False SessionsDown 1 of 3 nodes without a session: n2: connection refused"},
		"one that does not say why":  {"n2", three, "False SessionsDown 1 of 3 nodes without a session: n2"},
		"a node that is gone":        {"old connection refused", three, "True Established none of 3 nodes misses its session"},
		"a node that is not to dial": {"n3 no route\nn1 bad AS", three[:2], "False SessionsDown 1 of 2 nodes without a session: n1: bad AS"},
		"no node is to dial":         {"n1 x", nil, "Unknown NoNodes no node matches spec.nodeSelectors; correct them or label a node"},
		"as many as say so": {many, append(strings.Fields(many), "n1"),
			"False SessionsDown at least 20 of 21 nodes without a session: m00; m01; m02; and 17 more"},
		"as many, most of them gone": {many, strings.Fields(many)[:2], "False SessionsDown at least 2 of 2 nodes without a session: m00; m01"},
		"more than are named": {"n5 e\nn4 d\nn1 a\nn3 c\nn2 b", []string{"n1", "n2", "n3", "n4", "n5", "n6"},
			"False SessionsDown 5 of 6 nodes without a session: n1: a; n2: b; n3: c; and 2 more"},
	} {
		var failing []Failing
		for line := range strings.Lines(c.failing) {
			node, err, _ := strings.Cut(strings.TrimSpace(line), " ")
			failing = append(failing, Failing{Node: node, Error: err})
		}
		got := EstablishedCondition(failing, c.dialling)
		if s := got.Status + " " + got.Reason + " " + got.Message; s != c.want {
			t.Errorf("%s: %s\nwant %s", name, s, c.want)
		}
	}
}
