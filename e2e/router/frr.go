package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"sluice.dev/sluice/e2e/topo"
)

// frrBin is where Debian's package has the daemons.
const frrBin = "/usr/lib/frr/"

// FRR is a router of zebra, which has the kernel's table, and bgpd.
type FRR struct {
	host        *topo.Host
	options     Options
	dir         string // of configuration and sockets
	zebra, bgpd *topo.Process
}

// StartFRR starts FRR on a host, with no other daemon than it needs.
func StartFRR(h *topo.Host, o Options) (r *FRR, err error) {
	uid, gid, err := frrUser()
	if err != nil {
		return nil, err
	}
	r = &FRR{host: h, options: o}
	if r.dir, err = workDir(h, uid, gid); err != nil {
		return nil, fmt.Errorf("router: FRR on %s: %w", h.Name, err)
	}
	if err := r.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("router: FRR on %s: %w", h.Name, err), r.Stop())
	}
	return r, nil
}

func frrUser() (uid, gid int, err error) {
	u, err := user.Lookup("frr")
	if err != nil {
		return 0, 0, fmt.Errorf("router: is the package frr installed? %w", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

func (r *FRR) start() (err error) {
	if err := r.host.Spread(); err != nil {
		return err
	}
	// It would take an IPv6 route away to put another in its place if it were
	// not told that this kernel can replace one.
	if r.zebra, err = r.daemon("zebra", "log stdout\n", "--v6-rr-semantics", "--nl-bufsize", "16777216"); err != nil {
		return err
	}
	return r.StartBGP()
}

// daemon starts one of FRR's daemons and waits for its socket.
func (r *FRR) daemon(name, config string, args ...string) (*topo.Process, error) {
	path := filepath.Join(r.dir, name+".conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := r.host.Start(r.options.Log, frrBin+name, append([]string{
		"-u", "frr", "-g", "frr", "-f", path, "-z", filepath.Join(r.dir, "zserv.api"),
		"-i", filepath.Join(r.dir, name+".pid"), "--vty_socket", r.dir,
	}, args...)...)
	if err != nil {
		return nil, err
	}
	return p, answers(p, name, func() error {
		_, err := vty(r.socket(name), "show version")
		return err
	})
}

func (r *FRR) socket(daemon string) string { return filepath.Join(r.dir, daemon+".vty") }

// StartBGP starts bgpd.
func (r *FRR) StartBGP() (err error) {
	r.bgpd, err = r.daemon("bgpd", r.config())
	return err
}

// KillBGP ends bgpd; zebra then takes its routes out of the kernel's table.
func (r *FRR) KillBGP() error { return r.bgpd.Kill() }

func (r *FRR) config() string {
	o := r.options
	var b strings.Builder
	fmt.Fprintf(&b, `log stdout
log timestamp precision 3
router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp %d %d
`, o.ASN, r.host.V4, max(1, o.hold()/3), o.hold())
	for _, n := range o.Neighbors {
		fmt.Fprintf(&b, " neighbor %s remote-as %d\n neighbor %[1]s passive\n", n.Addr, n.ASN)
		if n.Password != "" {
			fmt.Fprintf(&b, " neighbor %s password %s\n", n.Addr, n.Password)
		}
		if n.TTLSecurity {
			fmt.Fprintf(&b, " neighbor %s ttl-security hops 1\n", n.Addr)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  maximum-paths 64\n  maximum-paths ibgp 64\n", family)
		for _, n := range o.Neighbors {
			fmt.Fprintf(&b, "  neighbor %s activate\n", n.Addr)
		}
		b.WriteString(" exit-address-family\n")
	}
	return b.String()
}

// Configure changes bgpd's configuration as if typed below `router bgp`.
func (r *FRR) Configure(lines ...string) error {
	commands := append([]string{"enable", "configure terminal", fmt.Sprintf("router bgp %d", r.options.ASN)}, lines...)
	_, err := vty(r.socket("bgpd"), commands...)
	return err
}

// show runs a command of bgpd's that answers in JSON.
func (r *FRR) show(command string, into any) error {
	text, err := vty(r.socket("bgpd"), command)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("router: FRR: %s: %w", command, err)
	}
	return nil
}

// Sessions are the states of the neighbors.
func (r *FRR) Sessions() (map[netip.Addr]string, error) {
	var said map[string]json.RawMessage
	if err := r.show("show bgp neighbors json", &said); err != nil {
		return nil, err
	}
	states := map[netip.Addr]string{}
	for name, text := range said {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			continue // something about all
		}
		var n struct {
			State string `json:"bgpState"`
		}
		if err := json.Unmarshal(text, &n); err != nil {
			return nil, fmt.Errorf("router: FRR: neighbor %s: %w", name, err)
		}
		states[addr] = n.State
	}
	return states, nil
}

// Routes are those that bgpd has learned.
func (r *FRR) Routes(v6 bool) (map[netip.Prefix][]Path, error) {
	family := "ipv4"
	if v6 {
		family = "ipv6"
	}
	var table frrTable
	if err := r.show("show bgp "+family+" unicast json detail", &table); err != nil {
		return nil, err
	}
	return table.routes()
}

// frrTable is what bgpd says about its table. The first entry of a prefix is
// about the prefix, the others are its paths.
type frrTable struct {
	Routes map[netip.Prefix][]frrPath `json:"routes"`
}

type frrPath struct {
	ASPath *struct {
		String string `json:"string"`
	} `json:"aspath"`
	Community      frrList `json:"community"`
	LargeCommunity frrList `json:"largeCommunity"`
	LocalPref      uint32  `json:"locPrf"`
	MED            uint32  `json:"metric"`
	Stale          bool    `json:"stale"`
	NextHops       []struct {
		IP    netip.Addr `json:"ip"`
		Scope string     `json:"scope"`
	} `json:"nexthops"`
}

type frrList struct {
	List []string `json:"list"`
}

func (t frrTable) routes() (map[netip.Prefix][]Path, error) {
	routes := map[netip.Prefix][]Path{}
	for prefix, entries := range t.Routes {
		for _, e := range entries {
			if e.ASPath == nil {
				continue
			}
			p := Path{
				ASPath: e.ASPath.String, Communities: e.Community.List, LargeCommunities: e.LargeCommunity.List,
				LocalPref: e.LocalPref, MED: e.MED, Stale: e.Stale,
			}
			for _, n := range e.NextHops {
				if n.Scope != "link-local" {
					p.NextHop = n.IP
				}
			}
			if !p.NextHop.IsValid() {
				return nil, fmt.Errorf("router: FRR: a path to %v has no next hop", prefix)
			}
			routes[prefix] = append(routes[prefix], p)
		}
	}
	sortPaths(routes)
	return routes, nil
}

// Stop ends the daemons and removes their files.
func (r *FRR) Stop() error {
	var errs []error
	for _, p := range []*topo.Process{r.bgpd, r.zebra} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
