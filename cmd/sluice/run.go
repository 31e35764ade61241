package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/ipam"
	"sluice.dev/sluice/internal/kubeproxy"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/file"
	"sluice.dev/sluice/internal/source/kube"
	"sluice.dev/sluice/internal/source/node"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/internal/sysctl"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
	"sluice.dev/sluice/policy"
)

// patience is how long the first Services wait for every source to have told
// all it knows; see engine.Options.
const patience = 5 * time.Second

func runCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve this node's Services until stopped",
		Long: "Serve this node's Services until stopped, from an API server or from a directory of YAML.\n" +
			"What the kernel holds is adopted at the start and left in place at the end: a restart breaks no connection.\n" +
			"`sluice cleanup` removes it.\n\n" +
			"--config takes kube-proxy's configuration file unchanged, and a file of our own that says what flags say.\n" +
			"kube-proxy's command line works too: those of its flags that have no effect here are not shown below, and named in the log.",
		Example: "  sluice run --kubeconfig /etc/kubernetes/proxy.conf --cluster-cidr 10.244.0.0/16\n" +
			"  sluice run --config /var/lib/kube-proxy/config.conf --config /etc/sluice/agent.yaml\n" +
			"  sluice run --manifests deploy/examples --hostname-override node1",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.read(cmd.Flags()); err != nil {
				return err
			}
			s, err := c.check()
			if err != nil {
				return err
			}
			if c.file.print {
				c.printConfig(cmd.OutOrStdout(), cmd.Flags())
				return nil
			}
			c.file.tell(s.log)
			if c.initOnly {
				return prepare(cmd.Context(), s)
			}
			return run(cmd.Context(), s)
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

// run wires the agent in the order of the picture in docs/ARCHITECTURE.md.
func run(ctx context.Context, s settings) error {
	k, err := openNode(ctx, s)
	if err != nil {
		return err
	}
	defer k.close()
	world, err := sources(s)
	if err != nil {
		return err
	}
	speak := newSpeaker(s, world.tell)
	switches := sysctl.NewKeeper(sysctl.Root(), s.switches(k.serves), s.audit, s.log)
	enforce := newEnforcer(s, k.families, k.marks, switches)
	watch := newObserver(s, k.families, k.flows)
	switches.Apply()

	var e *engine.Engine
	health := status.Health{
		Loops: func() []reconcile.Status { return e.Status() }, Tables: kernelTables(),
		Limit: s.serve.unhealthy, Node: func() string { return e.Facts().Leaving }, Meter: watch.meter,
		Rising:   func() int { return e.Facts().Rising },
		Problems: func() []string { return problems(switches, enforce, e.Facts().Policy) },
	}
	ports := healthcheck.New(healthcheck.Options{
		Healthy: func() bool { return health.Healthy(time.Now()) }, Problem: world.tell, Log: s.log,
	})
	servers := ipvs.NewTarget(k.servers, ipvs.TargetOptions{
		Ours: k.ours, Drain: s.service.drain, Limit: watch.limits.For, Local: vip.Local, Removed: watch.removed,
	})
	opts := engineOptions(s, k.families)
	opts.Sources, opts.Announcer, opts.Planner = len(world.facts), speak.announcer, enforce.rules()
	opts.Hooks = watch.hooks(world.tell, enforce.enforced)
	opts.Targets = engine.Targets{
		Rules: k.netfilter(), Servers: servers, Addresses: vip.New(k.device), Health: ports,
		Routes: bgp.NewTarget(speak.server), Discards: vip.NewDiscards(k.routes),
	}
	e = engine.New(opts)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { defer ports.Close(); e.Run(ctx); return nil })
	sink := source.SinkFunc(func(ev model.Event) { watch.meter.Event(ev); speak.sessions.Event(ev); enforce.event(ev); e.Event(ev) })
	world.run(ctx, group, sink, speak.sessions.Down)
	for _, f := range []func(context.Context){switches.Run, watch.sweeper.Run, speak.sessions.Run, k.over.until(health.Ready)} {
		group.Go(func() error { f(ctx); return nil })
	}
	enforce.run(ctx, group)
	serve(ctx, group, s, health, status.Metrics{
		Loops: e.Status, Node: explained(e, s.source.nodeName, k.families), Calls: k.calls, Servers: func() status.Servers { return status.Servers(servers.Counts()) },
		Connections: watch.connections, SysctlDrift: switches.Drift,
		BGP:    speak.shown(func() []model.Problem { return e.Facts().Problems }),
		Policy: enforce.shown(func() policy.Status { return e.Facts().Policy }),
		Meter:  watch.meter, Health: health, Version: version,
	})
	s.log.Info("sluice is running", "version", version, "node", s.source.nodeName, "families", k.familyNames())
	err = group.Wait()
	speak.stop(e.Facts().Away)
	if err == nil {
		s.log.Info("stopped; Services stay as they are")
	}
	return err
}

// engineOptions are those of configuration.
func engineOptions(s settings, families []model.Family) engine.Options {
	return engine.Options{
		Store:    storeOptions(s),
		Families: families,
		IPVS:     ipvs.Options{Scheduler: s.service.scheduler},
		NodeCIDR: s.service.detect.mode == nodeCIDRMode,
		Rules:    rules(s, families),
		Audit:    s.audit,
		Patience: patience,
		Log:      s.log,
	}
}

// serve answers over HTTP until ctx ends.
func serve(ctx context.Context, group *errgroup.Group, s settings, h status.Health, m status.Metrics) {
	metrics := status.MetricsHandler(m)
	if s.serve.profiling {
		metrics = profiled(metrics)
	}
	for addr, handler := range map[string]http.Handler{s.serve.metrics: metrics, s.serve.health: status.HealthHandler(h)} {
		if addr != "" {
			group.Go(func() error { return status.Serve(ctx, addr, handler, s.log) })
		}
	}
}

// kernelTables are the loops that the node's health is judged by: not that of
// the health check ports, or one foreign process would take the node away from
// every Service.
func kernelTables() []string { return []string{"netfilter", "ipvs", "vip"} }

func storeOptions(s settings) model.StoreOptions {
	return model.StoreOptions{
		NodeName: s.source.nodeName,
		NodePorts: func(addrs []netip.Addr) []netip.Addr {
			return nodeport.Select(addrs, s.nodePortCIDRs)
		},
		ExternalIPs: s.externalCIDRs,
		NodeObjects: s.source.manifests == "",
	}
}

// rules are the node's static rules, of configuration and what the engine knows.
func rules(s settings, families []model.Family) func([]netip.Prefix) map[netfilter.Key]netfilter.Spec {
	return func(pods []netip.Prefix) map[netfilter.Key]netfilter.Spec {
		if s.service.detect.mode == clusterCIDRMode {
			pods = s.clusterCIDRs
		}
		return nodeport.Static(nodeport.Config{
			Families:      families,
			Mark:          1 << s.service.masqueradeBit,
			ClusterCIDRs:  pods,
			PodInterface:  s.service.detect.podInterface(),
			MasqueradeAll: s.service.masqueradeAll,
		})
	}
}

// world is where facts come from, and who is told what is wrong with them.
type world struct {
	facts []source.Source
	tell  func(model.Problem) // a log line, and an Event where there is an API server
	// record writes the Events, report what BGPPeers' status says of this
	// node's sessions. Without an API server they do nothing.
	record func(context.Context) error
	report func(context.Context, func() []status.Down) error
	// carry gives Services their load-balancer addresses on their way, where
	// nobody else does; nil: somebody does.
	carry func(source.Sink) *ipam.Carrier
}

// run has everything told to the sink, and reports the sessions that are down,
// until ctx ends.
func (w world) run(ctx context.Context, group *errgroup.Group, sink source.Sink, down func() []status.Down) {
	if w.carry != nil {
		carrier := w.carry(sink)
		sink = carrier
		group.Go(func() error { <-ctx.Done(); carrier.Save(); return nil })
	}
	for _, f := range w.facts {
		group.Go(func() error { return f.Run(ctx, sink) })
	}
	group.Go(func() error { return w.record(ctx) })
	group.Go(func() error { return w.report(ctx, down) })
}

func sources(s settings) (world, error) {
	// kube-proxy's Service addresses are not the node's own either.
	host := node.New(node.Options{VIPDevices: []string{s.device, kubeproxy.Device}, Logger: s.log})
	if s.source.manifests != "" {
		return fileWorld(s, host), nil
	}
	clients, err := kube.Connect(kube.Connection{
		Kubeconfig: s.source.kubeconfig, Master: s.source.master, QPS: s.source.qps, Burst: s.source.burst,
	})
	if err != nil {
		return world{}, err
	}
	kinds := kube.Proxy | kube.Routing
	if s.policy.enable {
		kinds |= kube.Policing
	}
	recorder := kube.NewRecorder(kube.RecorderOptions{Client: clients.Core, NodeName: s.source.nodeName, Logger: s.log})
	return world{
		facts: []source.Source{host, kube.New(kube.Options{
			Client: clients.Core, API: clients.API, Dynamic: clients.Dynamic, Kinds: kinds, SecretNamespace: s.balancer.secrets,
			NodeName: s.source.nodeName, KnownScheduler: ipvs.KnownScheduler, Logger: s.log,
		})},
		tell: func(p model.Problem) {
			logProblem(s.log, p)
			recorder.Record(p)
		},
		record: recorder.Run,
		report: func(ctx context.Context, down func() []status.Down) error {
			newPeerReporter(clients.API, s.source.nodeName, down, s.log).run(ctx)
			return nil
		},
	}, nil
}

// fileWorld is a directory of YAML, and the addresses that this agent gives to
// the Services in it.
func fileWorld(s settings, host source.Source) world {
	w := world{
		facts: []source.Source{
			host, file.New(file.Options{Dir: s.source.manifests, KnownScheduler: ipvs.KnownScheduler, Logger: s.log}),
		},
		tell:   func(p model.Problem) { logProblem(s.log, p) },
		record: func(context.Context) error { return nil },
		report: func(context.Context, func() []status.Down) error { return nil },
	}
	w.carry = func(next source.Sink) *ipam.Carrier {
		return ipam.NewCarrier(ipam.CarrierOptions{
			Next: next, State: s.balancer.state, Problem: w.tell, Log: s.log,
			Allocator: ipam.Options{Ours: ipam.Ours(s.balancer.class), Reserved: s.clusterCIDRs},
		})
	}
	return w
}

func logProblem(log *slog.Logger, p model.Problem) {
	log.Warn(p.Message, "kind", p.Kind, "object", p.Object.String(), "reason", p.Reason)
}

// cleanupCommand removes what Sluice made, with the same loops and no wishes.
func cleanupCommand() *cobra.Command {
	var device string
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove exactly what Sluice made on this node",
		Long: "Remove Sluice's addresses, virtual servers, rules, sets and dummy device from this node, and nothing else.\n" +
			"Services stop being served here at once. Stop `sluice run` first.",
		Example: "  sluice cleanup",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			return cleanup(ctx, cmd, device)
		},
	}
	cmd.Flags().StringVar(&device, "device", defaultDevice, "dummy device that holds the Services' addresses")
	cmd.Flags().DurationVar(&limit, "timeout", time.Minute, "give up after this time")
	return cmd
}

func cleanup(ctx context.Context, cmd *cobra.Command, device string) error {
	k, err := openKernel(ctx, device, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
	if err != nil {
		return err
	}
	defer k.close()
	e := engine.New(engine.Options{Families: k.families, Targets: engine.Targets{
		Rules: k.netfilter(), Addresses: vip.New(k.device),
		Servers:  ipvs.NewTarget(k.servers, ipvs.TargetOptions{Ours: k.ours, Drain: -1}),
		Discards: vip.NewDiscards(k.routes),
	}})
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { e.Run(running); close(done) }()
	left := awaitEmpty(ctx, e)
	stop()
	<-done
	if left != nil {
		return fmt.Errorf("not everything could be removed: %w", left)
	}
	if err := k.removeDevice(ctx); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "removed what Sluice made on this node")
	return nil
}

// awaitEmpty waits until no table holds anything of ours.
func awaitEmpty(ctx context.Context, e *engine.Engine) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := ""
		for _, l := range e.Status() {
			switch {
			case l.FailingCount > 0:
				left = fmt.Sprintf("%s: %s: %s", l.Name, l.Failing[0].Key, l.Failing[0].Error)
			case !l.Listed || !l.Synced || l.Present > 0:
				left = fmt.Sprintf("%s: %d left", l.Name, l.Present)
			}
		}
		if left == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", left, ctx.Err())
		case <-tick.C:
		}
	}
}
