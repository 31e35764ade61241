package status

import (
	"fmt"
	"net/http"
	"time"

	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/policy"
)

// State is the JSON body of /state?format=json: how the agent is, as far as the
// agent knows. Fields are neither renamed nor removed.
type State struct {
	Version  string         `json:"version"`
	Node     string         `json:"node,omitempty"`
	Families []string       `json:"families,omitempty"` // that are served
	Time     time.Time      `json:"time"`               // of the agent's clock, by which all others are
	Health   Verdict        `json:"health"`
	Loops    []Loop         `json:"loops"`            // one for each table, those of the kernel first
	BGP      *PeerList      `json:"bgp,omitempty"`    // none: no BGP is spoken
	Policy   *PolicyNumbers `json:"policy,omitempty"` // none: NetworkPolicy is not enforced
}

// Verdict is what /healthz and /readyz say, in short.
type Verdict struct {
	Healthy  bool     `json:"healthy"`
	Eligible bool     `json:"nodeEligible"` // whether load balancers may use the node
	Reasons  []string `json:"reasons"`      // why it is not healthy or not eligible
	Ready    bool     `json:"ready"`
	NotReady string   `json:"notReady,omitempty"` // why it is not
}

// Loop is how one table is.
type Loop struct {
	Table    string        `json:"table"`
	Listed   bool          `json:"listed"` // it has been read once: nothing is written before
	Synced   bool          `json:"synced"` // sources have told all they know: what nobody wants may go
	Wanted   int           `json:"wanted"`
	Present  int           `json:"present"`
	Dirty    int           `json:"dirty"`    // keys to be written or deleted
	Draining int           `json:"draining"` // deletions that take their time
	Failing  []LoopFailure `json:"failing"`  // the oldest, 20 at most
	Work     LoopWork      `json:"work"`

	FailingCount int       `json:"failingCount"`
	BusySince    time.Time `json:"busySince,omitzero"` // of a kernel call that has not returned
}

// LoopFailure is one key that could not be written, or "listing".
type LoopFailure struct {
	Key   string    `json:"key"`
	Error string    `json:"error"`
	Since time.Time `json:"since"`
	Tries int       `json:"tries"`
}

// LoopWork is what a loop has done since the agent's start.
type LoopWork struct {
	Written     uint64    `json:"written"` // keys
	Deleted     uint64    `json:"deleted"`
	Drift       uint64    `json:"drift"` // keys that others had changed
	Batches     uint64    `json:"batches"`
	Audits      uint64    `json:"audits"`
	LastApplied time.Time `json:"lastApplied,omitzero"`
	LastTook    float64   `json:"lastTookSeconds"`
}

// PolicyNumbers are what is enforced.
type PolicyNumbers struct {
	Policies        int `json:"policies"` // that isolate a pod of this node
	Pods            int `json:"pods"`     // of this node, that policies can select
	IsolatedIngress int `json:"isolatedIngress"`
	IsolatedEgress  int `json:"isolatedEgress"`
	Classes         int `json:"classes"`
	Sets            int `json:"sets"`
}

// state is how the agent is now.
func (m Metrics) state(now time.Time) State {
	loops := m.Loops()
	s := State{Version: m.Version, Time: now, Loops: []Loop{}, Health: m.verdict(now)}
	if m.Node != nil {
		s.Node = m.Node.Name
		for _, f := range m.Node.Families {
			s.Families = append(s.Families, f.String())
		}
	}
	for _, l := range loops {
		s.Loops = append(s.Loops, loopOf(l))
	}
	if m.BGP != nil {
		list := m.BGP.peers(loops)
		s.BGP = &list
	}
	if m.Policy != nil {
		s.Policy = numbersOf(m.Policy.Status())
	}
	return s
}

func (m Metrics) verdict(now time.Time) Verdict {
	if m.Health.Loops == nil {
		return Verdict{Healthy: true, Eligible: true, Reasons: []string{}, Ready: true}
	}
	r := m.Health.report(now)
	v := Verdict{Healthy: r.Healthy, Eligible: *r.NodeEligible, Reasons: []string{}}
	for _, reason := range r.Reasons {
		v.Reasons = append(v.Reasons, oneLine(reason))
	}
	v.Ready, v.NotReady = m.Health.Ready()
	return v
}

func loopOf(s reconcile.Status) Loop {
	l := Loop{
		Table: s.Name, Listed: s.Listed, Synced: s.Synced, Wanted: s.Wanted, Present: s.Present,
		Dirty: s.Puts + s.Dels - s.Deferred, Draining: s.Deferred,
		Failing: []LoopFailure{}, FailingCount: s.FailingCount, BusySince: s.BusySince,
		Work: LoopWork{
			Written: s.Written, Deleted: s.Deleted, Drift: s.Drift, Batches: s.Applies, Audits: s.Audits,
			LastApplied: s.LastApply, LastTook: s.LastApplyTook.Seconds(),
		},
	}
	for _, f := range s.Failing {
		l.Failing = append(l.Failing, LoopFailure{f.Key, oneLine(f.Error), f.Since, f.Tries})
	}
	return l
}

func numbersOf(s policy.Status) *PolicyNumbers {
	return &PolicyNumbers{s.Policies, s.LocalPods, s.IsolatedIngress, s.IsolatedEgress, s.Classes, s.Sets}
}

// serveState answers as text, or as JSON if the parameter format asks for it.
func (m Metrics) serveState(w http.ResponseWriter, r *http.Request) {
	s := m.state(time.Now())
	switch format := r.URL.Query().Get("format"); format {
	case "json":
		writeJSON(w, s)
	case "", "text":
		WriteState(w, s.Loops, s.Time)
		if s.BGP != nil && len(s.BGP.Peers)+len(s.BGP.Problems) > 0 {
			fmt.Fprintln(w)
			WritePeers(w, *s.BGP, s.Time, false)
		}
	default:
		http.Error(w, fmt.Sprintf("format %q: use json, or leave it out for text", format), http.StatusBadRequest)
	}
}
