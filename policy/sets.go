package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// setSpec says what is in a set that rules look into: pods, ports of pods that
// have a name, or blocks of addresses. It is named by just that, so that
// another meaning is always another set.
type setSpec struct {
	name string
	typ  netfilter.SetType

	peers    []podPeer      // hash:ip: pods that any of these means
	protocol model.Protocol // hash:ip,port
	port     string
	// nets are a hash:net's, by family; true: an exception.
	nets map[model.Family]map[netip.Prefix]bool
}

// podPeer means pods by selectors.
type podPeer struct {
	namespace  string          // the one they are in; "": see namespaces
	namespaces *model.Selector // whose they are
	pods       model.Selector
}

func newPodPeer(namespace string, peer model.PolicyPeer) podPeer {
	p := podPeer{namespaces: peer.Namespaces}
	if p.namespaces == nil {
		p.namespace = namespace
	}
	if peer.Pods != nil {
		p.pods = *peer.Pods
	}
	return p
}

func (p *podPeer) meansNamespace(name string, labels map[string]string) bool {
	if p.namespaces == nil {
		return name == p.namespace
	}
	return p.namespaces.Matches(labels)
}

// within tells which pods of a namespace of these labels are in the set; nil:
// none can be.
func (s *setSpec) within(namespace string, labels map[string]string) func(*model.Pod) bool {
	if s.typ == netfilter.HashIPPort {
		return func(pod *model.Pod) bool { return slices.ContainsFunc(pod.Ports, s.named) }
	}
	var pods []model.Selector
	for i := range s.peers {
		if s.peers[i].meansNamespace(namespace, labels) {
			pods = append(pods, s.peers[i].pods)
		}
	}
	if len(pods) == 0 {
		return nil
	}
	return func(pod *model.Pod) bool { return model.Selected(pods, pod.Labels) }
}

// holds reports whether a pod, in a namespace of these labels, is in the set.
func (s *setSpec) holds(pod *model.Pod, labels map[string]string) bool {
	if s.typ == netfilter.HashIPPort {
		return slices.ContainsFunc(pod.Ports, s.named)
	}
	for i := range s.peers {
		if p := &s.peers[i]; p.meansNamespace(pod.Name.Namespace, labels) && p.pods.Matches(pod.Labels) {
			return true
		}
	}
	return false
}

func (s *setSpec) named(c model.ContainerPort) bool {
	return c.Name == s.port && c.Protocol == s.protocol
}

// entries are those of a pod that is in the set, at one of its addresses.
func (s *setSpec) entries(pod *model.Pod, a netip.Addr) []netfilter.Entry {
	if s.typ != netfilter.HashIPPort {
		return []netfilter.Entry{netfilter.Addr(a)}
	}
	var out []netfilter.Entry
	for _, c := range pod.Ports {
		if s.named(c) {
			out = append(out, netfilter.AddrPort(netip.AddrPortFrom(a, c.Port), c.Protocol))
		}
	}
	return out
}

// keys adds the set itself, as rules of a family need it.
func (s *setSpec) keys(f model.Family, to map[netfilter.Key]netfilter.Spec) {
	if s.vain(f) {
		return
	}
	to[netfilter.SetKey(f, s.name)] = netfilter.SetSpec(s.typ)
	for net, except := range s.nets[f] {
		to[netfilter.MemberKey(f, s.name, netfilter.Net(net))] = netfilter.Spec{NoMatch: except}
	}
}

// vain reports whether nothing can ever be in the set in a family: a block is
// of one family only.
func (s *setSpec) vain(f model.Family) bool {
	return s.typ == netfilter.HashNet && len(s.nets[f]) == 0
}

// podSet is the set of the pods that any of several peers means.
func podSet(peers []podPeer) *setSpec {
	var each []string
	for _, p := range peers {
		var e encoding
		if p.namespaces == nil {
			e.text("of").text(p.namespace)
		} else {
			e.text("where").selector(*p.namespaces)
		}
		e.selector(p.pods)
		each = append(each, string(e))
	}
	return &setSpec{name: setName("P", new(encoding).set(each)), typ: netfilter.HashIP, peers: peers}
}

// namedSet is the set of the ports that pods call by a name, whatever numbers
// they have. It is every pod's: what it allows is up to the rule.
func namedSet(protocol model.Protocol, name string) *setSpec {
	e := new(encoding).number(int(protocol)).text(name)
	return &setSpec{name: setName("N", e), typ: netfilter.HashIPPort, protocol: protocol, port: name}
}

// blockSet is the set of what is in any of several blocks but in none of the
// exceptions. Those are of one block.
func blockSet(blocks, except []netip.Prefix) *setSpec {
	s := &setSpec{typ: netfilter.HashNet, nets: map[model.Family]map[netip.Prefix]bool{}}
	for _, block := range blocks {
		nets := s.nets[model.FamilyOf(block.Addr())]
		if nets == nil {
			nets = map[netip.Prefix]bool{}
			s.nets[model.FamilyOf(block.Addr())] = nets
		}
		for _, part := range settable(block.Masked()) {
			nets[part] = false
		}
		for _, e := range except {
			carve(nets, e.Masked())
		}
	}
	var each []string
	for _, nets := range s.nets {
		for net, exception := range nets {
			each = append(each, string(*new(encoding).text(net.String()).flag(exception)))
		}
	}
	s.name = setName("B", new(encoding).set(each))
	return s
}

// carve takes a range from nets. The kernel cannot hold it beside an equal net,
// nor can a range take from one inside: those are just left out.
func carve(nets map[netip.Prefix]bool, e netip.Prefix) {
	inside := false
	for net, exception := range nets {
		switch {
		case exception || !net.Overlaps(e):
		case net.Bits() >= e.Bits():
			delete(nets, net)
		default:
			inside = true
		}
	}
	if inside {
		nets[e] = true
	}
}

// settable is a prefix as a set takes it: everything goes in as two halves.
func settable(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	high := netip.PrefixFrom(netip.AddrFrom4([4]byte{128}), 1)
	if p.Addr().Is6() {
		high = netip.PrefixFrom(netip.AddrFrom16([16]byte{128}), 1)
	}
	return []netip.Prefix{netip.PrefixFrom(p.Addr(), 1), high}
}

// encoding is a sequence of fields that no other sequence looks like: every
// text carries its length, every list its number.
type encoding []byte

func (e *encoding) number(n int) *encoding {
	*e = binary.AppendUvarint(*e, uint64(n))
	return e
}

func (e *encoding) flag(is bool) *encoding {
	if is {
		return e.number(1)
	}
	return e.number(0)
}

func (e *encoding) text(s string) *encoding {
	e.number(len(s))
	*e = append(*e, s...)
	return e
}

// set encodes texts in whatever order and number they are told.
func (e *encoding) set(texts []string) *encoding {
	texts = slices.Compact(slices.Sorted(slices.Values(texts)))
	e.number(len(texts))
	for _, t := range texts {
		e.text(t)
	}
	return e
}

func (e *encoding) selector(s model.Selector) {
	var each []string
	for _, r := range s.Requirements {
		each = append(each, string(*new(encoding).text(r.Key).number(int(r.Op)).set(r.Values)))
	}
	e.set(each)
}

// hash is what an encoding is called: 16 characters, 80 bits.
func (e *encoding) hash() string {
	sum := sha256.Sum256(*e)
	return base32.StdEncoding.EncodeToString(sum[:10])
}

// What names of sets and chains are made of. A set whose type changes needs
// another name: see package netfilter.
const prefix = netfilter.Prefix + "NP"

func setName(kind string, of *encoding) string { return prefix + kind + "-" + of.hash() }

// peerSet is a set that rules name, with the pods in it. (Blocks have none.)
type peerSet struct {
	*setSpec
	classes int // that name it
	members map[*member]struct{}
	filling []*member // that were in it when it came into being, and may not be in the kernel's
}

// filled reports whether the kernel's set holds the pods it was to hold from
// the beginning: no rule that looks into it is to be met before.
func (s *peerSet) filled(stands func(Owner) bool) bool {
	for n := len(s.filling); n > 0; n-- {
		if m := s.filling[n-1]; s.has(m) && !stands(m.owner()) {
			return false
		}
		s.filling = s.filling[:n-1]
	}
	s.filling = nil
	return true
}

func (s *peerSet) has(m *member) bool {
	_, is := s.members[m]
	return is
}

// acquire has a set be there, with all pods that are to be in it.
func (p *Planner) acquire(spec *setSpec) *peerSet {
	s := p.sets[spec.name]
	if s == nil {
		s = &peerSet{setSpec: spec, members: map[*member]struct{}{}}
		p.sets[spec.name] = s
		p.fill(s)
	}
	s.classes++
	return s
}

func (p *Planner) fill(s *peerSet) {
	if s.typ == netfilter.HashNet {
		return
	}
	for namespace, pods := range p.pods {
		in := s.within(namespace, p.labelsOf(namespace))
		if in == nil {
			continue
		}
		for _, m := range pods {
			if len(m.addrs) > 0 && in(&m.pod) {
				s.members[m] = struct{}{}
				m.in = append(m.in, s)
				s.filling = append(s.filling, m)
				p.rewish[m] = struct{}{}
			}
		}
	}
}

// endSets drops the sets that no rule names any more.
func (t *taking) endSets() {
	for _, s := range t.ended {
		if s.classes > 0 || t.sets[s.name] != s {
			continue
		}
		delete(t.sets, s.name)
		for m := range s.members {
			m.in = slices.DeleteFunc(m.in, func(in *peerSet) bool { return in == s })
			t.rewish[m] = struct{}{}
		}
	}
}
