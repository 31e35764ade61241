// Package kubeproxy takes a node over from kube-proxy's modes ipvs and iptables,
// without a moment in which Services are not served: Sluice starts on what
// kube-proxy has left in the kernel, and removes that when its own tables stand.
//
// What kube-proxy leaves, and what becomes of it:
//
//   - Virtual servers (mode ipvs). [Left.Servers] tells them, and package ipvs has
//     them as ours: those that Services want are kept with their connections, the
//     others drain like any that is not wanted any more. They are told by
//     kube-proxy's sets, which name every address and port that it serves.
//   - Chains (both modes). Until [Left.Remove] they and ours are obeyed side by side,
//     which does no harm: mode iptables translates new connections before IPVS sees
//     them, as it did. Established connections keep their translation, which is
//     conntrack's, and our rules accept and masquerade them.
//   - Sets and the device kube-ipvs0, which go last, when no virtual server is told by
//     them any more.
//
// The kubelet's chains (KUBE-FIREWALL, KUBE-IPTABLES-HINT, KUBE-KUBELET-CANARY) are
// not kube-proxy's. Tables of mode nftables are not known here: see docs/install.md.
//
// Source: pkg/proxy/ipvs and pkg/proxy/iptables of Kubernetes 1.36, and their
// releases since 1.20 for names that are not used any more.
package kubeproxy
