package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/sysctl"
)

// nodeConfig says how the kernel's switches are to be.
type nodeConfig struct {
	strictARP bool
	takeOver  bool // from kube-proxy
	conntrack sysctl.Conntrack
}

// flags are kube-proxy's, with its defaults.
func (c *nodeConfig) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.takeOver, "remove-kube-proxy", false, "take the node over from kube-proxy, which must not run any more: its virtual servers are kept with their connections, and what else it left is removed once this node is served (modes ipvs and iptables)")
	f.BoolVar(&c.strictARP, "ipvs-strict-arp", false, "do not answer ARP for what another interface has: net.ipv4.conf.all.arp_ignore=1 and arp_announce=2; false leaves them as they are")
	f.IntVar(&c.conntrack.MaxPerCore, "conntrack-max-per-core", 32*1024, "tracked connections at most, for each processor: net.netfilter.nf_conntrack_max, never above 1048576; 0: leave it")
	f.IntVar(&c.conntrack.Min, "conntrack-min", 128*1024, "tracked connections at most, if --conntrack-max-per-core makes fewer")
	f.DurationVar(&c.conntrack.TCPEstablished, "conntrack-tcp-timeout-established", 24*time.Hour, "how long an idle TCP connection stays tracked; 0: leave the kernel's")
	f.DurationVar(&c.conntrack.TCPCloseWait, "conntrack-tcp-timeout-close-wait", time.Hour, "how long a TCP connection stays tracked that one side has closed; 0: leave the kernel's")
	f.BoolVar(&c.conntrack.TCPBeLiberal, "conntrack-tcp-be-liberal", false, "packets outside a TCP connection's window are not invalid; false leaves the kernel's")
	f.DurationVar(&c.conntrack.UDP, "conntrack-udp-timeout", 0, "how long a UDP flow stays tracked that nobody has answered; 0: leave the kernel's")
	f.DurationVar(&c.conntrack.UDPStream, "conntrack-udp-timeout-stream", 0, "how long a UDP flow stays tracked that was answered; 0: leave the kernel's")
}

func (c nodeConfig) check() error {
	for _, n := range []struct {
		flag string
		is   int
	}{{"conntrack-max-per-core", c.conntrack.MaxPerCore}, {"conntrack-min", c.conntrack.Min}} {
		if n.is < 0 {
			return wrong(n.flag, "%d: use a number of 0 or more; 0 leaves the kernel's value", n.is)
		}
	}
	for _, t := range []struct {
		flag string
		is   time.Duration
	}{
		{"conntrack-tcp-timeout-established", c.conntrack.TCPEstablished},
		{"conntrack-tcp-timeout-close-wait", c.conntrack.TCPCloseWait},
		{"conntrack-udp-timeout", c.conntrack.UDP},
		{"conntrack-udp-timeout-stream", c.conntrack.UDPStream},
	} {
		if t.is < 0 || t.is%time.Second != 0 {
			return wrong(t.flag, "%v: use whole seconds, or 0 for the kernel's value", t.is)
		}
	}
	return nil
}

// switches are those of the kernel that this node is to have.
func (s settings) switches(families func(model.Family) bool) []sysctl.Setting {
	list := append(sysctl.Wanted(families(model.IPv6)), s.node.conntrack.Settings(sysctl.Cores("/"))...)
	if s.node.strictARP {
		list = append(list, sysctl.StrictARP()...)
	}
	return list
}

func (c serveConfig) check() error {
	for _, a := range []struct{ flag, is string }{{"metrics-bind-address", c.metrics}, {"healthz-bind-address", c.health}} {
		if a.is == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.is); err != nil {
			return wrong(a.flag, "%q: use an address and a port, such as 0.0.0.0:10256", a.is)
		}
	}
	if c.metrics == c.health && c.metrics != "" {
		return wrong("metrics-bind-address", "%q is the address of --healthz-bind-address too: use another port", c.metrics)
	}
	if _, err := netip.ParseAddr(c.bind); err != nil && c.bind != "" {
		return wrong("bind-address", "%q: use an address, such as 0.0.0.0 or ::", c.bind)
	}
	return nil
}

// withPort is an address with a port, which may have been left out.
func withPort(addr, port string) string {
	if ip, err := netip.ParseAddr(addr); err == nil {
		return net.JoinHostPort(ip.String(), port)
	}
	return addr
}

// profiled serves Go's profiles beside what h does.
func profiled(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// prepare sets the kernel's switches once, for an agent that may not: opening
// the tables has loaded their modules. What is only looked at is somebody
// else's, and no error here.
func prepare(ctx context.Context, s settings) error {
	k, err := openKernel(ctx, s.device, s.log)
	if err != nil {
		return err
	}
	defer k.close()
	switches := s.switches(k.serves)
	var errs []error
	for i, o := range sysctl.Apply(sysctl.Root(), switches) {
		if o.Err != nil && !switches[i].VerifyOnly {
			errs = append(errs, o.Err)
		}
		if o.Wrote && o.Err == nil {
			s.log.Info("kernel setting", "sysctl", switches[i].Path, "value", switches[i].Value)
		}
	}
	return errors.Join(errs...)
}
