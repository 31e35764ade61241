// Package proxyconfig reads kube-proxy's configuration file, a
// KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, and says what of
// it Sluice does the same and what it ignores and why.
package proxyconfig

import (
	_ "k8s.io/kube-proxy/config/v1alpha1" // the types, as kube-proxy has them
)
