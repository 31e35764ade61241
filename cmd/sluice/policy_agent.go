package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/policy"
)

// loadTimeout is how long the reading of an API server may take.
const loadTimeout = time.Minute

// lineMost is the longest line of a follower.
const lineMost = 1 << 20

// policyAgent is a running agent that is asked about policy.
type policyAgent struct{ url string }

// parseAgent reads --agent: "http://host:port", or host:port alone.
func parseAgent(text string) (policyAgent, error) {
	full := text
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return policyAgent{}, fmt.Errorf("--agent %q: use http://host:port, such as http://127.0.0.1:10249", text)
	}
	return policyAgent{url: u.Scheme + "://" + u.Host}, nil
}

// explain has the agent answer one query.
func (a policyAgent) explain(ctx context.Context, q policy.Query) (policy.Explanation, error) {
	body, err := json.Marshal([]policy.Query{q})
	if err != nil {
		return policy.Explanation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	response, err := a.do(ctx, http.MethodPost, "/policy/explain", bytes.NewReader(body))
	if err != nil {
		return policy.Explanation{}, err
	}
	defer response.Body.Close() //nolint:errcheck // it has been read
	var answers []policy.Explanation
	if err := json.NewDecoder(response.Body).Decode(&answers); err != nil || len(answers) != 1 {
		return policy.Explanation{}, fmt.Errorf("what %s answers is no explanation; see that --agent is the agent's and of this command's version", a.url)
	}
	return answers[0], nil
}

// do sends a request, and returns the response if it is an answer.
func (a policyAgent) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, body)
	if err != nil {
		return nil, fmt.Errorf("--agent %q: use http://host:port, such as http://127.0.0.1:10249", a.url)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy lies between
	response, err := client.Do(request)
	if err != nil {
		if cause, ok := errors.AsType[*url.Error](err); ok {
			err = cause.Err
		}
		return nil, fmt.Errorf("no agent answers at %s: %w; run this on a node where `sluice run` does, and name its --metrics-bind-address with --agent", a.url, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()                               //nolint:errcheck // it has been read
	text, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // says more than no text does
	return nil, refusal{a.url, response.StatusCode, string(text)}
}

// refusal is an agent's answer that it has none.
type refusal struct {
	agent string
	code  int
	text  string
}

func (r refusal) Error() string {
	status := fmt.Sprintf("%d %s", r.code, http.StatusText(r.code))
	if r.code == http.StatusNotFound && !strings.Contains(r.text, "NetworkPolicy") {
		return fmt.Sprintf("the agent at %s knows nothing of NetworkPolicy: it is older than this command, or --agent names something else", r.agent)
	}
	return fmt.Sprintf("the agent at %s answers %s: %s", r.agent, status, strings.TrimSpace(r.text))
}

// follow calls opened with the agent's time when it begins to answer, and then
// line for each denial. It ends, with an error, when ctx does or the agent is
// not heard of for three beats.
func (a policyAgent) follow(ctx context.Context, q status.DeniedQuery, opened func(time.Time), line func(status.Denied) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const patience = 3 * status.FollowBeat
	silence := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing was heard for %v", patience)) })
	defer silence.Stop()
	response, err := a.do(ctx, http.MethodGet, "/policy/denied?"+q.Values().Encode(), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was read only
	at, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		at = time.Now()
	}
	opened(at)
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, lineMost)
	for lines.Scan() {
		silence.Reset(patience)
		if len(lines.Bytes()) == 0 {
			continue
		}
		var d status.Denied
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return fmt.Errorf("what %s answers is no denial (%w); see that --agent is the agent's", a.url, err)
		}
		if err := line(d); err != nil {
			return err
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if lines.Err() != nil {
		return lines.Err()
	}
	return io.ErrUnexpectedEOF
}
