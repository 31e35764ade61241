package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"

	"sluice.dev/sluice/internal/ipam"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/kube"
	"sluice.dev/sluice/internal/status"
)

// controllerConfig is what `sluice controller` is told.
type controllerConfig struct {
	kubeconfig string
	class      string
	reserved   []string
	elect      bool
	namespace  string
	metrics    string
	logLevel   string
	logJSON    bool
}

func (c *controllerConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig of the API server; without it the in-cluster one")
	f.StringVar(&c.class, "load-balancer-class", ipam.DefaultClass, "spec.loadBalancerClass of Services that get their addresses here; those without a class get them too")
	f.StringSliceVar(&c.reserved, "reserved-cidrs", nil, "ranges of pods, Services and nodes, of which no pool may give an address")
	f.BoolVar(&c.elect, "leader-elect", true, "lead only while holding the Lease "+ipam.LeaseName+"; several controllers may run")
	f.StringVar(&c.namespace, "leader-elect-namespace", "kube-system", "namespace of the Lease")
	f.StringVar(&c.metrics, "metrics-bind-address", "127.0.0.1:10251", "address of /metrics and /healthz")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&c.logJSON, "log-json", false, "log as JSON")
}

func controllerCommand() *cobra.Command {
	var c controllerConfig
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Give the cluster's LoadBalancer Services their addresses",
		Long: "Give the cluster's Services of type LoadBalancer addresses from AddressPools, and say in BGPPeers' status how their sessions are.\n" +
			"Run two or more of it, anywhere: one leads, and an address is never given twice, whatever becomes of the leader.\n" +
			"Traffic does not depend on it.",
		Example: "  sluice controller --reserved-cidrs 10.244.0.0/16,10.96.0.0/12\n" +
			"  sluice controller --kubeconfig /etc/kubernetes/admin.conf --leader-elect=false",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return control(cmd.Context(), c) },
	}
	c.flags(cmd.Flags())
	return cmd
}

// control wires the controller.
func control(ctx context.Context, c controllerConfig) error {
	log, err := newLogger(c.logLevel, c.logJSON)
	if err != nil {
		return err
	}
	reserved, err := prefixes("reserved-cidrs", c.reserved, "")
	if err != nil {
		return err
	}
	client, err := kube.NewClient(c.kubeconfig)
	if err != nil {
		return err
	}
	api, err := kube.NewAPI(c.kubeconfig)
	if err != nil {
		return err
	}
	core, own, err := kube.NewWriter(c.kubeconfig)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("this host has no name: %w", err)
	}
	recorder := kube.NewRecorder(kube.RecorderOptions{Client: client, NodeName: host, Logger: log})
	conditions := newPeerConditions(api.BGPPeers(), log)
	facts := kube.New(kube.Options{
		Client: client, API: api, Kinds: kube.Allocation | kube.Nodes | kube.BGPPeers, Logger: log,
	})
	lead := func(ctx context.Context, f func(context.Context)) error { f(ctx); return nil } // until ctx ends
	if c.elect {
		identity := host + "_" + string(uuid.NewUUID())
		lead = ipam.Elect(ipam.ElectOptions{Client: client, Namespace: c.namespace, Identity: identity, Log: log})
	}
	controller := ipam.NewController(ipam.ControllerOptions{
		Source:    tap{facts, conditions},
		Cluster:   ipam.NewCluster(core, own),
		Elect:     func(ctx context.Context, f func(context.Context)) error { return lead(ctx, conditions.beside(f)) },
		Allocator: ipam.Options{Ours: ipam.Ours(c.class), Reserved: reserved},
		Problem:   func(p model.Problem) { logProblem(log, p); recorder.Record(p) },
		Log:       log,
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return controller.Run(ctx) })
	group.Go(func() error { return recorder.Run(ctx) })
	group.Go(func() error { return status.Serve(ctx, c.metrics, controllerHandler(controller), log) })
	log.Info("sluice controller is running", "version", version)
	return group.Wait()
}

// controllerHandler serves /metrics, and /healthz for as long as the process can
// answer: a controller that cannot reach the API server is no better started anew.
func controllerHandler(c *ipam.Controller) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(ipam.NewCollector(c.Counts))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// tap is a source whose facts somebody else hears too.
type tap struct {
	source.Source
	also source.Sink
}

func (t tap) Run(ctx context.Context, sink source.Sink) error {
	return t.Source.Run(ctx, source.SinkFunc(func(e model.Event) { t.also.Event(e); sink.Event(e) }))
}
