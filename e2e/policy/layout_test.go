package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice.dev/sluice/e2e/topo"
)

// place is where a pod is: on which node, and the how manieth it is there. Its
// addresses follow from that.
type place struct {
	pod       actor
	node, nth int // both from 1
}

// places are the pods in the order in which they are made. Of every namespace
// there are some on each node.
func places() []place {
	var list []place
	count := map[int]int{}
	for i, pod := range pods() {
		node := 1 + i%2
		count[node]++
		list = append(list, place{pod, node, count[node]})
	}
	return list
}

func pods() []actor {
	var list []actor
	for _, namespace := range []string{"x", "y", "z"} {
		for _, name := range []string{"a", "b", "c"} {
			list = append(list, actor(namespace+"/"+name))
		}
	}
	return list
}

func nodes() []actor { return []actor{"node1", "node2"} }

func everybody() []actor { return append(append(pods(), nodes()...), client) }

func placeOf(pod actor) place {
	for _, p := range places() {
		if p.pod == pod {
			return p
		}
	}
	return place{}
}

func (p place) host() actor { return actor(fmt.Sprintf("node%d", p.node)) }

// addrs are a pod's in both families.
func (p place) addrs() [2]netip.Addr {
	return [2]netip.Addr{
		netip.AddrFrom4([4]byte{10, 244, byte(p.node), byte(p.nth + 1)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%x::%x", p.node, p.nth+1)),
	}
}

// vips are the addresses of the pod's Service.
func vips(pod actor) [2]netip.Addr {
	p := placeOf(pod)
	return [2]netip.Addr{
		netip.AddrFrom4([4]byte{10, 96, byte(p.node), byte(p.nth)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:10:96::%x%02x", p.node, p.nth)),
	}
}

// vipPort is the Service's port that leads to a port of the pod: one is the
// same, the other is not.
func vipPort(port uint16) uint16 {
	if port == 81 {
		return 8181
	}
	return port
}

// hostName is a pod's as a host of the topology.
func hostName(pod actor) string { return strings.ReplaceAll(string(pod), "/", "") }

// fill replaces "$xa4" and "$xa6" by the addresses of pod x/a and "$vip-xa4"
// by that of its Service, for all pods.
func fill(text string) string {
	var pairs []string
	for _, p := range places() {
		for i, family := range []string{"4", "6"} {
			name := hostName(p.pod) + family
			pairs = append(pairs, "$"+name, p.addrs()[i].String(), "$vip-"+name, vips(p.pod)[i].String())
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// matrix are the connections that a case is tried by: all between pods and, if
// outside is set, those of nodes and the client to pods and back.
func matrix(outside bool) []flow {
	var list []flow
	add := func(from, to actor, ways ...bool) {
		for _, protocol := range []string{topo.TCP, topo.UDP, topo.SCTP} {
			for _, port := range []uint16{80, 81} {
				for _, six := range []bool{false, true} {
					for _, vip := range ways {
						list = append(list, flow{from, to, protocol, port, six, vip})
					}
				}
			}
		}
	}
	for _, from := range pods() {
		for _, to := range pods() {
			add(from, to, false, true)
		}
	}
	if !outside {
		return list
	}
	for _, pod := range pods() {
		for _, node := range nodes() {
			add(node, pod, false, true)
			add(pod, node, false)
		}
		add(client, pod, false)
		add(pod, client, false)
	}
	return list
}
