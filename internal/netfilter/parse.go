package netfilter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// errNotOurs says that a rule uses words that no Rule has.
var errNotOurs = errors.New("not a rule of this package")

// ParseRule reads a rule as iptables-save prints it, or Render writes it,
// without "-A CHAIN". The comment is returned beside the rule. A rule that
// says anything a Rule cannot say is an error.
func ParseRule(f model.Family, text string) (Rule, string, error) {
	tokens, err := split(text)
	if err != nil {
		return Rule{}, "", err
	}
	p := parser{family: f, rest: tokens}
	for len(p.rest) > 0 && p.err == nil {
		p.option()
	}
	p.destination()
	p.limit()
	switch {
	case p.err != nil:
		return Rule{}, "", fmt.Errorf("%q: %w", text, p.err)
	case p.rule.Do.Action == 0:
		return Rule{}, "", fmt.Errorf("%q: no verdict: %w", text, errNotOurs)
	}
	return p.rule, p.comment, nil
}

// split cuts a rule into words; quotes and backslashes as iptables-save
// writes them.
func split(text string) ([]string, error) {
	var out []string
	var word strings.Builder
	quoted, open := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == '"':
			quoted, open = !quoted, true
		case c == ' ' && !quoted:
			if open {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quoted {
		return nil, fmt.Errorf("%q: unfinished quotes: %w", text, errNotOurs)
	}
	if open {
		out = append(out, word.String())
	}
	return out, nil
}

// parser reads one rule; the first thing that is not ours sticks.
type parser struct {
	family  model.Family
	rest    []string
	not     bool // "!" was read
	seen    []string
	to      netip.Addr // -d
	port    string     // --dport
	module  string     // the transport protocol's, to which --dport belongs
	last    string     // the module loaded last, whose options follow
	limits  limitWords
	rule    Rule
	comment string
	err     error
}

func (p *parser) fail(word string) {
	if p.err == nil {
		p.err = fmt.Errorf("%q: %w", word, errNotOurs)
	}
}

func (p *parser) next() string {
	if len(p.rest) == 0 {
		p.fail("end of rule")
		return ""
	}
	word := p.rest[0]
	p.rest = p.rest[1:]
	return word
}

// option reads one option with its arguments.
func (p *parser) option() {
	word := p.next()
	if word == "!" {
		p.not = true
		word = p.next()
	}
	p.once(word)
	switch word {
	case "-p":
		p.protocol(p.next())
	case "-m":
		p.load(p.next())
	case "--comment":
		p.comment = p.next()
	case "-j":
		p.verdict(p.next())
	case "-g":
		p.rule.Do = GoTo(p.next())
		if len(p.rest) > 0 {
			p.fail(strings.Join(p.rest, " "))
		}
	default:
		p.match(word)
	}
	if p.not {
		p.fail("! " + word)
	}
}

// once refuses what can be said only once: two modules have a --mark.
func (p *parser) once(word string) {
	switch word {
	case "-m", "--match-set":
		return
	case "--mark":
		word = p.last + " " + word
	}
	if slices.Contains(p.seen, word) {
		p.fail(word + " twice")
	}
	p.seen = append(p.seen, word)
}

// match reads the argument of a module's option.
func (p *parser) match(option string) {
	switch option {
	case "-d":
		p.address(p.next())
	case "-i":
		p.from(p.next())
	case "--dport":
		p.port = p.next()
	case "--icmp-type":
		p.echo(p.next() == icmp4EchoRequest && p.family == model.IPv4)
	case "--icmpv6-type":
		p.echo(p.next() == icmp6EchoRequest && p.family == model.IPv6)
	case "--match-set":
		p.set(p.next(), p.next())
	case "--mark":
		p.mark(p.next())
	case "--ctstate":
		p.state(p.next())
	default:
		p.limits.read(p, option)
	}
}

// negated takes the "!" that was read.
func (p *parser) negated() bool {
	not := p.not
	p.not = false
	return not
}

func (p *parser) protocol(name string) {
	for _, proto := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
		if name == protocolText(proto) || name == strconv.Itoa(int(proto)) {
			p.rule.Protocol = proto
			return
		}
	}
	four := name == "icmp" || name == "1"
	six := name == "ipv6-icmp" || name == "icmpv6" || name == "58"
	if (p.family == model.IPv4 && !four) || (p.family == model.IPv6 && !six) {
		p.fail("-p " + name)
	}
	p.rule.ICMP = AnyICMP
}

func (p *parser) load(module string) {
	p.last = module
	switch module {
	case "icmp", "icmp6", "set", "mark", "connmark", "conntrack", "hashlimit", "comment":
		return
	case "tcp", "udp", "sctp":
		if p.module == "" {
			p.module = module
			return
		}
	}
	p.fail("-m " + module)
}

// address reads a destination of one address.
func (p *parser) address(arg string) {
	to, err := netip.ParsePrefix(arg)
	if !strings.Contains(arg, "/") {
		p.to, err = netip.ParseAddr(arg)
		to = host(p.to)
	}
	if err != nil || !to.IsSingleIP() || model.FamilyOf(to.Addr()) != p.family {
		p.fail("-d " + arg)
	}
	p.to = to.Addr()
}

// from reads the interface that a packet came in by, or did not. "+" alone
// stands for all, which iptables-save does not print.
func (p *parser) from(name string) {
	if name == "" || name == "+" {
		p.fail("-i " + name)
	}
	if p.negated() {
		p.rule.NotFrom = name
	} else {
		p.rule.From = name
	}
}

// destination puts together what -d, -p, -m and --dport said of it: none but
// the protocol, or ports beside it, or with them one address.
func (p *parser) destination() {
	if !p.to.IsValid() && p.port == "" && p.module == "" {
		return
	}
	ports, ok := parsePorts(p.port)
	if !ok || p.rule.Protocol == 0 || p.module != protocolText(p.rule.Protocol) {
		p.fail("destination")
		return
	}
	switch {
	case p.to.IsValid() && ports.First == ports.Last:
		p.rule.To = netip.AddrPortFrom(p.to, ports.First)
	case p.to.IsValid(), ports.none():
		p.fail("--dport " + p.port)
	default:
		p.rule.Ports = ports
	}
}

// parsePorts reads a port, or the first and last of a range.
func parsePorts(arg string) (r PortRange, ok bool) {
	first, last, ranged := strings.Cut(arg, ":")
	if !ranged {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	return PortRange{uint16(a), uint16(b)}, err == nil && err2 == nil && a <= b
}

// limitWords are the arguments of hashlimit's options.
type limitWords struct{ upto, burst, mode, name string }

func (w *limitWords) read(p *parser, option string) {
	switch option {
	case "--hashlimit-upto":
		w.upto = p.next()
	case "--hashlimit-burst":
		w.burst = p.next()
	case "--hashlimit-mode":
		w.mode = p.next()
	case "--hashlimit-name":
		w.name = p.next()
	default:
		p.fail(option)
	}
}

// limit reads what was said of a limit, when all else is known: the name is made
// of it.
func (p *parser) limit() {
	if p.limits == (limitWords{}) {
		return
	}
	n, err := strconv.ParseUint(p.limits.burst, 10, 16)
	p.rule.Limit = uint16(n)
	if err != nil || n == 0 || n > MaxLimit ||
		p.limits != (limitWords{strconv.FormatUint(n, 10) + perSecond, p.limits.burst, limitMode, p.rule.limitName(p.family)}) {
		p.fail("hashlimit")
	}
}

func (p *parser) echo(known bool) {
	if !known || p.rule.ICMP != AnyICMP {
		p.fail("icmp type")
	}
	p.rule.ICMP = EchoRequest
}

func (p *parser) set(kernel, sides string) {
	m := InSet{Set: kernel, Not: p.negated()}
	f, name, ours := parseKernelSet(kernel)
	switch {
	case ours && f == p.family:
		m.Set = name
	case ours:
		p.fail(kernel) // the other family's
	}
	for i, side := range strings.Split(sides, ",") {
		switch {
		case i == len(m.Sides):
			p.fail(sides)
			return
		case side == "src":
			m.Sides[i] = Src
		case side == "dst":
			m.Sides[i] = Dst
		default:
			p.fail(sides)
		}
	}
	for i, old := range p.rule.Sets {
		if old.Set == "" {
			p.rule.Sets[i] = m
			return
		}
	}
	p.fail("a third --match-set")
}

func (p *parser) mark(arg string) {
	value, mask := p.masked(arg)
	m := HasMark{Value: value, Mask: mask, Not: p.negated()}
	switch {
	case mask != 0 && p.last == "mark":
		p.rule.Mark = m
	case mask != 0 && p.last == "connmark":
		p.rule.ConnMark = m
	default:
		p.fail("--mark " + arg)
	}
}

// masked reads value or value/mask.
func (p *parser) masked(arg string) (value, mask uint32) {
	v, m, both := strings.Cut(arg, "/")
	if !both {
		m = "0xffffffff"
	}
	return p.number(v), p.number(m)
}

func (p *parser) number(s string) uint32 {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		p.fail(s)
	}
	return uint32(n)
}

func (p *parser) state(arg string) {
	for name := range strings.SplitSeq(arg, ",") {
		i := slices.Index(stateNames(), name)
		if i < 0 {
			p.fail("--ctstate " + arg)
			return
		}
		p.rule.State |= 1 << i
	}
}

// verdict reads the target and its options, up to the rule's end.
func (p *parser) verdict(target string) {
	args := p.rest
	p.rest = nil
	v := &p.rule.Do
	switch target {
	case "MARK":
		p.markTarget(args)
		return
	case "DNAT":
		p.dnatTarget(args)
		return
	case "NFLOG":
		p.logTarget(args)
		return
	case "MASQUERADE":
		v.Action = MasqueradeAs
		v.RandomPorts = slices.Equal(args, []string{"--random-fully"})
		if v.RandomPorts {
			return
		}
	case "REJECT":
		v.Action = Reject
		if slices.Equal(args, []string{"--reject-with", p.unreachable()}) {
			return
		}
		if slices.Equal(args, []string{"--reject-with", tcpReset}) {
			v.Action = Reset
			return
		}
	default:
		v.Action = actionOf(target)
		if v.Action == Jump {
			v.Chain = target
		}
	}
	if len(args) > 0 {
		p.fail(strings.Join(args, " "))
	}
}

func actionOf(target string) Action {
	for _, a := range []Action{Accept, Drop, Return} {
		if actionName(a) == target {
			return a
		}
	}
	return Jump
}

// unreachable is what iptables-save prints for REJECT's default.
func (p *parser) unreachable() string {
	if p.family == model.IPv6 {
		return "icmp6-port-unreachable"
	}
	return "icmp-port-unreachable"
}

func (p *parser) markTarget(args []string) {
	if len(args) != 2 || args[0] != "--set-xmark" {
		p.fail(strings.Join(args, " "))
		return
	}
	value, mask := p.masked(args[1])
	p.rule.Do = Verdict{Action: SetMark, Mark: value, Mask: mask}
}

func (p *parser) dnatTarget(args []string) {
	if len(args) != 2 || args[0] != toDestination {
		p.fail("DNAT " + strings.Join(args, " "))
		return
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil || to.Port() == 0 || to.Addr().Zone() != "" || model.FamilyOf(to.Addr()) != p.family {
		p.fail(toDestination + " " + args[1])
	}
	p.rule.Do = DNATTo(to)
}

func (p *parser) logTarget(args []string) {
	v := Verdict{Action: Log}
	said := map[string]string{}
	for ; len(args) >= 2; args = args[2:] {
		if _, twice := said[args[0]]; twice || args[1] == "" {
			p.fail(args[0] + " " + args[1])
		}
		said[args[0]] = args[1]
	}
	v.Prefix = said[logPrefix]
	if group, given := said[logGroup]; given {
		n, err := strconv.ParseUint(group, 10, 16)
		if err != nil {
			p.fail(logGroup + " " + group)
		}
		v.Group = uint16(n)
	}
	delete(said, logPrefix)
	delete(said, logGroup)
	if len(args)+len(said) > 0 || len(v.Prefix) > MaxPrefix || strings.ContainsAny(v.Prefix, ` "\`) {
		p.fail("NFLOG")
	}
	p.rule.Do = v
}
