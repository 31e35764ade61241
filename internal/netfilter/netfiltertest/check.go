package netfiltertest

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// wellFormed is what a program looks at in a rule of a chain before it asks the
// kernel.
func wellFormed(f model.Family, chain, text string) error {
	for _, arg := range slices.Concat(wordsAfter(text, "-d"), wordsAfter(text, "-s")) {
		address, _, _ := strings.Cut(arg, "/")
		if a, err := netip.ParseAddr(address); err != nil || model.FamilyOf(a) != f {
			return refusal{2, "host/network " + arg + " not found"}
		}
	}
	for _, check := range []func(string) error{checkTransport, checkModules, checkLimit, checkLog} {
		if err := check(text); err != nil {
			return err
		}
	}
	if err := checkInterface(chain, text); err != nil {
		return err
	}
	if !slices.Contains(wordsAfter(text, "-j"), "DNAT") {
		return nil
	}
	if !has(text, "--to-destination") {
		return refusal{2, "DNAT: option --to-destination must be specified"}
	}
	return checkDestination(f, transport(text), wordsAfter(text, "--to-destination")[0])
}

func has(text, option string) bool { return len(wordsAfter(text, option)) > 0 }

func checkTransport(text string) error {
	protocol := transport(text)
	for _, module := range wordsAfter(text, "-m") {
		if slices.Contains(transports(), module) && module != protocol {
			return refusal{2, module + " match requires -p " + module}
		}
	}
	if (has(text, "--dport") || has(text, "--sport")) && protocol == "" {
		return refusal{2, "unknown option --dport"}
	}
	for _, arg := range wordsAfter(text, "--dport") {
		first, last, ranged := strings.Cut(arg, ":")
		a, err := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || ranged && (err2 != nil || a > b) {
			return refusal{2, "invalid port/service or portrange " + arg}
		}
	}
	return nil
}

// checkModules looks for the modules that options are of.
func checkModules(text string) error {
	for option, modules := range map[string][]string{
		"--mark": {"mark", "connmark"}, "--ctstate": {"conntrack"}, "--match-set": {"set"}, "--comment": {"comment"},
		"--hashlimit-upto": {"hashlimit"}, "--hashlimit-name": {"hashlimit"}, "--hashlimit-burst": {"hashlimit"}, "--hashlimit-mode": {"hashlimit"},
	} {
		loaded := slices.ContainsFunc(wordsAfter(text, "-m"), func(m string) bool { return slices.Contains(modules, m) })
		if has(text, option) && !loaded {
			return refusal{2, "unknown option " + option}
		}
	}
	for _, option := range []string{"--nflog-group", "--nflog-prefix"} {
		if has(text, option) && !slices.Contains(wordsAfter(text, "-j"), "NFLOG") {
			return refusal{2, "unknown option " + option}
		}
	}
	return nil
}

func checkLimit(text string) error {
	if !slices.Contains(wordsAfter(text, "-m"), "hashlimit") {
		return nil
	}
	for _, option := range []string{"--hashlimit-upto", "--hashlimit-name"} {
		if !has(text, option) {
			return refusal{2, "hashlimit: option " + option + " must be specified"}
		}
	}
	return nil
}

func checkLog(text string) error {
	for _, group := range wordsAfter(text, "--nflog-group") {
		if _, err := strconv.ParseUint(group, 10, 16); err != nil {
			return refusal{2, "NFLOG: bad value for option --nflog-group"}
		}
	}
	return nil
}

// maxInterface is how long the name of an interface may be.
const maxInterface = 15

func checkInterface(chain, text string) error {
	for _, name := range wordsAfter(text, "-i") {
		switch {
		case chain == "OUTPUT" || chain == "POSTROUTING":
			return refusal{2, "Can't use -i with " + chain}
		case len(name) > maxInterface:
			return refusal{2, "interface name " + name + " must be shorter than IFNAMSIZ"}
		}
	}
	return nil
}

func transports() []string { return []string{"tcp", "udp", "sctp"} }

// transport is the protocol with ports that a rule names; "": none.
func transport(text string) string {
	for _, p := range wordsAfter(text, "-p") {
		if slices.Contains(transports(), p) {
			return p
		}
	}
	return ""
}

// checkDestination looks at the argument of DNAT: an address, or an address
// and a port.
func checkDestination(f model.Family, protocol, arg string) error {
	a, err := netip.ParseAddr(arg)
	if err != nil {
		var to netip.AddrPort
		to, err = netip.ParseAddrPort(arg)
		a = to.Addr()
		if err == nil && protocol == "" {
			return refusal{2, "Need TCP, UDP, SCTP or DCCP with port specification"}
		}
	}
	if err != nil || model.FamilyOf(a) != f {
		return refusal{2, "Bad IP address " + arg}
	}
	return nil
}

// check is what the kernel looks at before it takes a table.
func (k *Kernel) check(name string, t table) error {
	reached, err := t.reached()
	if err != nil {
		return err
	}
	for chain, c := range t {
		for _, r := range c.rules {
			for _, s := range r.sets() {
				if k.sets[s] == nil {
					return refusal{2, "set " + s + " doesn't exist"}
				}
			}
			for _, to := range r.targets() {
				if err := t.checkTarget(name, to, reached[chain]); err != nil {
					return err
				}
			}
			for _, to := range wordsAfter(r.text, "-g") {
				if _, extension := extensionOf(to); extension {
					return refusal{2, "goto " + to + " is not a chain"}
				}
			}
			if slices.Contains(wordsAfter(r.text, "--reject-with"), "tcp-reset") && transport(r.text) != "tcp" {
				return refusal{1, "tcp-reset is for TCP"}
			}
		}
	}
	return nil
}

// reached are the builtin chains that lead to each chain. Chains that lead
// back to themselves are refused where a packet can meet them.
func (t table) reached() (map[string][]string, error) {
	out := map[string][]string{}
	var visit func(chain, from string, path []string) error
	visit = func(chain, from string, path []string) error {
		switch {
		case slices.Contains(path, chain):
			return refusal{1, "Too many links"}
		case t[chain] == nil || slices.Contains(out[chain], from):
			return nil
		}
		out[chain] = append(out[chain], from)
		for _, r := range t[chain].rules {
			for _, to := range r.targets() {
				if err := visit(to, from, append(path, chain)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for name, c := range t {
		if c.builtin() {
			if err := visit(name, name, nil); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// checkTarget looks at where a rule leads, in a chain that some builtin chains
// reach.
func (t table) checkTarget(table, to string, reached []string) error {
	e, extension := extensionOf(to)
	switch {
	case !extension && (t[to] == nil || t[to].builtin()):
		return refusal{2, "no chain or target " + to}
	case !extension:
		return nil
	case e.table != "" && e.table != table:
		return refusal{1, to + " is not for table " + table}
	}
	for _, from := range reached {
		if h, _ := netfilter.ParseHook(from); e.hooks != nil && !slices.Contains(e.hooks, h) {
			return refusal{1, to + " is not for " + from}
		}
	}
	return nil
}

// extension is where an action may be used.
type extension struct {
	table string           // "": any
	hooks []netfilter.Hook // nil: any
}

func extensionOf(name string) (extension, bool) {
	switch name {
	case "ACCEPT", "DROP", "RETURN", "MARK", "NFLOG":
		return extension{}, true
	case "REJECT":
		return extension{table: "filter"}, true
	case "MASQUERADE":
		return extension{"nat", []netfilter.Hook{netfilter.Postrouting}}, true
	case "DNAT":
		return extension{"nat", []netfilter.Hook{netfilter.Prerouting, netfilter.Output}}, true
	}
	return extension{}, false
}
