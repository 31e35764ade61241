package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// manifests is the directory that all agents read.
func (s *stage) manifests() agent.Manifests {
	return agent.Manifests(filepath.Join(s.dir, "manifests"))
}

// openWeb writes Service web with all its pods, and the nodes.
func (s *stage) openWeb() error {
	if err := os.MkdirAll(string(s.manifests()), 0o755); err != nil {
		return err
	}
	return errors.Join(
		s.manifests().WriteText("web.yaml", webYAML()),
		s.apply(len(s.pods)),
		s.applyNodes(nil),
	)
}

// apply puts the first n web pods in service.
func (s *stage) apply(n int) error {
	return s.manifests().WriteText("web-endpoints.yaml", s.endpointsYAML("web", s.pods[:n]))
}

// applyNodes writes the nodes, one of them drained; nil: none is.
func (s *stage) applyNodes(drained *topo.Host) error {
	var b strings.Builder
	for _, n := range s.net.Nodes {
		annotations := "{}"
		if n == drained {
			annotations = drainAnnotation
		}
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Node
metadata: {name: %s, annotations: %s}
status:
  addresses: [{type: InternalIP, address: %s}]
`, n.Name, annotations, n.V4)
	}
	return s.manifests().WriteText("nodes.yaml", b.String())
}

func webYAML() string {
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

func (s *stage) endpointsYAML(service string, pods []*topo.Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: %[2]d, protocol: TCP}]
endpoints:
`, service, podPort)
	for _, p := range pods {
		fmt.Fprintf(&b, "  - {addresses: [%s], nodeName: %s, conditions: {ready: true}}\n", p.V4, s.net.NodeOf(p).Name)
	}
	return b.String()
}

// shopIP is the address that Service shop gets: the pool's first is web's.
const shopIP = "203.0.113.81"

// The autonomous systems of the router and of the nodes.
const routerASN, nodesASN = 64513, 64512

// speakYAML has the agents give addresses and tell the router of them.
func (s *stage) speakYAML() string {
	return fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata: {name: public}
spec: {addresses: [203.0.113.80-203.0.113.95]}
---
apiVersion: sluice.dev/v1alpha1
kind: BGPPeer
metadata: {name: router}
spec: {peerAddress: %v, peerASN: %d, myASN: %d}
---
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: public}
spec: {addressPools: [public], peers: [router]}
`, s.net.Router.V4, routerASN, nodesASN)
}

// shopYAML says nothing of an address: it is the agents' to give.
func shopYAML() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.81
  clusterIPs: [10.96.0.81]
  allocateLoadBalancerNodePorts: false
  ports: [{name: http, port: %d, targetPort: %d}]
`, port, podPort)
}
