package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sluice.dev/sluice/ipvs"
)

// config is what `sluice run` is told. Flags have kube-proxy's names where the
// meaning is the same.
type config struct {
	source   sourceConfig
	service  serviceConfig
	serve    serveConfig
	device   string
	audit    time.Duration
	logLevel string
	logJSON  bool
}

// sourceConfig says where facts come from.
type sourceConfig struct {
	kubeconfig string
	manifests  string
	nodeName   string
}

// serviceConfig says how Services are programmed.
type serviceConfig struct {
	scheduler     string
	clusterCIDR   []string
	nodePortCIDR  []string
	masqueradeAll bool
	masqueradeBit int
}

// serveConfig says what is served over HTTP.
type serveConfig struct {
	metrics   string
	health    string
	unhealthy time.Duration
}

func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.source.kubeconfig, "kubeconfig", "", "kubeconfig of the API server; without it and --manifests, the in-cluster one")
	f.StringVar(&c.source.manifests, "manifests", "", "directory of Kubernetes YAML (Service, EndpointSlice, Node) to read instead of an API server")
	f.StringVar(&c.source.nodeName, "hostname-override", "", "this node's name, as its Node object has it (default: the host's name in lower case)")
	f.StringVar(&c.service.scheduler, "ipvs-scheduler", ipvs.DefaultScheduler, "scheduler of Services that ask for none: "+strings.Join(ipvs.Schedulers(), ", "))
	f.StringSliceVar(&c.service.clusterCIDR, "cluster-cidr", nil, "pod address ranges, one or more of each family; traffic to a cluster IP from elsewhere is masqueraded")
	f.StringSliceVar(&c.service.nodePortCIDR, "nodeport-addresses", nil, "ranges of node addresses that serve NodePorts (default: the node's primary address of each family)")
	f.BoolVar(&c.service.masqueradeAll, "masquerade-all", false, "masquerade everything sent to a cluster IP")
	f.IntVar(&c.service.masqueradeBit, "iptables-masquerade-bit", 14, "bit of the packet mark that asks for masquerading, 0 to 31")
	f.StringVar(&c.serve.metrics, "metrics-bind-address", "127.0.0.1:10249", "address of /metrics, /proxyMode and /state")
	f.StringVar(&c.serve.health, "healthz-bind-address", "0.0.0.0:10256", "address of /healthz, /livez and /readyz")
	f.DurationVar(&c.serve.unhealthy, "unhealthy-after", time.Minute, "how long a wanted change may fail to reach the kernel before /healthz fails")
	f.StringVar(&c.device, "device", defaultDevice, "dummy device that holds the Services' addresses")
	f.DurationVar(&c.audit, "audit-period", 30*time.Second, "time between two comparisons of a kernel table with what is wanted; 0: never")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&c.logJSON, "log-json", false, "log as JSON")
}

const defaultDevice = "sluice0"

// settings is a config that has been checked.
type settings struct {
	config
	clusterCIDRs  []netip.Prefix
	nodePortCIDRs []netip.Prefix
	log           *slog.Logger
}

// check refuses what cannot work, naming the flag and the remedy.
func (c config) check() (settings, error) {
	s := settings{config: c}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return s, fmt.Errorf("--log-level %q: use debug, info, warn or error", c.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	s.log = slog.New(slog.NewTextHandler(os.Stderr, options))
	if c.logJSON {
		s.log = slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	if c.source.manifests != "" && c.source.kubeconfig != "" {
		return s, fmt.Errorf("--manifests and --kubeconfig exclude each other: facts come from one of them")
	}
	if !ipvs.KnownScheduler(c.service.scheduler) {
		return s, fmt.Errorf("--ipvs-scheduler %q: use one of %s", c.service.scheduler, strings.Join(ipvs.Schedulers(), ", "))
	}
	if b := c.service.masqueradeBit; b < 0 || b > 31 {
		return s, fmt.Errorf("--iptables-masquerade-bit %d: a packet mark has the bits 0 to 31", b)
	}
	var err error
	if s.clusterCIDRs, err = prefixes("--cluster-cidr", c.service.clusterCIDR); err != nil {
		return s, err
	}
	if s.nodePortCIDRs, err = prefixes("--nodeport-addresses", c.service.nodePortCIDR); err != nil {
		return s, err
	}
	if s.source.nodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("the host has no name (%w); use --hostname-override", err)
		}
		s.source.nodeName = strings.ToLower(strings.TrimSpace(host))
	}
	return s, nil
}

func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, t := range texts {
		if flag == "--nodeport-addresses" && t == "primary" {
			continue
		}
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return nil, fmt.Errorf("%s %q: use a range such as 10.244.0.0/16", flag, t)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
