package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// The files that the chapter of NetworkPolicy writes and takes away again.
const policyFile, podsFile = "policy.yaml", "pods.yaml"

// police has a policy keep the pod shell out, shows why, and lets it in by a
// label. All the time the Service's address is what it asks.
func (s *stage) police(ctx context.Context) error {
	if err := s.manifests().WriteText(podsFile, s.podsYAML("")); err != nil {
		return err
	}
	edited := time.Now()
	if err := s.manifests().WriteText(policyFile, policyYAML); err != nil {
		return err
	}
	if err := s.awaitAnswer(ctx, false); err != nil {
		return err
	}
	refused := time.Since(edited).Milliseconds()
	s.say("a NetworkPolicy lets only pods with the label role=friend ask web: shell is refused %d ms after the file was written", refused)
	s.say("node3: sluice policy explain --from default/shell --to %s", s.service(clusterIP))
	out, err := s.net.Nodes[2].Run(ctx, s.sluice, "policy", "explain", "--from", "default/shell", "--to", s.service(clusterIP).String())
	if err == nil {
		return fmt.Errorf("explain says that it is allowed:\n%s", out)
	}
	s.quote(out)
	edited = time.Now()
	if err := s.manifests().WriteText(podsFile, s.podsYAML("friend")); err != nil {
		return err
	}
	if err := s.awaitAnswer(ctx, true); err != nil {
		return err
	}
	allowed := time.Since(edited).Milliseconds()
	s.say("shell gets the label: it is answered %d ms after the file was written", allowed)
	s.fact("NetworkPolicy through the cluster IP: refused %d ms after the file was written, answered %d ms after the label", refused, allowed)
	dir := string(s.manifests())
	return errors.Join(os.Remove(filepath.Join(dir, policyFile)), os.Remove(filepath.Join(dir, podsFile)))
}

// awaitAnswer asks until the pod shell is answered, or refused, ten times on
// end: by whatever endpoint.
func (s *stage) awaitAnswer(ctx context.Context, answered bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for times := 0; times < 10; times++ {
		_, err := s.shell.Ask(ctx, topo.HTTP, s.service(clusterIP))
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("shell -> cluster IP: answered %v was awaited: %w", answered, errors.Join(err, ctx.Err()))
		case (err == nil) != answered:
			times = -1
		}
	}
	return nil
}

const policyYAML = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only, namespace: default}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {role: friend}}}]
      ports: [{port: 8080}]
`

// podsYAML are the pods, the shell with a role; "": none.
func (s *stage) podsYAML(role string) string {
	var b strings.Builder
	pod := func(p *topo.Host, labels string) {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {%s}}
spec: {nodeName: %s, containers: [{name: main}]}
status: {phase: Running, podIPs: [{ip: %s}]}
`, p.Name, labels, s.net.NodeOf(p).Name, p.V4)
	}
	for _, p := range s.pods {
		pod(p, "app: web")
	}
	labels := "app: shell"
	if role != "" {
		labels += ", role: " + role
	}
	pod(s.shell, labels)
	return b.String()
}
