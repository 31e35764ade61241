package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// end is one end of a query.
type end struct {
	addrs []netip.Addr
	port  uint16   // 0: none was written
	pod   *podFact // that was asked for by name; one on its node's network too
}

func (e end) has(a netip.Addr) bool { return slices.Contains(e.addrs, a) }

// portExample is an end with a port, as it has to be written.
func portExample(e end) string {
	if e.pod != nil {
		return e.pod.Name.String() + ":80"
	}
	return netip.AddrPortFrom(e.addrs[0], 80).String()
}

// end reads an end of a query: a pod's name or an address, each maybe with a
// port.
func (f *Facts) end(text string) (end, error) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return address(a, 0)
	}
	if at, err := netip.ParseAddrPort(text); err == nil {
		return address(at.Addr(), at.Port())
	}
	namespace, rest, is := strings.Cut(text, "/")
	switch {
	case text == "":
		return end{}, fmt.Errorf("nobody is named; write namespace/pod or an address")
	case !is:
		return end{}, fmt.Errorf("%q is no address; write a pod with its namespace, as in default/%s", text, text)
	}
	pod, port, hasPort := strings.Cut(rest, ":")
	e, err := f.podEnd(model.Name{Namespace: namespace, Name: pod})
	if err != nil || !hasPort {
		return e, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return end{}, fmt.Errorf("port %q of %s/%s is no number from 1 to 65535; write the number that the container listens at", port, namespace, pod)
	}
	e.port = uint16(number)
	return e, nil
}

func address(a netip.Addr, port uint16) (end, error) {
	if a.Zone() != "" {
		return end{}, fmt.Errorf("%s has a zone; policies know addresses without", a)
	}
	return end{addrs: []netip.Addr{a.Unmap()}, port: port}, nil
}

func (f *Facts) podEnd(name model.Name) (end, error) {
	p := f.pod(name)
	switch {
	case p == nil:
		return end{}, f.noPod(name)
	case p.Done:
		return end{}, fmt.Errorf("pod %s has ended and given its address back; ask for one that runs", name)
	case len(p.Addrs) == 0 && p.HostNetwork:
		return end{}, fmt.Errorf("pod %s has no address yet and is to get its node's; ask for that", name)
	}
	return end{addrs: p.Addrs, pod: p}, nil
}

// noPod says what there is instead.
func (f *Facts) noPod(name model.Name) error {
	if s, is := f.services[name]; is && len(s.Ports) > 0 && len(vipsOf(s)) > 0 {
		return fmt.Errorf("%s is a Service, not a pod; ask for its address, %s", name, netip.AddrPortFrom(vipsOf(s)[0], s.Ports[0].Port))
	}
	var there []string
	for pod := range f.pods[name.Namespace] {
		there = append(there, pod)
	}
	if len(there) == 0 {
		return fmt.Errorf("there is no pod %s, and none else in namespace %s; see kubectl get pods -A", name, name.Namespace)
	}
	slices.Sort(there)
	return fmt.Errorf("there is no pod %s; in namespace %s are %s", name, name.Namespace, few(there, ", "))
}
