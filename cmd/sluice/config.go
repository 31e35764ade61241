package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sluice.dev/sluice/internal/ipam"
	"sluice.dev/sluice/ipvs"
)

// config is what `sluice run` is told. Flags have kube-proxy's names where the
// meaning is the same.
type config struct {
	source   sourceConfig
	service  serviceConfig
	balancer balancerConfig
	policy   policyConfig
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
	detectMode    string
	nodePortCIDR  []string
	externalCIDR  []string
	masqueradeAll bool
	masqueradeBit int
	drain         time.Duration
	timeouts      ipvs.Timeouts
}

// balancerConfig says how load-balancer addresses are given and told.
type balancerConfig struct {
	class         string
	state         string
	secrets       string
	notReadyAfter time.Duration
	onStop        string
	stopWait      time.Duration
}

// What becomes of routes when the agent stops.
const (
	stopAuto     = "auto"
	stopWithdraw = "withdraw"
	stopKeep     = "keep"
)

// serveConfig says what is served over HTTP.
type serveConfig struct {
	metrics   string
	health    string
	unhealthy time.Duration
}

func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.source.kubeconfig, "kubeconfig", "", "kubeconfig of the API server; without it and --manifests, the in-cluster one")
	f.StringVar(&c.source.manifests, "manifests", "", "directory of YAML (Service, EndpointSlice, Node, NetworkPolicy, AddressPool, BGPPeer ...) to read instead of an API server")
	f.StringVar(&c.source.nodeName, "hostname-override", "", "this node's name, as its Node object has it (default: the host's name in lower case)")
	f.StringVar(&c.service.scheduler, "ipvs-scheduler", ipvs.DefaultScheduler, "scheduler of Services that ask for none: "+strings.Join(ipvs.Schedulers(), ", "))
	f.StringSliceVar(&c.service.clusterCIDR, "cluster-cidr", nil, "pod address ranges, one or more of each family; traffic to a cluster IP from elsewhere is masqueraded")
	f.StringVar(&c.service.detectMode, "detect-local-mode", clusterCIDRMode, "how traffic of pods is told: ClusterCIDR (--cluster-cidr) or NodeCIDR (spec.podCIDRs of this node's Node)")
	f.StringSliceVar(&c.service.externalCIDR, "allow-external-ips", nil, "ranges that spec.externalIPs may name; \"none\": no external IPs (default: all; they let whoever may make a Service take any address, KEP-5707)")
	f.DurationVar(&c.service.drain, "drain-timeout", ipvs.DefaultDrain, "how long a leaving endpoint keeps its established connections at most; annotation sluice.dev/drain-timeout of a Service goes before")
	f.DurationVar(&c.service.timeouts.TCP, "ipvs-tcp-timeout", 135*time.Minute, "how long IPVS keeps an idle TCP connection; one for all Services of the node; 0: leave the kernel's")
	f.DurationVar(&c.service.timeouts.TCPFin, "ipvs-tcpfin-timeout", 0, "how long IPVS keeps a TCP connection after a FIN; 0: leave the kernel's")
	f.DurationVar(&c.service.timeouts.UDP, "ipvs-udp-timeout", 0, "how long IPVS keeps an idle UDP flow; 0: leave the kernel's")
	f.StringSliceVar(&c.service.nodePortCIDR, "nodeport-addresses", nil, "ranges of node addresses that serve NodePorts (default: the node's primary address of each family)")
	f.BoolVar(&c.service.masqueradeAll, "masquerade-all", false, "masquerade everything sent to a cluster IP")
	f.IntVar(&c.service.masqueradeBit, "iptables-masquerade-bit", 14, "bit of the packet mark that asks for masquerading, 0 to 31")
	c.balancer.flags(f)
	c.policy.flags(f)
	f.StringVar(&c.serve.metrics, "metrics-bind-address", "127.0.0.1:10249", "address of /metrics, /proxyMode, /state, /bgp and /policy")
	f.StringVar(&c.serve.health, "healthz-bind-address", "0.0.0.0:10256", "address of /healthz, /livez and /readyz")
	f.DurationVar(&c.serve.unhealthy, "unhealthy-after", time.Minute, "how long a wanted change may fail to reach the kernel before /healthz fails")
	f.StringVar(&c.device, "device", defaultDevice, "dummy device that holds the Services' addresses")
	f.DurationVar(&c.audit, "audit-period", 30*time.Second, "time between two comparisons of a kernel table with what is wanted; 0: never")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&c.logJSON, "log-json", false, "log as JSON")
}

func (c *balancerConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.class, "load-balancer-class", ipam.DefaultClass, "spec.loadBalancerClass of Services that get their addresses here; those without a class get them too")
	f.StringVar(&c.state, "address-state", "/var/lib/sluice/addresses.json", "with --manifests: file that remembers which Service has which address")
	f.StringVar(&c.secrets, "secret-namespace", "kube-system", "namespace of the Secrets that BGPPeers name")
	f.DurationVar(&c.notReadyAfter, "not-ready-after", 30*time.Second, "how long this Node may be NotReady before its routes are withdrawn, if others can serve")
	f.StringVar(&c.onStop, "bgp-on-stop", stopAuto, "what becomes of routes when the agent stops: withdraw; keep (peers with graceful restart keep them, as for an upgrade); auto: keep, unless the Node is drained, leaving or not ready")
	f.DurationVar(&c.stopWait, "bgp-stop-wait", time.Second, "how long routers are given to converge between the withdrawal of routes and the end of the sessions")
}

func (c balancerConfig) check() error {
	if !slices.Contains([]string{stopAuto, stopWithdraw, stopKeep}, c.onStop) {
		return fmt.Errorf("--bgp-on-stop %q: use %s, %s or %s", c.onStop, stopAuto, stopWithdraw, stopKeep)
	}
	if c.notReadyAfter < 0 || c.stopWait < 0 {
		return fmt.Errorf("--not-ready-after and --bgp-stop-wait: use a time of 0 or more")
	}
	return nil
}

const defaultDevice = "sluice0"

// The ways to tell pods' traffic, by kube-proxy's names.
const (
	clusterCIDRMode = "ClusterCIDR"
	nodeCIDRMode    = "NodeCIDR"
)

// settings is a config that has been checked.
type settings struct {
	config
	clusterCIDRs  []netip.Prefix
	nodePortCIDRs []netip.Prefix
	externalCIDRs []netip.Prefix // nil: all
	log           *slog.Logger
}

// check refuses what cannot work, naming the flag and the remedy.
func (c config) check() (settings, error) {
	s := settings{config: c}
	log, err := newLogger(c.logLevel, c.logJSON)
	if err != nil {
		return s, err
	}
	s.log = log
	if c.source.manifests != "" && c.source.kubeconfig != "" {
		return s, fmt.Errorf("--manifests and --kubeconfig exclude each other: facts come from one of them")
	}
	if err := c.service.check(); err != nil {
		return s, err
	}
	if err := c.balancer.check(); err != nil {
		return s, err
	}
	if err := c.policy.check(); err != nil {
		return s, err
	}
	if err := s.ranges(); err != nil {
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

// newLogger logs to stderr.
func newLogger(level string, asJSON bool) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: least}
	if asJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
}

func (c serviceConfig) check() error {
	if !ipvs.KnownScheduler(c.scheduler) {
		return fmt.Errorf("--ipvs-scheduler %q: use one of %s", c.scheduler, strings.Join(ipvs.Schedulers(), ", "))
	}
	if b := c.masqueradeBit; b < 0 || b > 31 {
		return fmt.Errorf("--iptables-masquerade-bit %d: a packet mark has the bits 0 to 31", b)
	}
	if m := c.detectMode; m != clusterCIDRMode && m != nodeCIDRMode {
		return fmt.Errorf("--detect-local-mode %q: use %s or %s", m, clusterCIDRMode, nodeCIDRMode)
	}
	if c.drain <= 0 {
		return fmt.Errorf("--drain-timeout %v: use a time above 0, such as 15m", c.drain)
	}
	for flag, t := range map[string]time.Duration{"tcp": c.timeouts.TCP, "tcpfin": c.timeouts.TCPFin, "udp": c.timeouts.UDP} {
		if t < 0 || t%time.Second != 0 {
			return fmt.Errorf("--ipvs-%s-timeout %v: use whole seconds, or 0 for the kernel's value", flag, t)
		}
	}
	return nil
}

// ranges parses what is given as ranges of addresses.
func (s *settings) ranges() (err error) {
	if s.clusterCIDRs, err = prefixes("--cluster-cidr", s.service.clusterCIDR, ""); err != nil {
		return err
	}
	if s.nodePortCIDRs, err = prefixes("--nodeport-addresses", s.service.nodePortCIDR, "primary"); err != nil {
		return err
	}
	if s.externalCIDRs, err = prefixes("--allow-external-ips", s.service.externalCIDR, "none"); err != nil {
		return err
	}
	if len(s.service.externalCIDR) > 0 && s.externalCIDRs == nil {
		s.externalCIDRs = []netip.Prefix{}
	}
	return nil
}

// prefixes parses ranges. A flag may have one word that stands for none.
func prefixes(flag string, texts []string, word string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, t := range texts {
		if t == word {
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
