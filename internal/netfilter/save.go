package netfilter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// saved is what of ours a table holds.
type saved struct {
	family model.Family
	chains map[string][]string // rules as printed, without "-A CHAIN"; of a map none
	jumps  map[Hook][]jump     // in the order they stand in

	mappings map[string][]mapping // by chain
}

// mapping is a rule of a map.
type mapping struct {
	entry Entry
	to    netip.AddrPort
	text  string // as printed, without "-A CHAIN"
}

// jump is a rule of a builtin chain that leads to a chain of ours.
type jump struct {
	to    string
	text  string // as printed, without "-A CHAIN"
	order int    // from its comment, when the rule is as we write it; else misplaced
	first bool   // only such rules stand before it
}

// parseSave reads what iptables-save printed of one table. Everything that
// is not ours is passed over, but its place is seen.
func parseSave(f model.Family, out []byte) saved {
	s := saved{family: f, chains: map[string][]string{}, jumps: map[Hook][]jump{}, mappings: map[string][]mapping{}}
	foreign := map[Hook]bool{} // a rule of others was seen
	for line := range strings.SplitSeq(string(out), "\n") {
		if name, declared := strings.CutPrefix(line, ":"); declared {
			name, _, _ = strings.Cut(name, " ")
			if strings.HasPrefix(name, Prefix) {
				s.chains[name] = nil
			}
			continue
		}
		rule, appended := strings.CutPrefix(line, "-A ")
		if !appended {
			continue
		}
		name, text, _ := strings.Cut(rule, " ")
		if strings.HasPrefix(name, Prefix) {
			s.addRule(name, text)
			continue
		}
		hook, builtin := ParseHook(name)
		if !builtin {
			continue
		}
		to := target(text)
		if !strings.HasPrefix(to, Prefix) {
			foreign[hook] = true
			continue
		}
		s.jumps[hook] = append(s.jumps[hook], jump{
			to: to, text: text, order: s.order(to, text), first: !foreign[hook],
		})
	}
	return s
}

// addRule takes in a rule of a chain of ours: a mapping, if it is exactly as we
// write one.
func (s saved) addRule(chain, text string) {
	if strings.Contains(text, mappingComment) {
		rule, comment, err := ParseRule(s.family, text)
		entry := AddrPort(rule.To, rule.Protocol)
		if err == nil && comment == mappingComment && rule == mappingRule(entry, rule.Do.To) {
			s.mappings[chain] = append(s.mappings[chain], mapping{entry, rule.Do.To, text})
			return
		}
	}
	s.chains[chain] = append(s.chains[chain], text)
}

// mappingRule is the rule that does what a mapping says.
func mappingRule(e Entry, to netip.AddrPort) Rule {
	return Rule{Protocol: e.Protocol, To: netip.AddrPortFrom(e.First.Addr(), e.Port), Do: DNATTo(to)}
}

// splitTables cuts what iptables-save printed into our tables, those of them
// that are there to their end.
func splitTables(out []byte) map[Table][]byte {
	parts := map[Table][]byte{}
	for part := range bytes.SplitSeq(out, []byte("\n*")) {
		name, lines, _ := bytes.Cut(bytes.TrimPrefix(part, []byte("*")), []byte("\n"))
		lines, _, whole := bytes.Cut(lines, []byte("\nCOMMIT"))
		if t, ours := ParseTable(string(name)); ours && whole {
			parts[t] = lines
		}
	}
	return parts
}

// target is where a rule leads.
func target(text string) string {
	words, err := split(text)
	if err != nil {
		return ""
	}
	for _, option := range []string{"-j", "-g"} {
		if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
			return words[i+1]
		}
	}
	return ""
}

// order is a jump's order when it is exactly the rule we write.
func (s saved) order(to, text string) int {
	rule, comment, err := ParseRule(s.family, text)
	if err != nil || rule != (Rule{Do: To(to)}) {
		return misplaced
	}
	digits, ok := strings.CutPrefix(comment, orderComment)
	if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 {
		return n
	}
	return misplaced
}

// The comments that our rules carry: the order of a jump, in a chain's first
// rule the hash of its text, and in each rule of a map that it is one.
const (
	mappingComment = "sluice-mapping"
	orderComment   = "sluice-order-"
	hashComment    = "sluice-hash-"
)

// hashOf identifies a chain's text.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// specs yields the specs of all chains, mappings and jumps of the table.
func (s saved) specs(t Table) map[Key]Spec {
	out := make(map[Key]Spec, len(s.chains))
	for name, rules := range s.chains {
		out[ChainKey(s.family, t, name)] = s.chainSpec(rules)
	}
	for chain, mappings := range s.mappings {
		for _, m := range mappings {
			key := MappingKey(s.family, chain, m.entry)
			spec := MappingSpec(m.to)
			if _, doubled := out[key]; doubled {
				spec = Spec{} // none that is wanted
			}
			out[key] = spec
		}
	}
	for hook, jumps := range s.jumps {
		last := 0
		for _, j := range jumps {
			key := JumpKey(s.family, t, hook, j.to)
			order := j.order
			if _, doubled := out[key]; doubled || !j.first || order < last {
				order = misplaced
			}
			last = max(last, order)
			out[key] = JumpSpec(order)
		}
	}
	return out
}

// chainSpec is a chain's spec as its rules now are: see the package comment
// for what makes it differ from the one that was written.
func (s saved) chainSpec(rules []string) Spec {
	if len(rules) == 0 {
		return Spec{}
	}
	text, comment := s.render(rules)
	if comment != hashComment+hashOf(text) {
		text += "\n# no longer what was written as " + comment
	}
	return Spec{Rules: text}
}

// render gives rules the one spelling in which texts are compared, and the
// first one's comment.
func (s saved) render(rules []string) (text, comment string) {
	lines := make([]string, len(rules))
	for i, line := range rules {
		rule, c, err := ParseRule(s.family, line)
		if err != nil {
			lines[i] = line
			continue
		}
		lines[i] = rule.Render(s.family)
		if i == 0 {
			comment = c
		}
	}
	return strings.Join(lines, "\n"), comment
}
