package router

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"sluice.dev/sluice/e2e/topo"
)

// BIRD is a router of one daemon.
type BIRD struct {
	host    *topo.Host
	options Options
	dir     string // of configuration and socket
	daemon  *topo.Process
}

// StartBIRD starts BIRD on a host.
func StartBIRD(h *topo.Host, o Options) (r *BIRD, err error) {
	r = &BIRD{host: h, options: o}
	if r.dir, err = workDir(h, os.Getuid(), os.Getgid()); err != nil {
		return nil, fmt.Errorf("router: BIRD on %s: %w", h.Name, err)
	}
	if err := errors.Join(h.Spread(), r.StartBGP()); err != nil {
		return nil, errors.Join(fmt.Errorf("router: BIRD on %s: %w", h.Name, err), r.Stop())
	}
	return r, nil
}

func (r *BIRD) path(name string) string { return filepath.Join(r.dir, name) }

// StartBGP starts the daemon.
func (r *BIRD) StartBGP() (err error) {
	if err := r.write(); err != nil {
		return err
	}
	r.daemon, err = r.host.Start(r.options.Log, "bird", "-f", "-c", r.path("bird.conf"), "-s", r.path("bird.ctl"), "-P", r.path("bird.pid"))
	if err != nil {
		return err
	}
	return answers(r.daemon, "bird", func() error {
		_, err := r.command("show status")
		return err
	})
}

// KillBGP ends the daemon. What it told the kernel stays there.
func (r *BIRD) KillBGP() error { return r.daemon.Kill() }

// Originate changes what is told.
func (r *BIRD) Originate(routes ...Origin) error {
	r.options.Originate = routes
	if err := r.write(); err != nil {
		return err
	}
	_, err := r.command("configure")
	return err
}

func (r *BIRD) write() error { return os.WriteFile(r.path("bird.conf"), []byte(r.config()), 0o644) }

func (r *BIRD) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\nprotocol device { scan time 10; }\n", r.host.V4)
	for family, v6 := range map[string]bool{"ipv4": false, "ipv6": true} {
		fmt.Fprintf(&b, "protocol static told_%s {\n %[1]s;\n%s}\n", family, r.origins(v6))
		fmt.Fprintf(&b, "protocol kernel kernel_%s {\n %[1]s { export where source = RTS_BGP; };\n merge paths on limit 64;\n}\n", family)
	}
	for i, n := range r.options.Neighbors {
		fmt.Fprintf(&b, "protocol bgp n%d {\n local %s as %d; neighbor %s as %d; direct;\n hold time %d; connect retry time 1; connect delay time 1; error wait time 1, 2;\n",
			i+1, r.host.V4, r.options.ASN, n.Addr, n.ASN, r.options.hold())
		if n.Password != "" {
			fmt.Fprintf(&b, " password %q;\n", n.Password)
		}
		if r.options.Tells {
			b.WriteString(" graceful restart on;\n")
		} else {
			b.WriteString(" passive on;\n")
		}
		fmt.Fprintf(&b, " ipv4 { %s };\n ipv6 { %s };\n}\n", r.channel(false), r.channel(true))
	}
	return b.String()
}

// origins are the routes of one family as static ones, which go nowhere here.
func (r *BIRD) origins(v6 bool) string {
	var b strings.Builder
	for _, o := range r.options.Originate {
		if o.Prefix.Addr().Is6() != v6 {
			continue
		}
		fmt.Fprintf(&b, " route %s blackhole {", o.Prefix)
		for _, c := range o.Communities {
			fmt.Fprintf(&b, " bgp_community.add((%s));", strings.ReplaceAll(c, ":", ","))
		}
		for _, c := range o.LargeCommunities {
			fmt.Fprintf(&b, " bgp_large_community.add((%s));", strings.ReplaceAll(c, ":", ","))
		}
		b.WriteString(" };\n")
	}
	return b.String()
}

// channel says what goes over a session of one family.
func (r *BIRD) channel(v6 bool) string {
	if !r.options.Tells {
		return "import all; export none;"
	}
	var meds strings.Builder
	for _, o := range r.options.Originate {
		if o.MED != 0 && o.Prefix.Addr().Is6() == v6 {
			fmt.Fprintf(&meds, " if net = %s then bgp_med = %d;", o.Prefix, o.MED)
		}
	}
	hop := r.host.V4
	if v6 {
		hop = r.host.V6
	}
	return fmt.Sprintf("import none; next hop address %s; export filter { if source != RTS_STATIC then reject;%s accept; };", hop, &meds)
}

// command has BIRD run a command, as birdc does, and returns its answer. Every
// line has a number, four digits; "-" behind it says that more follow, a blank
// that this was the last. A line of the same number begins with a blank
// instead.
func (r *BIRD) command(command string) (string, error) {
	conn, err := open(r.path("bird.ctl"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil { // the welcome
		return "", fmt.Errorf("router: BIRD: %w", err)
	}
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", fmt.Errorf("router: BIRD: %w", err)
	}
	var b strings.Builder
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("router: BIRD: %s: %w", command, err)
		}
		if rest, more := strings.CutPrefix(line, " "); more {
			b.WriteString(rest)
			continue
		}
		if len(line) < 5 {
			return "", fmt.Errorf("router: BIRD: %s: unexpected line %q", command, line)
		}
		b.WriteString(line[5:])
		if line[4] == '-' {
			continue
		}
		if line[0] >= '8' { // 8xxx refuses, 9xxx does not understand
			return "", fmt.Errorf("router: BIRD: %s: %s", command, strings.TrimSpace(line))
		}
		return b.String(), nil
	}
}

// Sessions are the states of the neighbors.
func (r *BIRD) Sessions() (map[netip.Addr]string, error) {
	states := map[netip.Addr]string{}
	text, err := r.command("show protocols")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		var n int
		if len(f) < 4 || f[1] != "BGP" {
			continue
		}
		if _, err := fmt.Sscanf(f[0], "n%d", &n); err != nil || n < 1 || n > len(r.options.Neighbors) {
			return nil, fmt.Errorf("router: BIRD: unknown protocol %q", f[0])
		}
		states[r.options.Neighbors[n-1].Addr] = f[len(f)-1]
	}
	return states, nil
}

// Stop ends the daemon and removes its files.
func (r *BIRD) Stop() error {
	var err error
	if r.daemon != nil {
		err = r.daemon.Stop()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}
