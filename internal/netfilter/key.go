package netfilter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Prefix begins the name of every chain and set of ours.
const Prefix = "SLUICE-"

// prefix6 begins the kernel's name of an IPv6 set of ours.
const prefix6 = Prefix + "6-"

// The longest names the kernel takes.
const (
	MaxSetName   = 31
	MaxChainName = 28
)

// Kind says what a Key names.
type Kind uint8

// The kinds, in the order in which they come into being.
const (
	KindSet Kind = iota
	KindMember
	KindChain
	KindMapping
	KindJump
)

// Table is a table of rules.
type Table uint8

// The tables we have rules in.
const (
	NAT Table = iota
	Filter
	Mangle
)

// tables are all of them, in the order in which a restore writes them.
func tables() []Table { return []Table{NAT, Filter, Mangle} }

// String is iptables' name of the table.
func (t Table) String() string {
	return [...]string{"nat", "filter", "mangle"}[t]
}

// ParseTable is the table of iptables' name of it.
func ParseTable(name string) (Table, bool) {
	for _, t := range tables() {
		if t.String() == name {
			return t, true
		}
	}
	return 0, false
}

// Hook is a builtin chain.
type Hook uint8

// The builtin chains. Mangle has them all, NAT all but Forward, Filter those
// between Prerouting and Postrouting.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// String is iptables' name of the builtin chain.
func (h Hook) String() string {
	return [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}[h]
}

// ParseHook is the hook of a builtin chain's name.
func ParseHook(name string) (Hook, bool) {
	for h := Prerouting; h <= Postrouting; h++ {
		if h.String() == name {
			return h, true
		}
	}
	return 0, false
}

// Key names one object. Only the fields of its kind are set; the constructors
// fill them.
type Key struct {
	Kind   Kind
	Family model.Family
	Table  Table  // chain, mapping, jump
	Hook   Hook   // jump: where it stands
	Name   string // set, member's set, chain, mapping's chain, jump: where it leads
	Entry  Entry  // member, mapping
}

// SetKey names a set. Its name begins with Prefix and is the same for both
// families.
func SetKey(f model.Family, name string) Key {
	return Key{Kind: KindSet, Family: f, Name: name}
}

// MemberKey names an entry of a set. The entry's addresses are of the set's
// family.
func MemberKey(f model.Family, set string, e Entry) Key {
	return Key{Kind: KindMember, Family: f, Name: set, Entry: e}
}

// ChainKey names a chain.
func ChainKey(f model.Family, t Table, name string) Key {
	return Key{Kind: KindChain, Family: f, Table: t, Name: name}
}

// MappingKey names what a chain of the nat table does with one address, port
// and protocol. Such a chain is a map: it has no rules of its own, and its
// mappings stand in no order.
func MappingKey(f model.Family, chain string, e Entry) Key {
	return Key{Kind: KindMapping, Family: f, Table: NAT, Name: chain, Entry: e}
}

// JumpKey names the jump from a builtin chain to one of ours.
func JumpKey(f model.Family, t Table, from Hook, to string) Key {
	return Key{Kind: KindJump, Family: f, Table: t, Hook: from, Name: to}
}

// String names the object as error texts and listings do.
func (k Key) String() string {
	switch k.Kind {
	case KindSet:
		return "set " + KernelSet(k.Family, k.Name)
	case KindMember:
		return "set " + KernelSet(k.Family, k.Name) + " member " + k.Entry.String()
	case KindChain:
		return fmt.Sprintf("%s %s chain %s", k.Family, k.Table, k.Name)
	case KindMapping:
		return fmt.Sprintf("%s %s chain %s mapping %s", k.Family, k.Table, k.Name, k.Entry)
	}
	return fmt.Sprintf("%s %s jump %s -> %s", k.Family, k.Table, k.Hook, k.Name)
}

// KernelSet is the kernel's name of a set of ours.
func KernelSet(f model.Family, name string) string {
	if rest, ours := strings.CutPrefix(name, Prefix); ours && f == model.IPv6 {
		return prefix6 + rest
	}
	return name
}

// parseKernelSet is the family and name that KernelSet made a kernel name of;
// ok tells whether it is one of ours.
func parseKernelSet(kernel string) (f model.Family, name string, ok bool) {
	if rest, six := strings.CutPrefix(kernel, prefix6); six {
		return model.IPv6, Prefix + rest, true
	}
	return model.IPv4, kernel, strings.HasPrefix(kernel, Prefix)
}

// Entry is a set's member. An address is a prefix of full length. The fields
// that are set must be those of the set's type.
type Entry struct {
	First    netip.Prefix   // ip, net
	Protocol model.Protocol // with Port
	Port     uint16         // port
	Second   netip.Prefix   // the second ip or net
}

// Addr is an entry of a hash:ip.
func Addr(a netip.Addr) Entry { return Entry{First: host(a)} }

// Net is an entry of a hash:net. The kernel takes no prefix of length 0: name
// its two halves instead.
func Net(p netip.Prefix) Entry { return Entry{First: p.Masked()} }

// AddrPort is an entry of a hash:ip,port.
func AddrPort(a netip.AddrPort, proto model.Protocol) Entry {
	return Entry{First: host(a.Addr()), Protocol: proto, Port: a.Port()}
}

// AddrPortAddr is an entry of a hash:ip,port,ip.
func AddrPortAddr(a netip.AddrPort, proto model.Protocol, second netip.Addr) Entry {
	return Entry{First: host(a.Addr()), Protocol: proto, Port: a.Port(), Second: host(second)}
}

// AddrPortNet is an entry of a hash:ip,port,net. The kernel takes no prefix of
// length 0: name its two halves instead.
func AddrPortNet(a netip.AddrPort, proto model.Protocol, second netip.Prefix) Entry {
	return Entry{First: host(a.Addr()), Protocol: proto, Port: a.Port(), Second: second.Masked()}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// String is the entry as ipset prints it.
func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(prefixText(e.First))
	if e.Protocol != 0 {
		b.WriteByte(',')
		b.WriteString(protocolText(e.Protocol))
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(int(e.Port)))
	}
	if e.Second.IsValid() {
		b.WriteByte(',')
		b.WriteString(prefixText(e.Second))
	}
	return b.String()
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func protocolText(p model.Protocol) string {
	switch p {
	case model.TCP, model.UDP, model.SCTP:
		return strings.ToLower(p.String())
	}
	return strconv.Itoa(int(p))
}

// SetType is a set's type by ipset's name.
type SetType string

// The types in use.
const (
	HashIP        SetType = "hash:ip"
	HashNet       SetType = "hash:net"
	HashIPPort    SetType = "hash:ip,port"
	HashIPPortIP  SetType = "hash:ip,port,ip"
	HashIPPortNet SetType = "hash:ip,port,net"
)

// MaxElem is how many entries a set of ours may hold.
const MaxElem = 1 << 20

// Spec is what an object should be, or is. Only the fields of its key's kind
// are set.
type Spec struct {
	Type    SetType // set
	MaxElem uint32  // set
	NoMatch bool    // member of a set of nets: an exception from a wider entry
	Rules   string  // chain: one rendered rule a line
	Order   int     // jump: its place among our jumps in the builtin chain

	To netip.AddrPort // mapping: the destination that it translates to
}

// SetSpec is the spec of a set of ours.
func SetSpec(t SetType) Spec { return Spec{Type: t, MaxElem: MaxElem} }

// JumpSpec is the spec of a jump. Our jumps stand before every other rule of
// a builtin chain, in ascending order; order is positive.
func JumpSpec(order int) Spec { return Spec{Order: order} }

// MappingSpec is the spec of a mapping to a destination of the chain's family.
func MappingSpec(to netip.AddrPort) Spec { return Spec{To: to} }

// misplaced is the Order List gives to a jump that is doubled, changed, or
// has a rule of others before it.
const misplaced = -1
