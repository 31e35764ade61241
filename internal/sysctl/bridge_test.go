package sysctl

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// host is a root with the files of network devices as Linux has them.
type host struct {
	t    *testing.T
	root string
}

func newHost(t *testing.T) host {
	t.Helper()
	h := host{t, t.TempDir()}
	h.file("sys/class/net/lo/uevent", "INTERFACE=lo")
	return h
}

func (h host) file(path, text string) {
	h.t.Helper()
	full := filepath.Join(h.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text+"\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// device makes a device; more is "file=text" for what differs from a veth's end
// in the host, of which the other is device 3 somewhere else.
func (h host) device(name string, more ...string) {
	h.t.Helper()
	files := map[string]string{"uevent": "INTERFACE=" + name + "\nIFINDEX=7", "type": "1", "flags": "0x1303", "iflink": "3", "ifindex": "7"}
	for _, m := range more {
		file, text, _ := strings.Cut(m, "=")
		files[file] = text
	}
	for file, text := range files {
		h.file(filepath.Join("sys/class/net", name, file), text)
	}
}

func (h host) bridge(name string, ports ...string) {
	h.t.Helper()
	h.device(name, "uevent=DEVTYPE=bridge\nINTERFACE="+name, "bridge/stp_state=0", "iflink=7")
	for _, p := range ports {
		h.file(filepath.Join("sys/class/net", name, "brif", p, "port_id"), "0x8001")
	}
}

// route adds a line of /proc/net/route.
func (h host) route(device, network, gateway string) {
	h.t.Helper()
	p := netip.MustParsePrefix(network)
	number := func(a netip.Addr) string { return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(a.AsSlice())) }
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	m, _ := netip.AddrFromSlice(mask)
	path := filepath.Join(h.root, "proc/net/route")
	was, err := os.ReadFile(path)
	if err != nil {
		was = []byte("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n")
	}
	line := strings.Join([]string{device, number(p.Masked().Addr()), number(netip.MustParseAddr(gateway)), "0001", "0", "0", "0", number(m), "0", "0", "0"}, "\t")
	h.file("proc/net/route", string(was)+line)
}

func TestBridgesThatPodsSitOn(t *testing.T) {
	for name, c := range map[string]struct {
		make func(host)
		pods string
		want string // the bridges
	}{
		"no bridge":                       {func(h host) { h.device("veth1"); h.device("eth0", "iflink=2", "ifindex=2", "device/vendor=0x1af4") }, "10.244.1.5", ""},
		"a bridge with a veth":            {func(h host) { h.bridge("cni0", "veth1"); h.device("veth1") }, "", "cni0"},
		"two of three":                    {func(h host) { h.bridge("b", "v1"); h.bridge("a", "v2"); h.bridge("c"); h.device("v1"); h.device("v2") }, "", "a b"},
		"a veth whose peer has its index": {func(h host) { h.bridge("cni0", "veth1"); h.device("veth1", "iflink=7") }, "", "cni0"},
		"a veth behind an uplink": {func(h host) {
			h.bridge("cni0", "eth0", "veth1")
			h.device("eth0", "device/vendor=0x1af4")
			h.device("veth1")
		}, "", "cni0"},
		"no port at all":                 {func(h host) { h.bridge("br0") }, "10.244.1.5", ""},
		"a network card":                 {func(h host) { h.bridge("br0", "eth0"); h.device("eth0", "device/vendor=0x1af4") }, "", ""},
		"a virtual machine's tap":        {func(h host) { h.bridge("virbr0", "vnet0"); h.device("vnet0", "tun_flags=0x1002") }, "", ""},
		"a dummy":                        {func(h host) { h.bridge("br0", "d0"); h.device("d0", "flags=0x82") }, "", ""},
		"a VLAN":                         {func(h host) { h.bridge("br0", "eth0.5"); h.device("eth0.5", "uevent=DEVTYPE=vlan", "lower_eth0/x=1") }, "", ""},
		"a team of cards":                {func(h host) { h.bridge("br0", "team0"); h.device("team0", "lower_eth0/x=1") }, "", ""},
		"a tunnel":                       {func(h host) { h.bridge("br0", "gretap0"); h.device("gretap0", "iflink=0") }, "", ""},
		"a VXLAN":                        {func(h host) { h.bridge("br0", "vx"); h.device("vx", "uevent=DEVTYPE=vxlan") }, "", ""},
		"what is no Ethernet":            {func(h host) { h.bridge("br0", "ib0"); h.device("ib0", "type=32") }, "", ""},
		"a port that has gone meanwhile": {func(h host) { h.bridge("br0", "veth1") }, "", ""},
		"a bridge in a pod's network": {func(h host) {
			h.bridge("br0", "eth0")
			h.device("eth0", "device/vendor=0x1af4")
			h.route("br0", "10.244.1.0/24", "0.0.0.0")
		}, "10.244.1.5", "br0"},
		"in no pod's network": {func(h host) { h.bridge("br0"); h.route("br0", "10.244.1.0/24", "0.0.0.0") }, "10.244.2.5 fd00::5", ""},
		"behind whose router pods are": {func(h host) {
			h.bridge("br0")
			h.route("br0", "10.244.0.0/16", "192.0.2.1")
			h.route("br0", "0.0.0.0/0", "0.0.0.0")
			h.route("eth0", "10.244.1.0/24", "0.0.0.0")
		}, "10.244.1.5", ""},
		"in a pod's network of IPv6": {func(h host) {
			h.bridge("br0")
			h.file("proc/net/if_inet6", "fe80000000000000fc00fffe00000001 04 40 20 80     br0\n"+
				"fd000000000000010000000000000001 04 40 00 80     br0")
		}, "fd00:0:0:1::5", "br0"},
		"in none of IPv6": {func(h host) {
			h.bridge("br0")
			h.file("proc/net/if_inet6", "fd000000000000010000000000000001 04 40 00 80     eth0\nfd000000000000020000000000000001 04 40 00 80     br0")
		}, "fd00:0:0:1::5", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.make(h)
			settings, err := Bridges{Root: h.root, Pods: func() (pods []netip.Addr) {
				for p := range strings.FieldsSeq(c.pods) {
					pods = append(pods, netip.MustParseAddr(p))
				}
				return pods
			}}.Settings()
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if len(settings) != 0 {
					t.Errorf("%+v, want none", settings)
				}
				return
			}
			var paths []string
			for _, s := range settings {
				paths = append(paths, s.Path)
				if s.Value != "1" || s.VitalTo != Policies || s.Module != "br_netfilter" || s.VerifyOnly {
					t.Errorf("%+v", s)
				}
				if why := "pods sit on bridge " + strings.ReplaceAll(c.want, " ", ", ") + ", and"; !strings.HasPrefix(s.Why, why) {
					t.Errorf("why %q, want %q", s.Why, why)
				}
			}
			if want := []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"}; !slices.Equal(paths, want) {
				t.Errorf("%v, want %v", paths, want)
			}
		})
	}
}

func TestWithoutTheHostsDevices(t *testing.T) {
	_, err := Bridges{Root: t.TempDir()}.Settings()
	if err == nil || !strings.Contains(err.Error(), "the agent needs the host's /sys") {
		t.Errorf("%v", err)
	}
}

// TestKeeperOfBridges: switched on for the first pod on a bridge, put right when
// somebody switches it off, and a problem of the node where it cannot be.
func TestKeeperOfBridges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		const call, call6 = "proc/sys/net/bridge/bridge-nf-call-iptables", "proc/sys/net/bridge/bridge-nf-call-ip6tables"
		h.file(call, "0")
		h.file(call6, "0")
		var log strings.Builder
		k := NewKeeper(filepath.Join(h.root, "proc/sys"), nil, 5*time.Minute, slog.New(slog.NewTextHandler(&log, nil)))
		k.Also(Bridges{Root: h.root}.Settings)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		k.Apply()
		go k.Run(ctx)
		expect := func(when, values string, drift uint64, problems ...string) {
			t.Helper()
			synctest.Wait()
			one, _ := read(filepath.Join(h.root, call))
			two, _ := read(filepath.Join(h.root, call6))
			if got := one + two; got != values || k.Drift() != drift {
				t.Errorf("%s: the switches are %q with drift %d, want %q and %d", when, got, k.Drift(), values, drift)
			}
			if !slices.Equal(k.Problems(Policies), problems) {
				t.Errorf("%s: problems %q, want %q", when, k.Problems(Policies), problems)
			}
		}
		expect("no pod sits on a bridge", "00", 0)

		h.bridge("cni0", "veth1")
		h.device("veth1")
		time.Sleep(time.Minute)
		expect("nobody has looked yet", "00", 0)
		k.Kick()
		k.Kick()
		time.Sleep(settle)
		expect("the first pod, which is no drift", "11", 0)

		h.file(call, "0")
		time.Sleep(5 * time.Minute)
		expect("somebody switched it off", "11", 1)

		if err := os.RemoveAll(filepath.Join(h.root, "proc/sys/net/bridge")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		const rest = "=1: this kernel does not have it; load its module: modprobe br_netfilter " +
			"(pods sit on bridge cni0, and packets between them would pass no NetworkPolicy)"
		expect("without the module", "", 1, "sysctl net.bridge.bridge-nf-call-iptables"+rest, "sysctl net.bridge.bridge-nf-call-ip6tables"+rest)
		if n := strings.Count(log.String(), "modprobe br_netfilter"); n != 2 {
			t.Errorf("said %d times, want once for each switch:\n%s", n, &log)
		}

		h.file(call, "1")
		h.file(call6, "0")
		time.Sleep(5 * time.Minute)
		expect("somebody loaded it", "11", 1)
	})
}
