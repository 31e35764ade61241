package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
)

// hands reach into a kernel, a fake's or the real one, past the engine: to read
// what the tables hold, and to change them as others would.
type hands struct {
	table   ipvs.Handle
	sets    netfilter.Sets
	runner  netfilter.Runner
	backend string // "", "-legacy" or "-nft"
	links   vip.Handle
}

// text is one table as a script shows it.
func (h hands) text(ctx context.Context, table string) (string, error) {
	switch table {
	case "ipvs":
		return h.ipvs(ctx)
	case "vip":
		return h.vip(ctx)
	case "sets":
		return h.members(ctx)
	case "shortcuts":
		return h.rules(ctx, func(chain string) bool { return chain == "SLUICE-SHORTCUTS" })
	case "rules":
		return h.rules(ctx, func(chain string) bool { return chain != "SLUICE-SHORTCUTS" })
	}
	return "", fmt.Errorf("no table %q", table)
}

// ipvs is the listing of ipvsadm -L -n without its title and columns of
// counters, in alphabetical order:
//
//	TCP 10.96.0.1:80 rr persistent 10800
//	-> 10.1.2.1:8080 Masq 1
func (h hands) ipvs(ctx context.Context) (string, error) {
	l, err := ipvs.ReadListing(ctx, h.table)
	if err != nil {
		return "", err
	}
	l.Table = nil
	var b strings.Builder
	if err := ipvs.WriteListing(&b, l, ipvs.Style{}); err != nil {
		return "", err
	}
	var blocks [][]string
	for _, line := range strings.Split(b.String(), "\n")[2:] {
		switch words := strings.Fields(line); {
		case len(words) == 0:
		case words[0] == "->":
			last := len(blocks) - 1
			blocks[last] = append(blocks[last], strings.Join(words[:4], " "))
		default:
			blocks = append(blocks, []string{strings.Join(words, " ")})
		}
	}
	slices.SortFunc(blocks, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	var out []string
	for _, block := range blocks {
		slices.Sort(block[1:])
		out = append(out, block...)
	}
	return joined(out), nil
}

// vip is what is on our device. Of several routes to one address the kernel
// takes the first.
//
//	address 10.96.0.1
//	local 10.96.0.1 src 192.0.2.10
func (h hands) vip(ctx context.Context) (string, error) {
	l, _ := h.links.List(ctx) // no device: nothing on it
	var out []string
	for _, a := range l.Addrs {
		if a.Is4() { // an IPv6 one is delivered by its route alone
			out = append(out, "address "+a.String())
		}
	}
	seen := map[netip.Addr]bool{}
	for _, r := range l.Routes {
		if seen[r.Addr] {
			continue
		}
		seen[r.Addr] = true
		line := "local " + r.Addr.String()
		if r.Source.IsValid() {
			line += " src " + r.Source.String()
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return joined(out), nil
}

// members is what is in every ipset, ours without their prefix:
//
//	CLUSTER-IP 10.96.0.1,tcp:80
func (h hands) members(ctx context.Context) (string, error) {
	sets, err := h.sets.Headers(ctx)
	if err != nil {
		return "", err
	}
	var out []string
	for _, s := range sets {
		members, err := h.sets.Members(ctx, s.Name)
		if err != nil {
			return "", err
		}
		name := strings.TrimPrefix(s.Name, netfilter.Prefix)
		if name == s.Name && len(members) == 0 {
			out = append(out, "set "+name)
		}
		for _, m := range members {
			out = append(out, name+" "+m.Entry.String())
		}
	}
	slices.Sort(out)
	return joined(out), nil
}

// rules are the chains of ours by name, what stands in SHORTCUTS, and all rules
// outside of our chains, as far as they are wanted:
//
//	IPv4 nat SLUICE-SERVICES
//	IPv4 nat PREROUTING -j SLUICE-SERVICES
//	198.51.100.1,tcp:80 10.96.0.1:80
func (h hands) rules(ctx context.Context, wanted func(chain string) bool) (string, error) {
	var out []string
	for _, f := range []model.Family{model.IPv4, model.IPv6} {
		program := map[model.Family]string{model.IPv4: "iptables", model.IPv6: "ip6tables"}[f] + h.backend + "-save"
		save, err := h.runner.Run(ctx, nil, program)
		if err != nil {
			return "", err
		}
		table := ""
		for line := range strings.Lines(string(save)) {
			words := strings.Fields(line)
			switch {
			case len(words) == 0:
			case words[0][0] == '*':
				table = words[0][1:]
			case words[0][0] == ':' && words[1] == "-" && wanted(words[0][1:]) && wanted(""):
				out = append(out, fmt.Sprintf("%s %s %s", f, table, words[0][1:]))
			case words[0] == "-A" && wanted(words[1]):
				out = append(out, ruleLine(f, table, words)...)
			}
		}
	}
	slices.Sort(out)
	return joined(out), nil
}

// ruleLine shows a rule of iptables-save; those in our chains stay unsaid.
func ruleLine(f model.Family, table string, words []string) []string {
	chain, rest := words[1], words[2:]
	if chain == "SLUICE-SHORTCUTS" {
		return []string{strings.TrimPrefix(shortcutText(rest), "SHORTCUTS ")}
	}
	if strings.HasPrefix(chain, netfilter.Prefix) {
		return nil
	}
	if i := slices.Index(rest, "comment"); i > 0 && rest[i-1] == "-m" {
		rest = slices.Concat(rest[:i-1], rest[i+3:])
	}
	return []string{fmt.Sprintf("%s %s %s %s", f, table, chain, strings.Join(rest, " "))}
}

func joined(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

var errSyntax = errors.New("cannot be read")

// meddle changes a table as others would:
//
//	ipvs create TCP 203.0.113.200:443 lc
//	ipvs create TCP 203.0.113.200:443 -> 10.9.9.9:443 7
//	ipvs change TCP 10.96.0.1:80 -> 10.1.2.1:8080 0
//	ipvs delete TCP 10.96.0.1:80 -> 10.1.2.1:8080
//	set create OTHERS
//	set add VIPS 10.96.0.9
//	set delete CLUSTER-IP 10.96.0.1,tcp:80
//	vip add 10.96.0.9
//	vip delete 10.96.0.1
//	vip drop
//	rules IPv4 nat -D PREROUTING -j SOMETHING
func (h hands) meddle(ctx context.Context, line string) error {
	words := strings.Fields(line)
	if len(words) < 2 {
		return fmt.Errorf("%q: %w", line, errSyntax)
	}
	var err error
	switch words[0] {
	case "ipvs":
		err = h.meddleServers(ctx, words[1], words[2:])
	case "set":
		err = h.meddleSets(ctx, words[1], words[2:])
	case "vip":
		err = h.meddleLinks(ctx, words[1], words[2:])
	case "rules":
		program := map[string]string{"IPv4": "iptables", "IPv6": "ip6tables"}[words[1]] + h.backend + "-restore"
		text := fmt.Sprintf("*%s\n%s\nCOMMIT\n", words[2], strings.ReplaceAll(strings.Join(words[3:], " "), " ; ", "\n"))
		_, err = h.runner.Run(ctx, []byte(text), program, "--noflush")
	default:
		err = errSyntax
	}
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

func (h hands) meddleServers(ctx context.Context, verb string, words []string) error {
	ops := map[string]ipvs.Op{"create": ipvs.Create, "change": ipvs.Change, "delete": ipvs.Delete}
	c := ipvs.Command{Op: ops[verb]}
	var err error
	if len(words) > 3 && words[2] == "->" {
		c.Key, err = serverKey(words[0], words[1], words[3])
		if len(words) > 4 {
			weight, _ := strconv.Atoi(words[4])
			c.Spec.Destination.Weight = uint32(weight)
		}
	} else {
		c.Key, err = serverKey(words[0], words[1], "")
		c.Spec.VirtualServer = ipvs.VirtualServerSpec{Scheduler: words[len(words)-1], Netmask: ipvs.HostMask4}
		if c.Key.Addr.Addr().Is6() {
			c.Spec.VirtualServer.Netmask = ipvs.HostMask6
		}
	}
	if err != nil {
		return err
	}
	return h.table.Write(ctx, []ipvs.Command{c})[0]
}

// serverKey is a virtual server, or one of its destinations.
func serverKey(proto, vs, rs string) (k ipvs.Key, err error) {
	k.Protocol = map[string]model.Protocol{"TCP": model.TCP, "UDP": model.UDP, "SCTP": model.SCTP}[proto]
	if k.Addr, err = netip.ParseAddrPort(vs); err != nil || rs == "" {
		return k, err
	}
	k.RealServer, err = netip.ParseAddrPort(rs)
	return k, err
}

func (h hands) meddleSets(ctx context.Context, verb string, words []string) error {
	if verb == "create" {
		return first(h.sets.Create(ctx, []netfilter.Set{{Name: words[0], Family: model.IPv4, Type: netfilter.HashIP, MaxElem: 10}}))
	}
	e, err := entryOf(words[1])
	if err != nil {
		return err
	}
	one := []netfilter.Member{{Set: netfilter.Prefix + words[0], Entry: e}}
	if verb == "delete" {
		return first(h.sets.Delete(ctx, one))
	}
	return first(h.sets.Add(ctx, one))
}

// entryOf reads what netfilter.Entry prints.
func entryOf(text string) (e netfilter.Entry, err error) {
	parts := strings.Split(text, ",")
	if e.First, err = prefixOf(parts[0]); err != nil || len(parts) == 1 {
		return e, err
	}
	proto, port, _ := strings.Cut(parts[1], ":")
	e.Protocol = map[string]model.Protocol{"tcp": model.TCP, "udp": model.UDP, "sctp": model.SCTP}[proto]
	n, err := strconv.ParseUint(port, 10, 16)
	if e.Port = uint16(n); err != nil || len(parts) == 2 {
		return e, err
	}
	e.Second, err = prefixOf(parts[2])
	return e, err
}

func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

func (h hands) meddleLinks(ctx context.Context, verb string, words []string) error {
	if verb == "drop" {
		return h.links.Remove(ctx)
	}
	a, err := netip.ParseAddr(words[0])
	if err != nil {
		return err
	}
	if verb == "delete" {
		return first(h.links.DelAddrs(ctx, []netip.Addr{a}))
	}
	return first(h.links.AddAddrs(ctx, []netip.Addr{a}))
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}
