package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/status"
)

// codeUnhealthy is what `sluice status` ends with when the agent answers and is
// not healthy. That nobody answers is 1, as of every command.
const codeUnhealthy = 2

// errUnhealthy has nothing to add to what has been written.
var errUnhealthy = exitError{codeUnhealthy, nil}

// statusCommand shows how the agent of this node is.
func statusCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how this node's agent is: health, tables, sessions, policy",
		Long: "Show how the agent that runs on this node is: whether it is healthy and ready, what its version is and which\n" +
			"families it serves, and of each table how many keys are wanted and present, dirty (to be written or deleted),\n" +
			"draining (on their way out) and failing, with the errors; how many others have changed, and when it was last written.\n\n" +
			"Ends with 0 when the agent is healthy, as /healthz says, 2 when it is not, and 1 when it does not answer.\n" +
			"That load balancers are to leave the node, or that something is still to be written, is no fault.",
		Example: "  sluice status\n  sluice status -o json | jq '.loops[] | select(.failingCount > 0)'\n" +
			"  sluice status --agent 192.0.2.11:10249",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd) },
	}
	agentFlag(cmd.Flags(), &a.agent)
	cmd.Flags().StringVarP(&a.output, "output", "o", outputTable, "json or yaml for what /state?format=json answers")
	return cmd
}

func (a asking) status(cmd *cobra.Command) (err error) {
	if o := a.output; o != outputTable && o != outputJSON && o != outputYAML {
		return fmt.Errorf("--output %q: use json or yaml, or leave it out", o)
	}
	var s status.State
	if err := askAgent(cmd.Context(), a.agent, "/state?format=json", &s); err != nil {
		return err
	}
	if len(s.Loops) == 0 {
		return errors.New("what answers is no agent, or one that does nothing; see that --agent is the agent's")
	}
	out := cmd.OutOrStdout()
	switch a.output {
	case outputJSON:
		err = writeJSON(out, s)
	case outputYAML:
		err = writeYAML(out, s)
	default:
		status.WriteStatus(out, s)
	}
	if err == nil && !s.Health.Healthy {
		return errUnhealthy
	}
	return err
}
