// Package proxyconfig reads the agent's configuration files. They hold
//
//   - kube-proxy's own, a KubeProxyConfiguration of
//     kubeproxy.config.k8s.io/v1alpha1, unchanged: what of it Sluice does is
//     said in the words of its flags, and what it does not is noted with the
//     reason. As with kube-proxy a field that is not known is no error.
//   - ours, an AgentConfiguration of config.sluice.dev/v1alpha1: a flat list of
//     the flags of `sluice run` in camelCase. Whatever is not known or has the
//     wrong type is an error that names file, line, field and remedy.
//
// The flags are the one table of what can be set: a file says nothing that no
// flag says, and nothing here knows what a setting means.
package proxyconfig
