package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"sluice.dev/sluice/policy"
)

const (
	// queriesMost and queryBytes bound what /policy/explain is asked at once.
	queriesMost = 1000
	queryBytes  = 1 << 20
	// followersMost bounds who follows /policy/denied at one time.
	followersMost = 32
	// FollowBeat is how often a follower of /policy/denied hears of the agent,
	// by an empty line, if there is nothing to tell.
	FollowBeat = 10 * time.Second
	// followWrite is how long a follower may take to read what was written.
	followWrite = 10 * time.Second
)

// Policy is where NetworkPolicy is seen and explained. All functions may be
// called from any goroutine, at every request and scrape.
type Policy struct {
	Explain func(policy.Query) policy.Explanation
	Denials *policy.Denials
	Status  func() policy.Status
	Revoked func() uint64 // connections that were stopped since policies do not allow them any more
}

// Denied is a line of /policy/denied.
type Denied struct {
	policy.Denial
	// Missed counts denials before this one that a follower was too slow for,
	// whomever they concern.
	Missed uint64 `json:"missed,omitempty"`
}

// serve answers /policy/explain and /policy/denied. Without policy both say so.
func (p *Policy) serve(mux *http.ServeMux) {
	if p == nil {
		mux.HandleFunc("/policy/", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "NetworkPolicy is not enforced here: the agent runs with --enable-policy=false; leave that out to have it enforced", http.StatusNotFound)
		})
		return
	}
	mux.HandleFunc("POST /policy/explain", p.explainAll)
	mux.HandleFunc("GET /policy/explain", p.explainOne)
	places := make(chan struct{}, followersMost)
	mux.HandleFunc("GET /policy/denied", func(w http.ResponseWriter, r *http.Request) { p.serveDenied(w, r, places) })
}

// explainAll answers an array of questions with an array in the same order.
func (p *Policy) explainAll(w http.ResponseWriter, r *http.Request) {
	var queries []policy.Query
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, queryBytes)).Decode(&queries)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		http.Error(w, fmt.Sprintf("the body has more than %d bytes: ask in several requests", queryBytes), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, fmt.Sprintf(`the body is no list of queries (%v); send [{"from": "default/web", "to": "10.96.0.1:443", "protocol": "TCP"}]`, err), http.StatusBadRequest)
		return
	}
	if len(queries) > queriesMost {
		http.Error(w, fmt.Sprintf("%d queries: ask %d at most in one request", len(queries), queriesMost), http.StatusBadRequest)
		return
	}
	answers := make([]policy.Explanation, len(queries))
	for i, q := range queries {
		if r.Context().Err() != nil {
			return // nobody waits for the rest
		}
		answers[i] = p.Explain(q)
	}
	writeJSON(w, answers)
}

// explainOne answers the question that the address's parameters ask.
func (p *Policy) explainOne(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	protocol, err := policy.ParseProtocol(v.Get("protocol"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := policy.Query{From: v.Get("from"), To: v.Get("to"), Protocol: protocol}
	if text := v.Get("port"); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			http.Error(w, fmt.Sprintf("port %q: use a number from 1 to 65535", text), http.StatusBadRequest)
			return
		}
		q.Port = uint16(port)
	}
	writeJSON(w, p.Explain(q))
}

// DeniedQuery is what /policy/denied is asked for.
type DeniedQuery struct {
	Follow bool      // and whatever is denied from now on
	Last   int       // at most so many of those that were; below 0: all
	Since  time.Time // only later ones; zero: whenever
	Pod    string    // only those of this pod, "namespace/name"; "": of all
}

// Values are the parameters that ask for it.
func (q DeniedQuery) Values() url.Values {
	v := url.Values{}
	if q.Follow {
		v.Set("follow", "1")
	}
	if q.Last >= 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Pod != "" {
		v.Set("pod", q.Pod)
	}
	return v
}

func readDeniedQuery(v url.Values) (q DeniedQuery, err error) {
	q = DeniedQuery{Last: -1, Pod: v.Get("pod")}
	if text := v.Get("follow"); text != "" {
		if q.Follow, err = strconv.ParseBool(text); err != nil {
			return q, fmt.Errorf("follow %q: use 1, or leave it out", text)
		}
	}
	if text := v.Get("last"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return q, fmt.Errorf("last %q: use a number, or leave it out for all", text)
		}
		q.Last = int(n)
	}
	if text := v.Get("since"); text != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return q, fmt.Errorf("since %q: use a time such as 2026-01-02T15:04:05Z", text)
		}
	}
	return q, nil
}

// choose leaves the denials that are asked for.
func (q DeniedQuery) choose(list []policy.Denial) []policy.Denial {
	return slices.DeleteFunc(list, func(d policy.Denial) bool {
		return !q.Since.IsZero() && !d.Time.After(q.Since) || q.Pod != "" && !d.Concerns(q.Pod)
	})
}

// serveDenied writes denials as lines of JSON: those that are kept, and if the
// client follows, others as they come until it goes.
func (p *Policy) serveDenied(w http.ResponseWriter, r *http.Request, places chan struct{}) {
	q, err := readDeniedQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if q.Follow {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			http.Error(w, fmt.Sprintf("%d follow already; ask without follow=1, or end one of them", followersMost), http.StatusServiceUnavailable)
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	list, last, more := p.Denials.After(0)
	list = q.choose(list)
	if q.Last >= 0 && len(list) > q.Last {
		list = list[len(list)-q.Last:]
	}
	out := follower{w: w, control: http.NewResponseController(w)}
	if !out.write(list) || !q.Follow {
		return
	}
	beat := time.NewTicker(FollowBeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if !out.beat() {
				return
			}
			continue
		case <-more:
		}
		was := last
		list, last, more = p.Denials.After(was)
		out.missed += last - was - uint64(len(list))
		if !out.write(q.choose(list)) {
			return
		}
	}
}

// follower is somebody who reads denials.
type follower struct {
	w       http.ResponseWriter
	control *http.ResponseController
	missed  uint64 // denials that it has not been told of yet as missed
}

// write writes denials; it is false when nobody reads any more.
func (f *follower) write(list []policy.Denial) bool {
	f.extend()
	e := json.NewEncoder(f.w)
	for _, d := range list {
		if e.Encode(Denied{Denial: d, Missed: f.missed}) != nil {
			return false
		}
		f.missed = 0
	}
	return f.control.Flush() == nil
}

// beat writes an empty line.
func (f *follower) beat() bool {
	f.extend()
	_, err := f.w.Write([]byte("\n"))
	return err == nil && f.control.Flush() == nil
}

// extend gives the client time for what is written next, however long the
// answer has lasted. A writer without deadlines needs none.
func (f *follower) extend() { _ = f.control.SetWriteDeadline(time.Now().Add(followWrite)) }
