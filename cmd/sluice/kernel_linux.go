package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// kernel are the handles on this node's tables. Each belongs to its loop.
type kernel struct {
	families []model.Family
	backend  netfilter.Backend
	rules    *netfilter.Handle
	servers  *ipvs.KernelHandle
	device   *vip.Device
	routes   *vip.MainTable
	owned    *netfilter.Handle // reads our sets for the IPVS loop
	flows    *conntrack.KernelHandle
	marks    *conntrack.KernelHandle // the same table, for who marks connections
	over     *takeOver               // nil: nobody is taken over from
	log      *slog.Logger
}

// openKernel opens the tables and finds out what this kernel serves.
func openKernel(ctx context.Context, device string, log *slog.Logger) (*kernel, error) {
	k := &kernel{log: log}
	if err := k.open(ctx, device); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// openNode opens the tables for an agent that is to write them, and sets what is
// no table's.
func openNode(ctx context.Context, s settings) (*kernel, error) {
	k, err := openKernel(ctx, s.device, s.log)
	if err != nil {
		return nil, err
	}
	if err := k.takeOver(ctx, s); err != nil {
		k.close()
		return nil, err
	}
	warnOfRelease(s.log)
	k.setTimeouts(ctx, s.service.timeouts)
	return k, nil
}

func (k *kernel) open(ctx context.Context, device string) (err error) {
	if k.servers, err = openIPVS(ctx); err != nil {
		return err
	}
	if k.rules, err = netfilter.Dial(); err != nil {
		return err
	}
	if k.owned, err = netfilter.Dial(); err != nil {
		return err
	}
	if k.flows, err = conntrack.Dial(); err != nil {
		return err
	}
	if k.marks, err = conntrack.Dial(); err != nil {
		return err
	}
	if k.device, err = vip.Dial(device); err != nil {
		return err
	}
	if k.routes, err = vip.DialMainTable(); err != nil {
		return err
	}
	if k.backend, err = netfilter.Detect(ctx, k.rules); err != nil {
		return err
	}
	usable, unusable := netfilter.Usable(ctx, k.rules, k.backend, kernelFamilies())
	if len(usable) == 0 {
		return fmt.Errorf("no IP family can be served: %w", unusable)
	}
	if unusable != nil {
		k.log.Warn("a family is not served", "err", unusable)
	}
	k.families = usable
	return nil
}

// openIPVS opens the IPVS table, loading the module when it has to.
func openIPVS(ctx context.Context) (*ipvs.KernelHandle, error) {
	handle, err := ipvs.Open(ctx)
	if err == nil {
		return handle, nil
	}
	if out, failed := exec.CommandContext(ctx, "modprobe", "ip_vs").CombinedOutput(); failed != nil {
		return nil, fmt.Errorf("%w; modprobe ip_vs: %w %s", err, failed, out)
	}
	return ipvs.Open(ctx)
}

// kernelFamilies are the families that the kernel has switched on.
func kernelFamilies() []model.Family {
	families := []model.Family{model.IPv4}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && b[0] == '0' {
		families = append(families, model.IPv6)
	}
	return families
}

func (k *kernel) serves(f model.Family) bool { return slices.Contains(k.families, f) }

func (k *kernel) familyNames() []string {
	var names []string
	for _, f := range k.families {
		names = append(names, f.String())
	}
	return names
}

// setTimeouts sets IPVS's connection timeouts; 0 leaves one.
func (k *kernel) setTimeouts(ctx context.Context, t ipvs.Timeouts) {
	if t == (ipvs.Timeouts{}) {
		return
	}
	if err := k.servers.SetTimeouts(ctx, t); err != nil {
		k.log.Error("cannot set the connection timeouts of IPVS; they stay as they are", "err", err)
	}
}

// netfilter is the target of rules and sets.
func (k *kernel) netfilter() *netfilter.Target {
	return netfilter.New(netfilter.Options{
		Runner: k.rules, Sets: k.rules, Backend: k.backend, Families: k.families,
	})
}

// ours says which virtual servers are ours, for the IPVS loop: also those of
// kube-proxy that are taken over, so that those which no Service wants go as all
// others do, when their connections have ended.
func (k *kernel) ours(ctx context.Context) (func(ipvs.VirtualServer) bool, error) {
	ours, err := named(ctx, k.owned)
	if err != nil || k.over == nil {
		return ours, err
	}
	left := k.over.left
	left.Sets = k.owned // this loop's own handle
	theirs, err := left.Servers(ctx)
	if err != nil {
		return nil, err
	}
	return func(vs ipvs.VirtualServer) bool { return ours(vs) || theirs(vs) }, nil
}

// named says which virtual servers are ours: those that our sets name.
func named(ctx context.Context, sets netfilter.Sets) (func(ipvs.VirtualServer) bool, error) {
	named, err := nodeport.Frontends(ctx, sets)
	if err != nil {
		return nil, fmt.Errorf("read which virtual servers are ours: %w", err)
	}
	return func(vs ipvs.VirtualServer) bool {
		_, ours := named[model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}]
		return ours
	}, nil
}

// calls counts what the handles did.
func (k *kernel) calls() []status.Calls {
	rules := k.rules.Count()
	return []status.Calls{
		{Table: "netfilter", Commands: rules.Commands, Execs: rules.Execs},
		{Table: "ipvs", Commands: k.servers.Sent().Messages},
		{Table: "vip", Commands: k.device.Count().Commands},
	}
}

func (k *kernel) removeDevice(ctx context.Context) error { return vip.New(k.device).Remove(ctx) }

// close closes what was opened; the kernel keeps its state.
func (k *kernel) close() {
	var errs []error
	if k.servers != nil {
		errs = append(errs, k.servers.Close())
	}
	if k.over != nil {
		errs = append(errs, k.over.servers.Close(), k.over.sets.Close())
	}
	for _, h := range []*netfilter.Handle{k.rules, k.owned} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	for _, h := range []*conntrack.KernelHandle{k.flows, k.marks} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	if k.device != nil {
		errs = append(errs, k.device.Close())
	}
	if k.routes != nil {
		errs = append(errs, k.routes.Close())
	}
	for _, err := range errs {
		if err != nil {
			k.log.Warn("cannot close a handle", "err", err)
		}
	}
}
