package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/status"
)

// showing is what `sluice services` is told.
type showing struct {
	asking
	namespace string
}

// servicesCommand shows what Services mean on this node, and why.
func servicesCommand() *cobra.Command {
	var s showing
	cmd := &cobra.Command{
		Use:   "services [NAMESPACE/NAME | NAME]",
		Short: "Show what Services mean on this node, and why each endpoint is in or out",
		Long: "Show the Services that the agent of this node serves, one line each: how many of the endpoints it knows of get\n" +
			"traffic here, and whether the kernel holds what the Service means (programmed), not yet (pending), or its turn\n" +
			"comes later (waiting).\n\n" +
			"With a name show one Service: each of its addresses and ports with what the kernel's tables hold of it, the error where\n" +
			"one of them has refused it, or why the Service does not answer there; each endpoint that an EndpointSlice names, and\n" +
			"why it is in or out of the list of policy Cluster and, where a frontend has it, of policy Local; health checks; routes.\n" +
			"A bare name is looked for in all namespaces, or in that of -n.\n\n" +
			"  FRONTEND               KIND          PORT  POLICY   ENDPOINTS    STATE       REASON\n" +
			"  TCP 10.96.0.80:80      ClusterIP     http  Cluster  2            programmed  -\n" +
			"  TCP 203.0.113.80:80    LoadBalancer  http  Local    0 (dropped)  programmed  -\n\n" +
			"  ENDPOINT         PORT  POD    NODE   CLUSTER         LOCAL\n" +
			"  10.244.2.2:8080  http  web-1  node2  in: ready       out: on node2, not on this node\n" +
			"  10.244.2.3:8080  http  web-2  node2  out: not ready  out: on node2, not on this node\n\n" +
			"Ends with 0, and with 1 when no agent answers or it knows of no such Service.",
		Example: "  sluice services\n  sluice services -n shop -o wide\n  sluice services shop/web\n  sluice services web -o yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return s.run(cmd, args) },
	}
	f := cmd.Flags()
	agentFlag(f, &s.agent)
	f.StringVarP(&s.namespace, "namespace", "n", "", "show only Services of this namespace")
	f.StringVarP(&s.output, "output", "o", outputTable, "wide for more columns, json or yaml for what /services or /services/NAMESPACE/NAME answer")
	return cmd
}

func (s showing) run(cmd *cobra.Command, args []string) error {
	if o := s.output; o != outputTable && o != outputWide && o != outputJSON && o != outputYAML {
		return fmt.Errorf("--output %q: use wide, json or yaml, or leave it out", o)
	}
	if len(args) == 0 {
		return s.list(cmd)
	}
	namespace, name, err := s.find(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	var d status.ServiceDetail
	if err := askAgent(cmd.Context(), s.agent, "/services/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), &d); err != nil {
		return err
	}
	switch out := cmd.OutOrStdout(); s.output {
	case outputJSON:
		return writeJSON(out, d)
	case outputYAML:
		return writeYAML(out, d)
	default:
		status.WriteService(out, d, s.output == outputWide)
		return nil
	}
}

func (s showing) list(cmd *cobra.Command) error {
	list, err := s.services(cmd.Context(), "")
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case s.output == outputJSON:
		return writeJSON(out, list)
	case s.output == outputYAML:
		return writeYAML(out, list)
	case len(list.Services) == 0:
		fmt.Fprintln(cmd.ErrOrStderr(), "no Service is proxied here"+s.within())
	default:
		status.WriteServices(out, list, time.Now(), s.output == outputWide)
	}
	return nil
}

// within is the namespace that was asked for, for messages.
func (s showing) within() string {
	if s.namespace == "" {
		return ""
	}
	return " in namespace " + s.namespace
}

// services are those of the namespace that was asked for, and of a name unless it
// is "".
func (s showing) services(ctx context.Context, name string) (list status.ServiceList, err error) {
	q := url.Values{}
	if s.namespace != "" {
		q.Set("namespace", s.namespace)
	}
	if name != "" {
		q.Set("name", name)
	}
	path := "/services"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	err = askAgent(ctx, s.agent, path, &list)
	return list, err
}

// find is the Service that an argument means.
func (s showing) find(ctx context.Context, arg string) (namespace, name string, err error) {
	namespace, name, two := strings.Cut(arg, "/")
	switch {
	case !two:
		name = arg
	case namespace == "" || name == "" || strings.Contains(name, "/"):
		return "", "", fmt.Errorf("%q is no Service; use namespace/name or a name, such as default/web or web", arg)
	case s.namespace != "" && s.namespace != namespace:
		return "", "", fmt.Errorf("%s is not in namespace %s, which -n names; leave one of them out", arg, s.namespace)
	default:
		return namespace, name, nil
	}
	list, err := s.services(ctx, name)
	if err != nil {
		return "", "", err
	}
	var found []string
	for _, svc := range list.Services {
		found = append(found, svc.Namespace+"/"+svc.Name)
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("no Service %s is proxied here%s: there is none, or it is headless, of type ExternalName or another proxy's; `sluice services` shows all", name, s.within())
	case 1:
		return list.Services[0].Namespace, name, nil
	}
	return "", "", fmt.Errorf("several Services are called %s: name one of %s", name, strings.Join(found, ", "))
}
