package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// ParseProtocol reads a protocol as people write it: "tcp", "UDP", "sctp",
// "icmp", "icmpv6" or a number. "" is 0.
func ParseProtocol(text string) (model.Protocol, error) {
	switch strings.ToUpper(text) {
	case "":
		return 0, nil
	case "TCP":
		return model.TCP, nil
	case "UDP":
		return model.UDP, nil
	case "SCTP":
		return model.SCTP, nil
	case "ICMP":
		return icmp, nil
	case "ICMPV6":
		return icmpv6, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("protocol %q is none; use TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 1 to 255", text)
	}
	return model.Protocol(n), nil
}

// protocolText is what ParseProtocol reads.
func protocolText(p model.Protocol) string {
	if p == 0 {
		return ""
	}
	text := Packet{Protocol: p}.target()
	if _, err := ParseProtocol(text); err != nil {
		return strconv.Itoa(int(p))
	}
	return text
}

// queryJSON is a Query as it is sent.
type queryJSON struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// MarshalJSON writes a query as {"from", "to", "protocol", "port"}.
func (q Query) MarshalJSON() ([]byte, error) {
	return json.Marshal(queryJSON{From: q.From, To: q.To, Protocol: protocolText(q.Protocol), Port: q.Port})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (q *Query) UnmarshalJSON(text []byte) error {
	var sent queryJSON
	if err := json.Unmarshal(text, &sent); err != nil {
		return err
	}
	protocol, err := ParseProtocol(sent.Protocol)
	if err != nil {
		return err
	}
	*q = Query{From: sent.From, To: sent.To, Protocol: protocol, Port: sent.Port}
	return nil
}

// findingJSON is a Finding with names as people write them.
type findingJSON struct {
	Side    string   `json:"side"`
	Allowed bool     `json:"allowed"`
	Pod     string   `json:"pod,omitempty"`
	Isolate []string `json:"isolatedBy,omitempty"`
	Policy  string   `json:"policy,omitempty"`
	Rule    *int     `json:"rule,omitempty"`
	Why     string   `json:"why"`
}

// MarshalJSON writes a finding with its names as "namespace/name".
func (f Finding) MarshalJSON() ([]byte, error) {
	sent := findingJSON{Side: f.Side.String(), Allowed: f.Allowed, Pod: f.Pod.String(), Policy: f.Policy.String(), Why: f.Why}
	for _, name := range f.Isolate {
		sent.Isolate = append(sent.Isolate, name.String())
	}
	if f.Policy != (model.Name{}) {
		sent.Rule = &f.Rule
	}
	return json.Marshal(sent)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Finding) UnmarshalJSON(text []byte) error {
	var sent findingJSON
	if err := json.Unmarshal(text, &sent); err != nil {
		return err
	}
	*f = Finding{Allowed: sent.Allowed, Pod: parseName(sent.Pod), Policy: parseName(sent.Policy), Why: sent.Why}
	if sent.Side == Ingress.String() {
		f.Side = Ingress
	}
	for _, name := range sent.Isolate {
		f.Isolate = append(f.Isolate, parseName(name))
	}
	if sent.Rule != nil {
		f.Rule = *sent.Rule
	}
	return nil
}

func parseName(text string) model.Name {
	namespace, name, is := strings.Cut(text, "/")
	if !is {
		return model.Name{Name: text}
	}
	return model.Name{Namespace: namespace, Name: name}
}
