package main

import (
	"os"

	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

// kubeProxy is this program's name when it is to be kube-proxy, which tests take
// nodes over from.
const kubeProxy = "kube-proxy"

// beKubeProxy returns when kube-proxy has ended.
func beKubeProxy() error {
	cmd := app.NewProxyCommand()
	cmd.SetArgs(os.Args[1:])
	return cmd.Execute()
}
