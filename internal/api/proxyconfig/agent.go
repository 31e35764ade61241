package proxyconfig

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
)

// Keys are what an AgentConfiguration may say: by its keys the flags.
type Keys map[string]Key

// Key is the flag that a key stands for.
type Key struct {
	Flag string // without dashes
	Type string // as pflag names types
}

// KeyOf is the key of a flag: its name in camelCase, in which what is an
// abbreviation for everyone stays one. "cluster-cidr" is clusterCIDR,
// "ipvs-tcp-timeout" is ipvsTCPTimeout, "bgp-on-stop" is bgpOnStop.
func KeyOf(flag string) string {
	abbreviations := map[string]string{
		"api": "API", "arp": "ARP", "bgp": "BGP", "cidr": "CIDR", "cidrs": "CIDRs", "ips": "IPs", "json": "JSON",
		"qps": "QPS", "tcp": "TCP", "tcpfin": "TCPFin", "udp": "UDP",
	}
	words := strings.Split(strings.ReplaceAll(flag, "nodeport", "node-port"), "-")
	for i, w := range words {
		short, is := abbreviations[w]
		switch {
		case i == 0:
		case is:
			words[i] = short
		default:
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

// agent reads an AgentConfiguration.
func (p part) agent(keys Keys, d *Document) error {
	var errs []error
	lines := map[string]int{}
	for i := 0; i+1 < len(p.root.Content); i += 2 {
		name, value := p.root.Content[i], target(p.root.Content[i+1])
		at := p.at(name.Line, name.Value)
		if first, twice := lines[name.Value]; twice {
			errs = append(errs, fmt.Errorf("%s: it stands in line %d already; say it once", at, first))
			continue
		}
		lines[name.Value] = at.Line
		if name.Value == "apiVersion" || name.Value == "kind" {
			continue
		}
		key, known := keys[name.Value]
		if !known {
			errs = append(errs, fmt.Errorf("%s: unknown field; %s", at, keys.remedy(name.Value)))
			continue
		}
		values, err := valuesOf(key.Type, value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
			continue
		}
		d.Settings = append(d.Settings, Setting{Flag: key.Flag, Values: values, At: at})
	}
	return errors.Join(errs...)
}

// remedy says what may have been meant by a name.
func (k Keys) remedy(name string) string {
	var names []string
	for key := range k {
		names = append(names, key)
	}
	if meant := nearest(name, names); meant != "" {
		return "use " + meant
	}
	return "docs/configuration.md has the list, and sluice run --help the flags it is made of"
}

// The remedies for values that are not of a key's type.
const (
	needBool   = "use true or false, without quotes"
	needInt    = "use a whole number, without quotes"
	needNumber = "use a number, without quotes"
	needTime   = "use a time with its unit, such as 30s or 5m"
	needText   = "use a text, in quotes if it looks like something else"
	needList   = "use a list of texts, such as [10.244.0.0/16]"
)

// valuesOf reads a value of a flag's type.
func valuesOf(kind string, n *yamlv3.Node) ([]string, error) {
	if n.Tag == "!!null" {
		return nil, errors.New("it has no value; leave it out to have the default")
	}
	if kind == "stringSlice" {
		return listOf(n)
	}
	need, ok := "", false
	switch kind {
	case "bool":
		need, ok = needBool, n.Tag == "!!bool"
	case "float32":
		need, ok = needNumber, n.Tag == "!!float" || n.Tag == "!!int"
	case "duration":
		_, err := time.ParseDuration(n.Value)
		need, ok = needTime, err == nil && (n.Tag == "!!str" || n.Value == "0")
	case "string":
		need, ok = needText, n.Tag == "!!str"
	default: // int, uint16 and others of their kind
		_, err := strconv.Atoi(n.Value)
		need, ok = needInt, err == nil && n.Tag == "!!int"
	}
	if !ok || n.Kind != yamlv3.ScalarNode {
		return nil, fmt.Errorf("%s: %s", shown(n), need)
	}
	return []string{n.Value}, nil
}

func listOf(n *yamlv3.Node) ([]string, error) {
	if n.Kind != yamlv3.SequenceNode {
		return nil, fmt.Errorf("%s: %s", shown(n), needList)
	}
	values := []string{}
	for _, item := range n.Content {
		item = target(item)
		if item.Kind != yamlv3.ScalarNode || item.Tag != "!!str" {
			return nil, fmt.Errorf("%s in line %d of the document: %s", shown(item), item.Line, needList)
		}
		values = append(values, item.Value)
	}
	return values, nil
}

// shown is a value as an error says it.
func shown(n *yamlv3.Node) string {
	switch n.Kind {
	case yamlv3.MappingNode:
		return "an object"
	case yamlv3.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

// nearest is the name that was probably meant; "": none is near.
func nearest(name string, names []string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(s))
	}
	slices.Sort(names)
	best, least := "", 4 // three letters may be wrong
	for _, n := range names {
		if d := distance(plain(name), plain(n)); d < least && d*2 < len(n) {
			best, least = n, d
		}
	}
	return best
}

// distance is how many letters have to be put in, taken out or changed to make
// a of b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
