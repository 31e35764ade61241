package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/file"
	"sluice.dev/sluice/internal/source/kube"
	"sluice.dev/sluice/policy"
)

// The codes that commands of policy end with, besides 0.
const (
	codeFound = 1 // denied, or something is wrong with a policy
	codeError = 2 // there is no answer
)

// outputText is the value of --output that is for people.
const outputText = "text"

// policyCommand explains and shows what NetworkPolicy does.
func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Explain NetworkPolicy, find mistakes in it, and watch what it denies",
		Long: "Explain what NetworkPolicy allows and why, find mistakes in policies, and watch what the agent of this node denies.\n" +
			"Nothing can be changed here. Commands end with 2 when they have no answer.",
		Example: "  sluice policy explain --from shop/web-0 --to shop/db-0:5432\n  sluice policy lint -f ./manifests\n  sluice policy watch",
	}
	cmd.AddCommand(policyExplainCommand(), policyLintCommand(), policyWatchCommand())
	for _, sub := range cmd.Commands() {
		withoutAnswer(sub)
	}
	return cmd
}

// withoutAnswer has every failure of a command end with codeError.
func withoutAnswer(cmd *cobra.Command) {
	failed := func(err error) error {
		if _, has := errors.AsType[exitError](err); err == nil || has {
			return err
		}
		return exitError{codeError, err}
	}
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return failed(run(cmd, args)) }
	cmd.Args = func(cmd *cobra.Command, args []string) error { return failed(cobra.NoArgs(cmd, args)) }
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return failed(err) })
}

// explaining is what `sluice policy explain` is told.
type explaining struct {
	from, to string
	protocol string
	port     uint16
	facts    factsOf
	agent    string
	output   string
}

func policyExplainCommand() *cobra.Command {
	var x explaining
	cmd := &cobra.Command{
		Use:   "explain --from POD|ADDRESS --to POD|ADDRESS[:PORT]",
		Short: "Say whether one may connect to another, and by which policy and rule or why not",
		Long: "Say whether one may connect to another as far as NetworkPolicy goes, on both ends: by which policy and rule, or what is\n" +
			"missing. A Service's address or NodePort is followed to each of its endpoints.\n" +
			"The agent of this node answers by what is in the cluster now. With --kubeconfig the API server is read instead, and\n" +
			"with -f a directory of YAML (Pod, Namespace, NetworkPolicy, Service, EndpointSlice, Node): before anything is applied.\n\n" +
			"Ends with 0 when it is allowed, on all ways there are, 1 when it is denied, and 2 when there is no answer.",
		Example: "  sluice policy explain --from shop/web-0 --to shop/db-0:5432\n" +
			"  sluice policy explain --from shop/web-0 --to 10.96.0.10 --protocol udp --port 53\n" +
			"  sluice policy explain --from 198.51.100.7 --to shop/web-0:8080 -f ./manifests -o json",
		RunE: func(cmd *cobra.Command, _ []string) error { return x.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&x.from, "from", "", "who connects: \"namespace/pod\" or an address")
	f.StringVar(&x.to, "to", "", "to whom: \"namespace/pod\", or an address of a pod, node, Service or stranger; \":port\" may follow, as in shop/db-0:80, 10.96.0.1:443 or [fd00::1]:80")
	f.StringVar(&x.protocol, "protocol", "tcp", "tcp, udp, sctp, icmp, icmpv6 or a number")
	f.Uint16Var(&x.port, "port", 0, "the destination's port, if --to has none")
	x.facts.flags(f)
	agentFlag(f, &x.agent)
	outputFlag(f, &x.output)
	return cmd
}

func outputFlag(f *pflag.FlagSet, output *string) {
	f.StringVarP(output, "output", "o", outputText, "text or json")
}

func checkOutput(output string) error {
	if output != outputText && output != outputJSON {
		return fmt.Errorf("--output %q: use text or json", output)
	}
	return nil
}

func (x explaining) run(cmd *cobra.Command) error {
	if err := checkOutput(x.output); err != nil {
		return err
	}
	protocol, err := policy.ParseProtocol(x.protocol)
	if err != nil {
		return fmt.Errorf("--%w", err)
	}
	if x.from == "" || x.to == "" {
		return errors.New("--from and --to: name who connects and to whom, as in --from shop/web-0 --to shop/db-0:5432")
	}
	answer, err := x.ask(cmd, policy.Query{From: x.from, To: x.to, Protocol: protocol, Port: x.port})
	if err != nil {
		return err
	}
	switch {
	case x.output == outputJSON:
		err = writeJSON(cmd.OutOrStdout(), answer)
	case answer.Error == "":
		_, err = io.WriteString(cmd.OutOrStdout(), answer.String())
	}
	switch {
	case err != nil:
		return err
	case answer.Error != "":
		return fmt.Errorf("no answer: %s", answer.Error)
	case !answer.Allowed:
		return exitError{codeFound, nil}
	}
	return nil
}

// ask has the query answered by the facts that are named, else by the agent.
func (x explaining) ask(cmd *cobra.Command, q policy.Query) (policy.Explanation, error) {
	if x.facts.named() {
		if cmd.Flags().Changed("agent") || cmd.Flags().Changed("address") {
			return policy.Explanation{}, errors.New("--agent excludes -f and --kubeconfig: one of them has the facts")
		}
		facts, problems, err := x.facts.load(cmd.Context())
		if err != nil {
			return policy.Explanation{}, err
		}
		say(cmd.ErrOrStderr(), problems)
		return facts.Explain(q), nil
	}
	a, err := parseAgent(x.agent)
	if err != nil {
		return policy.Explanation{}, err
	}
	return a.explain(cmd.Context(), q)
}

// factsOf says where facts are read from, once.
type factsOf struct{ directory, kubeconfig string }

func (o *factsOf) flags(f *pflag.FlagSet) {
	f.StringVarP(&o.directory, "manifests", "f", "", "directory of YAML to read")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig of the API server to read")
}

func (o factsOf) named() bool { return o.directory != "" || o.kubeconfig != "" }

// load reads what there is. A file that cannot be read may hold a policy, so that
// it is an error; what else is wrong is returned.
func (o factsOf) load(ctx context.Context) (*policy.Facts, []model.Problem, error) {
	if o.directory != "" && o.kubeconfig != "" {
		return nil, nil, errors.New("-f and --kubeconfig exclude each other: facts come from one of them")
	}
	read := o.readServer
	if o.directory != "" {
		read = o.readDirectory
	}
	events, problems, err := read(ctx)
	if err != nil {
		return nil, nil, err
	}
	var broken []string
	for _, p := range problems {
		if p.Kind == file.FileKind {
			broken = append(broken, p.Message)
		}
	}
	if len(broken) > 0 {
		return nil, nil, fmt.Errorf("not every file can be used: %s", strings.Join(broken, "; "))
	}
	facts := policy.NewFacts("")
	for _, e := range events {
		facts.Apply(e)
	}
	return facts, problems, nil
}

func (o factsOf) readDirectory(context.Context) ([]model.Event, []model.Problem, error) {
	return file.Load(o.directory)
}

func (o factsOf) readServer(ctx context.Context) (facts []model.Event, problems []model.Problem, err error) {
	client, err := kube.NewClient(o.kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	objects, err := kube.NewDynamic(o.kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	events, err := kube.Load(ctx, kube.Options{Client: client, Dynamic: objects, Kinds: kube.Proxy | kube.Policing})
	if err != nil {
		return nil, nil, err
	}
	for _, e := range events {
		if e.Problem != nil {
			problems = append(problems, *e.Problem)
		} else {
			facts = append(facts, e)
		}
	}
	return facts, problems, nil
}

// say writes what is wrong with objects, one line each.
func say(w io.Writer, problems []model.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s %s: %s: %s\n", p.Kind, p.Object, p.Reason, p.Message)
	}
}

// linting is what `sluice policy lint` is told.
type linting struct {
	facts  factsOf
	output string
}

func policyLintCommand() *cobra.Command {
	var l linting
	cmd := &cobra.Command{
		Use:   "lint -f DIRECTORY | --kubeconfig FILE",
		Short: "Find what most likely is not meant in NetworkPolicies",
		Long: "Find what most likely is not meant in NetworkPolicies, one line each, with the remedy: a dash that makes an OR of an AND,\n" +
			"fields that are dropped where they stand, egress without DNS, ports that no pod serves, and more.\n" +
			"What needs to know pods, namespaces or Services is looked at where there are any.\n\n" +
			"Ends with 0 when nothing is found, 1 when something is, and 2 when not everything could be looked at.",
		Example: "  sluice policy lint -f ./manifests\n  sluice policy lint --kubeconfig ~/.kube/config -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	l.facts.flags(cmd.Flags())
	outputFlag(cmd.Flags(), &l.output)
	return cmd
}

func (l linting) run(cmd *cobra.Command) error {
	if err := checkOutput(l.output); err != nil {
		return err
	}
	if !l.facts.named() {
		return errors.New("name what is to be looked at: -f DIRECTORY or --kubeconfig FILE")
	}
	facts, problems, err := l.facts.load(cmd.Context())
	if err != nil {
		return err
	}
	found := policy.Lint(facts, problems)
	out := cmd.OutOrStdout()
	if l.output == outputJSON {
		if err := writeJSON(out, append([]policy.Warning{}, found...)); err != nil {
			return err
		}
	} else {
		for _, w := range found {
			fmt.Fprintln(out, w)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d found in %d NetworkPolicies\n", len(found), facts.Counts().Policies)
	}
	if len(found) > 0 {
		return exitError{codeFound, nil}
	}
	return nil
}

// checkPod refuses what is no pod's name.
func checkPod(pod string) error {
	namespace, name, two := strings.Cut(pod, "/")
	if _, err := netip.ParseAddr(pod); err == nil || pod != "" && (!two || namespace == "" || name == "" || strings.Contains(name, "/")) {
		return fmt.Errorf("--pod %q: use namespace/name, such as default/web-0", pod)
	}
	return nil
}
