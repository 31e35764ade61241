package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func (s *stage) manifests() string { return filepath.Join(s.dir, "manifests") }

// apply writes the manifests with the first n web pods in service. A file is
// replaced in one step, as editors and kubelets do.
func (s *stage) apply(n int) error {
	if err := os.MkdirAll(s.manifests(), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"service.yaml":   serviceYAML(),
		"endpoints.yaml": s.endpointsYAML(n),
		"nodes.yaml":     s.nodesYAML(),
	} {
		path := filepath.Join(s.manifests(), name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func serviceYAML() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: %[1]s
  clusterIPs: [%[1]s]
  ports: [{name: http, port: %[3]d, targetPort: %[5]d, nodePort: %[4]d}]
status:
  loadBalancer: {ingress: [{ip: %[2]s}]}
`, clusterIP, loadIP, port, nodePort, podPort)
}

func (s *stage) endpointsYAML(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: %d, protocol: TCP}]
endpoints:
`, podPort)
	for i, p := range s.pods[:n] {
		fmt.Fprintf(&b, "  - {addresses: [%s], nodeName: %s, conditions: {ready: true}}\n", p.V4, s.net.Nodes[i%len(s.net.Nodes)].Name)
	}
	return b.String()
}

func (s *stage) nodesYAML() string {
	var b strings.Builder
	for _, n := range s.net.Nodes {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Node
metadata: {name: %s}
status:
  addresses: [{type: InternalIP, address: %s}]
`, n.Name, n.V4)
	}
	return b.String()
}
