package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/status"
)

// watchPause is the time between two attempts to reach an agent that has gone.
const watchPause = time.Second

// watching is what `sluice policy watch` is told.
type watching struct {
	agent  string
	output string
	pod    string
	last   int
}

func policyWatchCommand() *cobra.Command {
	var w watching
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what NetworkPolicy denies on this node, as it happens",
		Long: "Show what NetworkPolicy denies on this node, one line each, until stopped: when, on which side (the sender's egress,\n" +
			"the receiver's ingress, revoked for a connection that stood before, unknown for an address that is no known pod's),\n" +
			"who wanted to reach whom, which policies isolate the pod, and what they lack. Of each connection that is tried again\n" +
			"and again the first packet shows at once and then one in ten seconds, with the number of those in between.\n" +
			"When the agent goes away it is waited for.",
		Example: "  sluice policy watch\n  sluice policy watch --pod shop/web-0 --last 100\n  sluice policy watch -o json | jq .why",
		RunE:    func(cmd *cobra.Command, _ []string) error { return w.run(cmd) },
	}
	f := cmd.Flags()
	agentFlag(f, &w.agent)
	outputFlag(f, &w.output)
	f.StringVar(&w.pod, "pod", "", "show only what this pod (\"namespace/name\") sends or is sent")
	f.IntVar(&w.last, "last", 10, "show so many of those before, as far as the agent has them")
	return cmd
}

func (w watching) run(cmd *cobra.Command) error {
	if err := checkOutput(w.output); err != nil {
		return err
	}
	if err := checkPod(w.pod); err != nil {
		return err
	}
	if w.last < 0 {
		return fmt.Errorf("--last %d: use a number of 0 or more", w.last)
	}
	a, err := parseAgent(w.agent)
	if err != nil {
		return err
	}
	return w.follow(cmd, a)
}

// follow follows the agent, and again when it has gone and come back. One that
// never was there, or has no policy, is an error.
func (w watching) follow(cmd *cobra.Command, a runningAgent) error {
	ctx, tell := cmd.Context(), cmd.ErrOrStderr()
	out, encode := cmd.OutOrStdout(), json.NewEncoder(cmd.OutOrStdout())
	q := status.DeniedQuery{Follow: true, Last: w.last, Pod: w.pod}
	there, met := false, false
	opened := func(at time.Time) {
		if met {
			fmt.Fprintf(tell, "the agent at %s answers again\n", a.url)
		} else {
			q.Since = at // what comes when it has gone; until then --last decides
		}
		there, met = true, true
	}
	line := func(d status.Denied) error {
		if d.Time.After(q.Since) {
			q.Since = d.Time
		}
		if w.output == outputJSON {
			return encode.Encode(d)
		}
		return status.WriteDenied(out, d)
	}
	for {
		err := a.follow(ctx, q, opened, line)
		_, refused := errors.AsType[refusal](err)
		switch {
		case ctx.Err() != nil:
			return nil // it was stopped
		case !met || refused:
			return err
		case there:
			fmt.Fprintf(tell, "the agent at %s has gone (%v); waiting for it\n", a.url, err)
		}
		there, q.Last = false, -1
		wait(ctx, watchPause)
	}
}
