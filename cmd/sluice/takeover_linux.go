package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sluice.dev/sluice/internal/api/proxyconfig"
	"sluice.dev/sluice/internal/kubeproxy"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/ipvs"
)

// The pauses between attempts to remove what kube-proxy has left. Its virtual
// servers may drain for as long as connections may.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
)

// takeOver takes the node over from kube-proxy.
type takeOver struct {
	left    kubeproxy.Left
	servers *ipvs.KernelHandle
	sets    *netfilter.Handle // also runs iptables
	log     *slog.Logger
}

// takeOver prepares the kernel to be taken over from kube-proxy, if that is asked
// for.
func (k *kernel) takeOver(ctx context.Context, s settings) error {
	if !s.node.takeOver {
		return nil
	}
	if s.service.mode == proxyconfig.ModeNFTables {
		s.log.Warn("what kube-proxy has left of its mode nftables is not removed, and may lead new connections astray: have `kube-proxy --cleanup` remove it, then restart this agent")
	}
	sets, err := netfilter.Dial()
	if err != nil {
		return err
	}
	servers, err := openIPVS(ctx)
	if err != nil {
		return errors.Join(err, sets.Close())
	}
	k.over = &takeOver{servers: servers, sets: sets, log: s.log, left: kubeproxy.Left{
		Runner: sets, Sets: sets, Backend: k.backend, Families: k.families, RemoveDevice: kubeproxy.RemoveDevice,
	}}
	return nil
}

// until returns what removes what kube-proxy has left once this node is served,
// and tries until nothing is left.
func (o *takeOver) until(served func() (bool, string)) func(context.Context) {
	return func(ctx context.Context) {
		pause, told := firstPause, ""
		for o != nil {
			if ok, _ := served(); ok {
				err := o.remove(ctx)
				if err == nil || ctx.Err() != nil {
					return
				}
				if err.Error() != told {
					told = err.Error()
					o.log.Warn("something of kube-proxy is still there, and is removed as soon as can be", "err", err)
				}
				pause = min(2*pause, longestPause)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

func (o *takeOver) remove(ctx context.Context) error {
	entries, err := o.servers.VirtualServers(ctx)
	if err != nil {
		return err
	}
	// Behind the list: what we have made since then is in neither.
	ours, err := named(ctx, o.sets)
	if err != nil {
		return err
	}
	var others []ipvs.VirtualServer
	for _, e := range entries {
		if !ours(e.VirtualServer) {
			others = append(others, e.VirtualServer)
		}
	}
	did, err := o.left.Remove(ctx, others)
	if !did.Nothing() {
		o.log.Info("removed what kube-proxy has left", "chains", len(did.Chains.Removed), "sets", did.Sets, "device", did.Device)
	}
	if err != nil {
		return err
	}
	for _, chain := range did.Chains.Kept {
		o.log.Warn("a chain of kube-proxy stays: a rule that is not kube-proxy's leads to it", "chain", chain)
	}
	return nil
}
