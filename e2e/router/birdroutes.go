package router

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Routes are those that BIRD has learned over BGP.
func (r *BIRD) Routes(v6 bool) (map[netip.Prefix][]Path, error) {
	table := "master4"
	if v6 {
		table = "master6"
	}
	text, err := r.command("show route all table " + table + " where source = RTS_BGP")
	if err != nil {
		return nil, err
	}
	return parseBIRD(text)
}

// parseBIRD reads BIRD's words about its routes. A path begins with the prefix,
// or blanks when it is the same as before, and "unicast"; what belongs to it is
// indented.
func parseBIRD(text string) (map[netip.Prefix][]Path, error) {
	routes := map[netip.Prefix][]Path{}
	var prefix netip.Prefix
	var path *Path
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if p, err := netip.ParsePrefix(f[0]); err == nil {
			prefix, f = p, f[1:]
		}
		if len(f) > 0 && f[0] == "unicast" {
			routes[prefix] = append(routes[prefix], Path{})
			path = &routes[prefix][len(routes[prefix])-1]
			continue
		}
		if path == nil {
			continue // "Table master4:"
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if err := path.attribute(name, value); err != nil {
			return nil, fmt.Errorf("router: BIRD: %q: %w", line, err)
		}
	}
	sortPaths(routes)
	return routes, nil
}

// blanks are those inside BIRD's large communities, "(64512, 1, 2)".
var blanks = regexp.MustCompile(`, `)

func (p *Path) attribute(name, value string) (err error) {
	switch name {
	case "BGP.as_path":
		p.ASPath = value
	case "BGP.next_hop":
		// The link-local one, if any, comes second.
		p.NextHop, err = netip.ParseAddr(strings.Fields(value)[0])
	case "BGP.med":
		p.MED, err = number(value)
	case "BGP.local_pref":
		p.LocalPref, err = number(value)
	case "BGP.community":
		p.Communities = tuples(value)
	case "BGP.large_community":
		p.LargeCommunities = tuples(blanks.ReplaceAllString(value, ","))
	}
	return err
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// tuples are "(64512,1) (64512,2)" as "64512:1", "64512:2".
func tuples(s string) (list []string) {
	for t := range strings.FieldsSeq(s) {
		list = append(list, strings.ReplaceAll(strings.Trim(t, "()"), ",", ":"))
	}
	return list
}
