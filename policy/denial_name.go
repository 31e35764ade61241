package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// name says what was denied and why, by the facts as they are now: they may be
// newer than the rules that denied it. It also returns the policies.
func (d *Denials) name(side string, r Refused) (Denial, []model.Name) {
	facts := d.opts.Facts
	verdict := facts.Allows(r.packet())
	if side == DeniedRevoked && verdict.Allowed() {
		// The ports have misled us if it is denied the other way round.
		turned := r
		turned.Src, turned.Dst = r.Dst, r.Src
		if v := facts.Allows(turned.packet()); !v.Allowed() {
			r, verdict = turned, v
		}
	}
	policies := verdict.isolating(side)
	n := Denial{
		Time: r.At, Node: d.opts.Node, Side: side, Protocol: r.Protocol.String(),
		Src: r.Src, Dst: r.Dst, SrcPod: verdict.Egress.Pod.String(), DstPod: verdict.Ingress.Pod.String(),
		Policies: nameTexts(policies), Why: r.why(side, verdict),
	}
	if r.Dialled.IsValid() && r.Dialled != r.Dst {
		n.Dialled = r.Dialled
		n.Services = nameTexts(facts.servicesAt(r.Dialled, r.Protocol))
	} else if r.In == "" && !r.Dialled.IsValid() {
		n.Services = nameTexts(facts.servicesBehind(verdict.Ingress.Pod.Namespace, r.Dst, r.Protocol))
	}
	return n, policies
}

func (r Refused) packet() Packet {
	return Packet{Src: r.Src.Addr(), Dst: r.Dst.Addr(), Protocol: r.Protocol, Port: r.Dst.Port()}
}

func nameTexts(names []model.Name) []string {
	var list []string
	for _, n := range names {
		list = append(list, n.String())
	}
	return list
}

// denying are the findings that a denial of a side is explained by.
func (d Decision) denying(side string) []Finding {
	switch side {
	case DeniedEgress:
		return []Finding{d.Egress}
	case DeniedIngress:
		return []Finding{d.Ingress}
	case DeniedRevoked:
		if !d.Allowed() {
			return slices.DeleteFunc([]Finding{d.Egress, d.Ingress}, func(f Finding) bool { return f.Allowed })
		}
		return []Finding{d.Egress, d.Ingress}
	}
	return nil
}

// isolating are the policies by which a side denied: those that isolate its pod.
func (d Decision) isolating(side string) []model.Name {
	var names []model.Name
	for _, f := range d.denying(side) {
		names = append(names, f.Isolate...)
	}
	slices.SortFunc(names, model.Name.Compare)
	return slices.Compact(names)
}

// why explains a denial in one line.
func (r Refused) why(side string, verdict Decision) string {
	if side == DeniedUnknown {
		return r.unknown(verdict)
	}
	var denied, allowed []string
	for _, f := range verdict.denying(side) {
		if f.Allowed {
			allowed = append(allowed, f.Why)
		} else {
			denied = append(denied, f.Why)
		}
	}
	if len(denied) > 0 {
		return strings.Join(denied, "; ")
	}
	return "policies allow it now (" + strings.Join(allowed, "; ") +
		"): the rules that denied it are older, or could not be made; the agent's log and the NetworkPolicy's Events name such"
}

// unknown explains a packet whose source or destination is no pod's, though it
// is in the range of this node's pods.
func (r Refused) unknown(verdict Decision) string {
	var strangers []string
	for _, end := range []struct {
		addr netip.Addr
		pod  model.Name
	}{{r.Src.Addr(), verdict.Egress.Pod}, {r.Dst.Addr(), verdict.Ingress.Pod}} {
		if end.pod == (model.Name{}) {
			strangers = append(strangers, end.addr.String())
		}
	}
	if len(strangers) == 0 {
		return "both ends are known pods now; they were not when it was denied"
	}
	return fmt.Sprintf("no pod is known yet that has %s, and --policy-unknown-pods=deny is set", strings.Join(strangers, " or "))
}

// servicesAt are the Services that answer at an address, by name: more than one
// if they claim it together.
func (f *Facts) servicesAt(at netip.AddrPort, protocol model.Protocol) []model.Name {
	f.mu.RLock()
	defer f.mu.RUnlock()
	virtual := f.vips[at.Addr()] > 0
	var names []model.Name
	for name, s := range f.services {
		if virtual && !slices.Contains(vipsOf(s), at.Addr()) {
			continue
		}
		if slices.ContainsFunc(s.Ports, func(p model.ServicePort) bool {
			return p.Protocol == protocol && (virtual && p.Port == at.Port() || !virtual && p.NodePort == at.Port())
		}) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, model.Name.Compare)
	return names
}

// servicesBehind are the Services of a namespace that have an endpoint, by name.
func (f *Facts) servicesBehind(namespace string, at netip.AddrPort, protocol model.Protocol) []model.Name {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var names []model.Name
	for name, s := range f.slices {
		if name.Namespace == namespace && s.Service != "" && hasEndpoint(s, at, protocol) {
			names = append(names, model.Name{Namespace: namespace, Name: s.Service})
		}
	}
	slices.SortFunc(names, model.Name.Compare)
	return slices.Compact(names)
}

func hasEndpoint(s model.EndpointSlice, at netip.AddrPort, protocol model.Protocol) bool {
	return slices.ContainsFunc(s.Ports, func(p model.EndpointPort) bool { return p.Protocol == protocol && p.Port == at.Port() }) &&
		slices.ContainsFunc(s.Endpoints, func(e model.Endpoint) bool { return e.Addr == at.Addr() })
}
