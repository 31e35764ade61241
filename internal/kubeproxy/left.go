package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/ipvs"
)

// Device is kube-proxy's dummy device, which has the addresses of Services.
const Device = "kube-ipvs0"

// Left is what kube-proxy has left on a node.
type Left struct {
	Runner   netfilter.Runner
	Backend  netfilter.Backend
	Families []model.Family
	Sets     netfilter.Sets
	// RemoveDevice removes Device, and says whether there was one.
	RemoveDevice func(context.Context) (bool, error)
}

// Removed is what a removal has done.
type Removed struct {
	Chains netfilter.Stripped
	Sets   int
	Device bool // there was one
}

// Nothing says that nothing was there.
func (r Removed) Nothing() bool {
	return len(r.Chains.Removed) == 0 && r.Sets == 0 && !r.Device
}

// ErrServers says that virtual servers of kube-proxy still drain.
var ErrServers = errors.New("virtual servers of kube-proxy are still in use")

// ownChains and ownPrefixes name kube-proxy's chains.
func ownChains() []string {
	return []string{
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-NODE-PORT", "KUBE-POSTROUTING", "KUBE-MARK-MASQ",
		"KUBE-FORWARD", "KUBE-LOAD-BALANCER", "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER",
		"KUBE-IPVS-OUT-FILTER", "KUBE-PROXY-CANARY",
	}
}

func ownPrefixes() []string {
	return []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-", "KUBE-FW-", "KUBE-EXT-", "KUBE-SEP-"}
}

func ownChain(name string) bool {
	return slices.Contains(ownChains(), name) ||
		slices.ContainsFunc(ownPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) })
}

// The sets of mode ipvs. Those of IPv6 have "KUBE-6-" for "KUBE-".
func ownSets() []string {
	return []string{
		"KUBE-LOOP-BACK", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-LOCAL",
		"KUBE-LOAD-BALANCER-FW", "KUBE-LOAD-BALANCER-SOURCE-IP", "KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-IPVS-IPS",
		"KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-LOCAL-TCP", "KUBE-NODE-PORT-UDP", "KUBE-NODE-PORT-LOCAL-UDP",
		"KUBE-NODE-PORT-SCTP-HASH", "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
	}
}

// kernelSets are the names of a set, by family, as long as the kernel takes them.
func kernelSets(name string) []string {
	six := "KUBE-6-" + strings.TrimPrefix(name, "KUBE-")
	return []string{name, six[:min(len(six), longestName)]}
}

const longestName = 31 // IPSET_MAXNAMELEN - 1

// addressSets name addresses and ports that kube-proxy serves.
func addressSets() []string {
	return []string{"KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-LOCAL"}
}

// portSets name the ports that it serves at the node's addresses.
func portSets() map[string]model.Protocol {
	return map[string]model.Protocol{
		"KUBE-NODE-PORT-TCP": model.TCP, "KUBE-NODE-PORT-UDP": model.UDP, "KUBE-NODE-PORT-SCTP-HASH": model.SCTP,
	}
}

// port is one that is served at any address.
type port struct {
	protocol model.Protocol
	number   uint16
}

// Servers tells which virtual servers kube-proxy has made: those that its sets
// name, by address or as a node port.
func (l Left) Servers(ctx context.Context) (func(ipvs.VirtualServer) bool, error) {
	named, ports := map[ipvs.VirtualServer]bool{}, map[port]bool{}
	for _, set := range addressSets() {
		err := l.members(ctx, set, func(e netfilter.Entry) {
			named[ipvs.VirtualServer{Addr: netip.AddrPortFrom(e.First.Addr(), e.Port), Protocol: e.Protocol}] = true
		})
		if err != nil {
			return nil, err
		}
	}
	for set, protocol := range portSets() {
		if err := l.members(ctx, set, func(e netfilter.Entry) { ports[port{protocol, e.Port}] = true }); err != nil {
			return nil, err
		}
	}
	return func(vs ipvs.VirtualServer) bool {
		return named[vs] || ports[port{vs.Protocol, vs.Addr.Port()}]
	}, nil
}

// members calls f for what a set holds, in both families.
func (l Left) members(ctx context.Context, name string, f func(netfilter.Entry)) error {
	for _, set := range kernelSets(name) {
		members, err := l.Sets.Members(ctx, set)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
		for _, m := range members {
			f(m.Entry)
		}
	}
	return nil
}

// Remove removes kube-proxy's chains, and its sets and device when none of its
// virtual servers is among those that no Service has, others; ErrServers says that
// one is. It can be called again at any time.
func (l Left) Remove(ctx context.Context, others []ipvs.VirtualServer) (did Removed, err error) {
	if did.Chains, err = netfilter.Strip(ctx, l.Runner, l.Backend, l.Families, ownChain); err != nil {
		return did, err
	}
	left, err := l.Servers(ctx)
	if err != nil {
		return did, err
	}
	if i := slices.IndexFunc(others, left); i >= 0 {
		return did, fmt.Errorf("%s: %w", others[i], ErrServers)
	}
	if did.Sets, err = l.removeSets(ctx); err != nil {
		return did, err
	}
	if did.Device, err = l.RemoveDevice(ctx); err != nil {
		return did, fmt.Errorf("remove %s: %w", Device, err)
	}
	return did, nil
}

// removeSets destroys the sets that are there. One that a rule of somebody else
// looks into stays.
func (l Left) removeSets(ctx context.Context) (count int, err error) {
	headers, err := l.Sets.Headers(ctx)
	if err != nil {
		return 0, fmt.Errorf("sets: %w", err)
	}
	var names []string
	for _, name := range ownSets() {
		for _, set := range kernelSets(name) {
			if slices.ContainsFunc(headers, func(s netfilter.Set) bool { return s.Name == set }) {
				names = append(names, set)
			}
		}
	}
	if len(names) == 0 {
		return 0, nil
	}
	errs := l.Sets.Destroy(ctx, names)
	for i := range errs {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("destroy set %s: %w", names[i], errs[i])
		}
	}
	return len(names), errors.Join(errs...)
}
