package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// FailingLimit is how many nodes say in a BGPPeer's status that their session is
// down. More keep it to themselves.
const FailingLimit = 20

// shownFailing is how many nodes a condition names.
const shownFailing = 3

// Failing is a node that has said, in a BGPPeer's status, that its session with
// the peer is down.
type Failing struct {
	Node  string
	Since time.Time
	Error string
}

// Condition is the condition Established of a BGPPeer, with the values that
// conditions of Kubernetes have.
type Condition struct {
	Status  string // True, False or Unknown
	Reason  string // Established, SessionsDown or NoNodes
	Message string
}

// EstablishedCondition says how the sessions with a peer are, of what nodes have
// said and which nodes are to dial it. Entries of other nodes are stale and do not
// count; a node that is gone cannot take its own back, so somebody else has to. A
// node whose agent does not run says nothing.
func EstablishedCondition(failing []Failing, dialling []string) Condition {
	if len(dialling) == 0 {
		return Condition{"Unknown", "NoNodes", "no node matches spec.nodeSelectors; correct them or label a node"}
	}
	var down []Failing
	for _, f := range failing {
		if slices.Contains(dialling, f.Node) {
			down = append(down, f)
		}
	}
	if len(down) == 0 {
		return Condition{"True", "Established", fmt.Sprintf("none of %s misses its session", nodes(len(dialling)))}
	}
	slices.SortFunc(down, func(a, b Failing) int { return cmp.Compare(a.Node, b.Node) })
	var shown []string
	for _, f := range down[:min(shownFailing, len(down))] {
		shown = append(shown, f.Node+because(f.Error))
	}
	if more := len(down) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	count := fmt.Sprint(len(down))
	if len(failing) >= FailingLimit {
		count = "at least " + count
	}
	return Condition{"False", "SessionsDown", fmt.Sprintf("%s of %s without a session: %s",
		count, nodes(len(dialling)), strings.Join(shown, "; "))}
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
