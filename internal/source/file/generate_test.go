package file

import (
	"fmt"
	"strings"
)

func serviceYAML(name, ip string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: %s
  namespace: default
  labels:
    app: %s
spec:
  type: ClusterIP
  clusterIP: %s
  clusterIPs:
  - %s
  selector:
    app: %s
  ports:
  - name: http
    protocol: TCP
    port: 80
    targetPort: 8080
`, name, name, ip, ip, name)
}

func sliceYAML(name, service string, endpoints int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %s
  namespace: default
  labels:
    kubernetes.io/service-name: %s
addressType: IPv4
ports:
- name: http
  protocol: TCP
  port: 8080
endpoints:
`, name, service)
	for i := range endpoints {
		fmt.Fprintf(&b, `- addresses:
  - 10.%d.%d.%d
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: node-%d
  zone: zone-a
`, 1+i>>16, i>>8&255, i&255, i)
	}
	return b.String()
}
