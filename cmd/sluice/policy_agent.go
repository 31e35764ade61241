package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/policy"
)

// loadTimeout is how long the reading of an API server may take.
const loadTimeout = time.Minute

// lineMost is the longest line of a follower.
const lineMost = 1 << 20

// explain has the agent answer one query.
func (a runningAgent) explain(ctx context.Context, q policy.Query) (policy.Explanation, error) {
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

// follow calls opened with the agent's time when it begins to answer, and then
// line for each denial. It ends, with an error, when ctx does or the agent is
// not heard of for three beats.
func (a runningAgent) follow(ctx context.Context, q status.DeniedQuery, opened func(time.Time), line func(status.Denied) error) error {
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
