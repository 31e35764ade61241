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

	"sluice.dev/sluice/internal/api/proxyconfig"
	"sluice.dev/sluice/internal/ipam"
	"sluice.dev/sluice/internal/source/kube"
	"sluice.dev/sluice/ipvs"
)

// config is what `sluice run` is told. Flags have kube-proxy's names where the
// meaning is the same. Files say the same as flags, see fileConfig.
type config struct {
	source   sourceConfig
	service  serviceConfig
	balancer balancerConfig
	policy   policyConfig
	node     nodeConfig
	serve    serveConfig
	logging  logConfig
	file     fileConfig
	device   string
	audit    time.Duration
	initOnly bool // set the kernel up for a run without privileges, and end
}

// sourceConfig says where facts come from.
type sourceConfig struct {
	kubeconfig string
	master     string
	qps        float32
	burst      int
	manifests  string
	nodeName   string
}

// serviceConfig says how Services are programmed.
type serviceConfig struct {
	scheduler     string
	detect        detectConfig
	nodePortCIDR  []string
	externalCIDR  []string
	masqueradeAll bool
	masqueradeBit int
	drain         time.Duration
	timeouts      ipvs.Timeouts
	mode          string // kube-proxy's, of which we have one
}

// detectConfig says how traffic of pods is told.
type detectConfig struct {
	mode        string
	clusterCIDR []string
	bridge      string
	prefix      string
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
	metrics   string // "": nothing, and the same of health
	health    string
	bind      string // kube-proxy's idea of this node's address
	profiling bool
	unhealthy time.Duration
}

// logConfig says what is logged, in our words and in kube-proxy's.
type logConfig struct {
	level     string
	json      bool
	verbosity int
	format    string
}

func (c *config) flags(f *pflag.FlagSet) {
	c.file.flags(f)
	c.source.flags(f)
	c.service.flags(f)
	c.balancer.flags(f)
	c.policy.flags(f)
	c.node.flags(f)
	c.serve.flags(f)
	f.StringVar(&c.device, "device", defaultDevice, "dummy device that holds the Services' addresses")
	f.DurationVar(&c.audit, "audit-period", 30*time.Second, "time between two comparisons of a kernel table with what is wanted; 0: never")
	f.BoolVar(&c.initOnly, "init-only", false, "load modules, set the kernel's switches and end: a privileged container does it for one that may not write them")
	f.StringVar(&c.logging.level, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&c.logging.json, "log-json", false, "log as JSON")
	c.kubeProxyFlags(f)
}

func (c *sourceConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig of the API server; without it and --manifests, the in-cluster one")
	f.StringVar(&c.master, "master", "", "URL of the API server; goes before the kubeconfig's, and before that of the Service kubernetes in a cluster")
	f.Float32Var(&c.qps, "kube-api-qps", kube.DefaultQPS, "requests a second to the API server, of each client; below 0: no limit")
	f.IntVar(&c.burst, "kube-api-burst", kube.DefaultBurst, "requests at once to the API server, of each client")
	f.StringVar(&c.manifests, "manifests", "", "directory of YAML (Service, EndpointSlice, Node, NetworkPolicy, AddressPool, BGPPeer ...) to read instead of an API server")
	f.StringVar(&c.nodeName, "hostname-override", "", "this node's name, as its Node object has it (default: the host's name); lower case is made of it")
}

func (c *serviceConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.scheduler, "ipvs-scheduler", ipvs.DefaultScheduler, "scheduler of Services that ask for none: "+strings.Join(ipvs.Schedulers(), ", "))
	c.detect.flags(f)
	f.StringSliceVar(&c.externalCIDR, "allow-external-ips", nil, "ranges that spec.externalIPs may name; \"none\": no external IPs (default: all; they let whoever may make a Service take any address, KEP-5707)")
	f.DurationVar(&c.drain, "drain-timeout", ipvs.DefaultDrain, "how long a leaving endpoint keeps its established connections at most; annotation sluice.dev/drain-timeout of a Service goes before")
	f.DurationVar(&c.timeouts.TCP, "ipvs-tcp-timeout", 135*time.Minute, "how long IPVS keeps an idle TCP connection; one for all Services of the node; 0: leave the kernel's")
	f.DurationVar(&c.timeouts.TCPFin, "ipvs-tcpfin-timeout", 0, "how long IPVS keeps a TCP connection after a FIN; 0: leave the kernel's")
	f.DurationVar(&c.timeouts.UDP, "ipvs-udp-timeout", 0, "how long IPVS keeps an idle UDP flow; 0: leave the kernel's")
	f.StringSliceVar(&c.nodePortCIDR, "nodeport-addresses", nil, "ranges of node addresses that serve NodePorts; \"all\": all of them (default: \"primary\", the node's primary address of each family)")
	f.BoolVar(&c.masqueradeAll, "masquerade-all", false, "masquerade everything sent to a cluster IP")
	f.IntVar(&c.masqueradeBit, "iptables-masquerade-bit", 14, "bit of the packet mark that asks for masquerading, 0 to 31")
}

func (c *detectConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.mode, "detect-local-mode", clusterCIDRMode, "how traffic of pods is told: ClusterCIDR (--cluster-cidr), NodeCIDR (spec.podCIDRs of this node's Node), "+
		"BridgeInterface (--pod-bridge-interface) or InterfaceNamePrefix (--pod-interface-name-prefix)")
	f.StringSliceVar(&c.clusterCIDR, "cluster-cidr", nil, "pod address ranges, one or more of each family; traffic to a cluster IP from elsewhere is masqueraded")
	f.StringVar(&c.bridge, "pod-bridge-interface", "", "bridge that traffic of this node's pods comes from")
	f.StringVar(&c.prefix, "pod-interface-name-prefix", "", "how the names of the interfaces begin that traffic of this node's pods comes from")
}

func (c *serveConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.metrics, "metrics-bind-address", defaultMetrics, "address of /metrics, /proxyMode, /state, /services, /names, /connections, /bgp and /policy; \"\": nowhere")
	f.StringVar(&c.health, "healthz-bind-address", defaultHealth, "address of /healthz, /livez and /readyz; \"\": nowhere")
	f.BoolVar(&c.profiling, "profiling", false, "serve /debug/pprof beside /metrics")
	f.DurationVar(&c.unhealthy, "unhealthy-after", time.Minute, "how long a wanted change may fail to reach the kernel before /healthz fails")
}

// Where the agent serves, unless it is told otherwise.
const (
	metricsPort    = "10249"
	healthPort     = "10256"
	defaultMetrics = "127.0.0.1:" + metricsPort
	defaultHealth  = "0.0.0.0:" + healthPort
)

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
		return wrong("bgp-on-stop", "%q: use %s, %s or %s", c.onStop, stopAuto, stopWithdraw, stopKeep)
	}
	if c.notReadyAfter < 0 {
		return wrong("not-ready-after", "%v: use a time of 0 or more", c.notReadyAfter)
	}
	if c.stopWait < 0 {
		return wrong("bgp-stop-wait", "%v: use a time of 0 or more", c.stopWait)
	}
	return nil
}

const defaultDevice = "sluice0"

// The ways to tell pods' traffic, by kube-proxy's names.
const (
	clusterCIDRMode = "ClusterCIDR"
	nodeCIDRMode    = "NodeCIDR"
	bridgeMode      = "BridgeInterface"
	prefixMode      = "InterfaceNamePrefix"
)

// settings is a config that has been checked.
type settings struct {
	config
	clusterCIDRs  []netip.Prefix
	nodePortCIDRs []netip.Prefix
	externalCIDRs []netip.Prefix // nil: all
	log           *slog.Logger
}

// badFlag is why a flag cannot be used as it is. Who knows that a file has set
// it says so instead of the flag.
type badFlag struct{ flag, reason string }

func (e badFlag) Error() string { return "--" + e.flag + " " + e.reason }

// wrong makes a badFlag. The reason names the value and the remedy.
func wrong(flag, reason string, args ...any) error {
	return badFlag{flag, fmt.Sprintf(reason, args...)}
}

// check refuses what cannot work, naming what has said it and the remedy.
func (c config) check() (settings, error) {
	s, err := c.parse()
	return s, c.file.located(err)
}

func (c config) parse() (settings, error) {
	s := settings{config: c}
	if f := c.logging.format; f != "text" && f != "json" {
		return s, wrong("logging-format", "%q: use text or json", f)
	}
	log, err := newLogger(c.logging.level, c.logging.json)
	if err != nil {
		return s, err
	}
	s.log = log
	for _, check := range []func() error{
		c.source.check, c.service.check, c.balancer.check, c.policy.check, c.node.check, c.serve.check, c.times, s.ranges, s.name,
	} {
		if err := check(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (c sourceConfig) check() error {
	if c.manifests != "" && c.kubeconfig != "" {
		return wrong("manifests", "and --kubeconfig exclude each other: facts come from one of them")
	}
	if c.qps >= 0 && c.burst < 1 {
		return wrong("kube-api-burst", "%d: use 1 or more", c.burst)
	}
	if c.qps == 0 {
		return wrong("kube-api-qps", "0: use a number above 0, or one below for no limit")
	}
	return nil
}

// times checks what belongs to no part.
func (c config) times() error {
	if c.audit < 0 {
		return wrong("audit-period", "%v: use a time of 0 or more; 0 is never", c.audit)
	}
	if c.serve.unhealthy < 0 {
		return wrong("unhealthy-after", "%v: use a time of 0 or more", c.serve.unhealthy)
	}
	return nil
}

// name is the node's: Kubernetes makes lower case of a host's name, as
// kube-proxy and the kubelet do.
func (s *settings) name() error {
	name := s.source.nodeName
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("the host has no name (%w); use --hostname-override", err)
		}
	}
	s.source.nodeName = strings.ToLower(strings.TrimSpace(name))
	if s.source.nodeName == "" {
		return wrong("hostname-override", "%q: use the name of this node's Node object", name)
	}
	return nil
}

// newLogger logs to stderr.
func newLogger(level string, asJSON bool) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, wrong("log-level", "%q: use debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: least}
	if asJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
}

func (c serviceConfig) check() error {
	if !ipvs.KnownScheduler(c.scheduler) {
		return wrong("ipvs-scheduler", "%q: use one of %s", c.scheduler, strings.Join(ipvs.Schedulers(), ", "))
	}
	if b := c.masqueradeBit; b < 0 || b > 31 {
		return wrong("iptables-masquerade-bit", "%d: a packet mark has the bits 0 to 31", b)
	}
	if c.drain <= 0 {
		return wrong("drain-timeout", "%v: use a time above 0, such as 15m", c.drain)
	}
	for _, t := range []struct {
		flag string
		is   time.Duration
	}{{"ipvs-tcp-timeout", c.timeouts.TCP}, {"ipvs-tcpfin-timeout", c.timeouts.TCPFin}, {"ipvs-udp-timeout", c.timeouts.UDP}} {
		if t.is < 0 || t.is%time.Second != 0 {
			return wrong(t.flag, "%v: use whole seconds, or 0 for the kernel's value", t.is)
		}
	}
	if !slices.Contains([]string{"", proxyconfig.ModeIPVS, proxyconfig.ModeIPTables, proxyconfig.ModeNFTables}, c.mode) {
		return wrong("proxy-mode", "%q: use %s, which is what Sluice does", c.mode, proxyconfig.ModeIPVS)
	}
	return c.detect.check()
}

func (c detectConfig) check() error {
	switch c.mode {
	case clusterCIDRMode, nodeCIDRMode:
		return nil
	case bridgeMode:
		return checkInterface("pod-bridge-interface", c.bridge, maxInterface)
	case prefixMode:
		return checkInterface("pod-interface-name-prefix", c.prefix, maxInterface-1)
	}
	return wrong("detect-local-mode", "%q: use %s, %s, %s or %s", c.mode, clusterCIDRMode, nodeCIDRMode, bridgeMode, prefixMode)
}

// maxInterface is how long the kernel lets the name of an interface be.
const maxInterface = 15

// checkInterface refuses what is no name of an interface, or no beginning of one.
func checkInterface(flag, name string, longest int) error {
	if name == "" || len(name) > longest || strings.ContainsAny(name, " \t\n/+!\"'\\") {
		return wrong(flag, "%q: --detect-local-mode needs it, with 1 to %d characters as `ip link` shows them", name, longest)
	}
	return nil
}

// podInterface is the interface that pods' traffic comes in by, as iptables
// takes it; "": pods are told otherwise.
func (c detectConfig) podInterface() string {
	switch c.mode {
	case bridgeMode:
		return c.bridge
	case prefixMode:
		return c.prefix + "+"
	}
	return ""
}

// ranges parses what is given as ranges of addresses.
func (s *settings) ranges() (err error) {
	if s.clusterCIDRs, err = prefixes("cluster-cidr", s.service.detect.clusterCIDR, ""); err != nil {
		return err
	}
	nodePorts := s.service.nodePortCIDR
	if slices.Equal(nodePorts, []string{"all"}) {
		nodePorts = []string{"0.0.0.0/0", "::/0"}
	}
	if s.nodePortCIDRs, err = prefixes("nodeport-addresses", nodePorts, "primary"); err != nil {
		return err
	}
	if len(nodePorts) > 1 && slices.Contains(nodePorts, "primary") {
		return wrong("nodeport-addresses", "%q: \"primary\" and ranges exclude each other", strings.Join(nodePorts, ","))
	}
	if s.externalCIDRs, err = prefixes("allow-external-ips", s.service.externalCIDR, "none"); err != nil {
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
			return nil, wrong(flag, "%q: use a range such as 10.244.0.0/16", t)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
