package policy

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

var denialTime = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// denialFacts are of a cluster: web-0 and db-0 in namespace shop, of which no one may send
// to db-0 but those with label db=yes; web-0 may send to nobody but port 53.
//
//	web-0   10.244.1.5    isolated for egress by shop/web-egress
//	db-0    10.244.1.7    isolated for ingress by shop/db-ingress and shop/default
//	free-0  10.244.1.9
//	Service shop/db       10.96.0.7:5432, NodePort 30432 -> db-0:5433
//	node n1               192.0.2.1
func denialFacts() *Facts {
	f := NewFacts("n1")
	addr := netip.MustParseAddr
	name := func(n string) model.Name { return model.Name{Namespace: "shop", Name: n} }
	pod := func(n, at string) model.Pod {
		return model.Pod{Name: name(n), UID: n, Node: "n1", Labels: map[string]string{"app": strings.TrimSuffix(n, "-0")},
			Addrs: []netip.Addr{addr(at)}}
	}
	app := func(value string) model.Selector {
		return model.Selector{Requirements: []model.Requirement{{Key: "app", Values: []string{value}}}}
	}
	friends := model.Selector{Requirements: []model.Requirement{{Key: "db", Values: []string{"yes"}}}}
	for _, put := range []any{
		model.Node{Name: "n1", Addrs: []netip.Addr{addr("192.0.2.1")}},
		model.LocalAddrs{Addrs: []netip.Addr{addr("192.0.2.1")}},
		pod("web-0", "10.244.1.5"), pod("db-0", "10.244.1.7"), pod("free-0", "10.244.1.9"),
		model.NetworkPolicy{Name: name("web-egress"), Pods: app("web"), Egress: true, EgressRules: []model.PolicyRule{{
			AnyPeer: true, Ports: []model.PolicyPort{{Protocol: model.UDP, First: 53, Last: 53}},
		}}},
		model.NetworkPolicy{Name: name("db-ingress"), Pods: app("db"), Ingress: true, IngressRules: []model.PolicyRule{{
			AnyPort: true, Peers: []model.PolicyPeer{{Pods: &friends}},
		}}},
		model.NetworkPolicy{Name: name("default"), Pods: app("db"), Ingress: true},
		model.Service{Name: name("db"), ClusterIPs: []netip.Addr{addr("10.96.0.7")},
			Ports: []model.ServicePort{{Protocol: model.TCP, Port: 5432, NodePort: 30432}}},
		model.EndpointSlice{Name: name("db-abc"), Service: "db", Family: model.IPv4,
			Ports:     []model.EndpointPort{{Protocol: model.TCP, Port: 5433}},
			Endpoints: []model.Endpoint{{Addr: addr("10.244.1.7"), Node: "n1", Ready: true, Serving: true}}},
	} {
		f.Apply(model.Event{Put: put})
	}
	return f
}

// refusedPacket is a packet of TCP that came in by a pod's interface.
func refusedPacket(side, src, dst string) Refused {
	return Refused{
		At: denialTime, Prefix: "sluice-" + side, Protocol: model.TCP, In: "veth1",
		Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst),
	}
}

func allDenials(d *Denials) []Denial {
	list, _, _ := d.After(0)
	return list
}

// TestDenialNamesWhoWasDeniedWhatAndWhy.
func TestDenialNamesWhoWasDeniedWhatAndWhy(t *testing.T) {
	through := func(r Refused, dialled string) Refused {
		r.In = ""
		if dialled != "" {
			r.Dialled = netip.MustParseAddrPort(dialled)
		}
		return r
	}
	for name, c := range map[string]struct {
		packet Refused
		ends   string // the pods
		what   string // "policies | dialled | services"
		why    string // part of it
	}{
		"ingress": {
			refusedPacket(DeniedIngress, "10.244.1.9:40000", "10.244.1.7:5433"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | ", "db",
		},
		"egress": {
			refusedPacket(DeniedEgress, "10.244.1.5:40000", "10.244.1.9:80"),
			"shop/web-0 -> shop/free-0", "shop/web-egress | - | ", "UDP 53",
		},
		"egress to the world": {
			refusedPacket(DeniedEgress, "10.244.1.5:40000", "198.51.100.1:443"),
			"shop/web-0 -> ", "shop/web-egress | - | ", "UDP 53",
		},
		"through a virtual address that is known": {
			through(refusedPacket(DeniedIngress, "10.244.1.9:40000", "10.244.1.7:5433"), "10.96.0.7:5432"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | 10.96.0.7:5432 | shop/db", "",
		},
		"through a NodePort that is known": {
			through(refusedPacket(DeniedIngress, "198.51.100.1:40000", "10.244.1.7:5433"), "192.0.2.1:30432"),
			" -> shop/db-0", "shop/db-ingress shop/default | 192.0.2.1:30432 | shop/db", "",
		},
		"through one that nobody knows: the Services of the endpoint": {
			through(refusedPacket(DeniedIngress, "10.244.1.9:40000", "10.244.1.7:5433"), ""),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | shop/db", "",
		},
		"through none, as the connection table says": {
			through(refusedPacket(DeniedIngress, "10.244.1.9:40000", "10.244.1.7:5433"), "10.244.1.7:5433"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | ", "",
		},
		"an unknown source": {
			refusedPacket(DeniedUnknown, "10.244.1.77:40000", "10.244.1.9:80"),
			" -> shop/free-0", " | - | ", "no pod is known yet that has 10.244.1.77, and --policy-unknown-pods=deny is set",
		},
		"an unknown destination": {
			refusedPacket(DeniedUnknown, "10.244.1.9:40000", "10.244.1.77:80"),
			"shop/free-0 -> ", " | - | ", "has 10.244.1.77, and",
		},
		"unknown when it was denied": {
			refusedPacket(DeniedUnknown, "10.244.1.9:40000", "10.244.1.5:80"),
			"shop/free-0 -> shop/web-0", " | - | ", "known pods now",
		},
		"a revoked connection": {
			refusedPacket(DeniedRevoked, "10.244.1.9:40000", "10.244.1.7:5433"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | ", "db",
		},
		"a revoked connection's answer, told as who had asked": {
			refusedPacket(DeniedRevoked, "10.244.1.7:5433", "10.244.1.9:40000"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | ", "db",
		},
		"the same where the client has the lower port": {
			refusedPacket(DeniedRevoked, "10.244.1.7:5433", "10.244.1.9:1024"),
			"shop/free-0 -> shop/db-0", "shop/db-ingress shop/default | - | ", "db",
		},
		"both sides of a revoked connection": {
			refusedPacket(DeniedRevoked, "10.244.1.5:40000", "10.244.1.7:5433"),
			"shop/web-0 -> shop/db-0", "shop/db-ingress shop/default shop/web-egress | - | ", "UDP 53",
		},
		"rules older than the facts": {
			refusedPacket(DeniedIngress, "192.0.2.1:40000", "10.244.1.7:5433"),
			" -> shop/db-0", "shop/db-ingress shop/default | - | ", "policies allow it now",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDenials(DenialOptions{Facts: denialFacts(), Node: "n1"})
			d.Tell(c.packet)
			list := allDenials(d)
			if len(list) != 1 {
				t.Fatalf("%d denials, want 1", len(list))
			}
			n := list[0]
			dialled := "-"
			if n.Dialled.IsValid() {
				dialled = n.Dialled.String()
			}
			what := strings.Join(n.Policies, " ") + " | " + dialled + " | " + strings.Join(n.Services, " ")
			if ends := n.SrcPod + " -> " + n.DstPod; ends != c.ends || what != c.what {
				t.Errorf("%s: %s\nwant %s: %s", ends, what, c.ends, c.what)
			}
			if !strings.Contains(n.Why, c.why) || n.Why == "" || strings.Contains(n.Why, "\n") {
				t.Errorf("why %q, want something of %q", n.Why, c.why)
			}
			if n.Side != strings.TrimPrefix(c.packet.Prefix, "sluice-") || n.Node != "n1" || n.Protocol != "TCP" || !n.Time.Equal(denialTime) {
				t.Errorf("%+v", n)
			}
		})
	}
}

func TestOthersPacketsAreNothing(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts()})
	d.Tell(Refused{At: denialTime, Prefix: "DROP by firewall", Src: netip.MustParseAddrPort("10.244.1.5:1"), Dst: netip.MustParseAddrPort("10.244.1.7:2")})
	if n := len(allDenials(d)); n != 0 {
		t.Errorf("%d denials", n)
	}
}

// TestDenialsOfAFlow: the first at once, then one in an interval at most, which
// says for how many it stands.
func TestDenialsOfAFlow(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts(), Interval: 10 * time.Second})
	tell := func(after time.Duration, src, dst string) {
		r := refusedPacket(DeniedIngress, src, dst)
		r.At = denialTime.Add(after)
		d.Tell(r)
	}
	for _, s := range []time.Duration{0, 1, 3, 7, 15, 31} { // a client that connects again and again
		tell(s*time.Second, "10.244.1.9:40000", "10.244.1.7:5433")
	}
	tell(32*time.Second, "10.244.1.9:40001", "10.244.1.7:5433") // another port is the same flow
	tell(32*time.Second, "10.244.1.9:40001", "10.244.1.7:80")   // and these are not
	tell(32*time.Second, "10.244.1.5:40001", "10.244.1.7:80")
	tell(20*time.Second, "10.244.1.9:40000", "10.244.1.7:5433") // a clock that was set back
	var got []string
	for _, n := range allDenials(d) {
		got = append(got, n.Time.Sub(denialTime).String()+" "+n.SrcPod+" "+n.Dst.String()+" +"+string('0'+rune(n.Suppressed)))
	}
	want := []string{
		"0s shop/free-0 10.244.1.7:5433 +0", "15s shop/free-0 10.244.1.7:5433 +3", "31s shop/free-0 10.244.1.7:5433 +0",
		"32s shop/free-0 10.244.1.7:80 +0", "32s shop/web-0 10.244.1.7:80 +0", "20s shop/free-0 10.244.1.7:5433 +1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	counts := d.Counts()
	if n := counts.Sides[DeniedIngress]; n != 10 {
		t.Errorf("%d packets counted, want all 10", n)
	}
	if n := counts.Policies[Denier{DeniedIngress, model.Name{Namespace: "shop", Name: "default"}}]; n != 10 {
		t.Errorf("%d packets counted for shop/default, want all 10, those that were suppressed too", n)
	}
	if n, there := counts.Sides[DeniedRevoked]; n != 0 || !there {
		t.Errorf("revoked: %d %v, want a 0", n, there)
	}
}

// TestBothWaysOfARevokedConnection: what is asked and what is answered is one
// flow.
func TestBothWaysOfARevokedConnection(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts()})
	d.Tell(refusedPacket(DeniedRevoked, "10.244.1.5:40000", "10.244.1.7:5433"))
	d.Tell(refusedPacket(DeniedRevoked, "10.244.1.7:5433", "10.244.1.5:40000"))
	if list := allDenials(d); len(list) != 1 || list[0].SrcPod != "shop/web-0" || d.Counts().Sides[DeniedRevoked] != 2 {
		t.Errorf("%+v, want one, of two packets", list)
	}
}

// TestAScanOfPorts: what is remembered and what is reported is bounded, whatever
// comes, and everything is counted.
func TestAScanOfPorts(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts()})
	const packets = 60000
	for port := range packets {
		r := refusedPacket(DeniedIngress, "10.244.1.9:40000", netip.AddrPortFrom(netip.MustParseAddr("10.244.1.7"), uint16(port+1)).String())
		r.At = denialTime.Add(time.Duration(port) * time.Millisecond) // a minute
		d.Tell(r)
	}
	if n := len(d.limiter.young) + len(d.limiter.old); n > 2*flowsKept {
		t.Errorf("%d flows are remembered, want %d at most", n, 2*flowsKept)
	}
	list, last, _ := d.After(0)
	if len(list) != denialsKept {
		t.Errorf("%d denials kept, want %d", len(list), denialsKept)
	}
	if most := uint64(denialBurst + 60*denialRate); last > most || last < most-denialRate {
		t.Errorf("%d reported, want about %d", last, most)
	}
	if n := d.Counts().Sides[DeniedIngress]; n != packets {
		t.Errorf("%d counted, want %d", n, packets)
	}
}

// TestFollowing: whoever follows gets each denial once, knows what was lost
// when it was too slow, and never holds up who tells.
func TestFollowing(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts()})
	list, last, more := d.After(0)
	if len(list) != 0 || last != 0 {
		t.Fatalf("%d denials up to %d before there are any", len(list), last)
	}
	port := 0
	tell := func(n int) {
		for range n {
			port++
			r := refusedPacket(DeniedEgress, "10.244.1.5:40000", netip.AddrPortFrom(netip.MustParseAddr("10.244.1.9"), uint16(port)).String())
			r.At = denialTime.Add(time.Duration(port) * time.Minute)
			d.Tell(r)
		}
	}
	select {
	case <-more:
		t.Fatal("told of more where there is none")
	default:
	}
	tell(2)
	<-more
	list, last, more = d.After(last)
	if len(list) != 2 || last != 2 || list[0].Dst.Port() != 1 || list[1].Dst.Port() != 2 {
		t.Fatalf("%d denials up to %d, want 1 and 2", len(list), last)
	}
	tell(denialsKept + 5)
	<-more
	list, next, _ := d.After(last)
	if missed := next - last - uint64(len(list)); len(list) != denialsKept || missed != 5 {
		t.Errorf("%d denials, %d missed; want %d and 5", len(list), missed, denialsKept)
	}
	for i, n := range list {
		if want := 2 + 5 + i + 1; int(n.Dst.Port()) != want {
			t.Fatalf("denial %d is of port %d, want %d", i, n.Dst.Port(), want)
		}
	}
	if list, again, _ := d.After(next + 1000); len(list) != 0 || again != next {
		t.Errorf("after a number of another run: %d denials up to %d, want none up to %d", len(list), again, next)
	}
}

// TestSeriesAreBounded: policies beyond a number are counted together.
func TestSeriesAreBounded(t *testing.T) {
	c := newDenialCounts()
	for i := range deniedSeries + 10 {
		c.add(DeniedIngress, []model.Name{{Namespace: "n", Name: string(rune('a' + i))}})
	}
	if len(c.Policies) != deniedSeries || c.Others != 10 || c.Sides[DeniedIngress] != deniedSeries+10 {
		t.Errorf("%d policies, %d packets of others, %d in all", len(c.Policies), c.Others, c.Sides[DeniedIngress])
	}
}

// TestDenialAsLineAndJSON: a log line and the JSON form have the same fields.
func TestDenialAsLineAndJSON(t *testing.T) {
	var log bytes.Buffer
	d := NewDenials(DenialOptions{Facts: denialFacts(), Node: "n1", Log: slog.New(slog.NewJSONHandler(&log, nil))})
	r := refusedPacket(DeniedIngress, "10.244.1.9:40000", "10.244.1.7:5433")
	r.Dialled, r.In = netip.MustParseAddrPort("10.96.0.7:5432"), ""
	d.Tell(r)
	d.Tell(r)
	r.At = denialTime.Add(time.Minute)
	d.Tell(r)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want one for each denial:\n%s", len(lines), &log)
	}
	var line, form map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &line); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(allDenials(d)[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &form); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"side": "ingress", "src": "10.244.1.9:40000", "dst": "10.244.1.7:5433", "protocol": "TCP", "dialled": "10.96.0.7:5432",
		"srcPod": "shop/free-0", "dstPod": "shop/db-0", "policies": "shop/db-ingress,shop/default", "services": "shop/db",
	} {
		inJSON := form[key]
		if list, is := inJSON.([]any); is {
			var texts []string
			for _, e := range list {
				texts = append(texts, e.(string))
			}
			inJSON = strings.Join(texts, ",")
		}
		if line[key] != want || inJSON != want {
			t.Errorf("%s: %v in the log, %v as JSON, want %s", key, line[key], inJSON, want)
		}
	}
	if line["suppressed"] != 1.0 || form["suppressed"] != 1.0 || line["why"] != form["why"] || form["node"] != "n1" {
		t.Errorf("log %v\nJSON %v", line, form)
	}
}

// TestTellingAndAsking: one tells while others ask.
func TestTellingAndAsking(t *testing.T) {
	d := NewDenials(DenialOptions{Facts: denialFacts()})
	const packets = 300
	done := make(chan int)
	for range 3 {
		go func() {
			seen := 0
			for last := uint64(0); last < packets; {
				list, n, more := d.After(last)
				seen, last = seen+len(list), n
				d.Counts()
				if last < packets {
					<-more
				}
			}
			done <- seen
		}()
	}
	for port := range packets {
		d.Tell(refusedPacket(DeniedEgress, "10.244.1.5:40000", netip.AddrPortFrom(netip.MustParseAddr("10.244.1.9"), uint16(port+1)).String()))
	}
	for range 3 {
		if n := <-done; n != packets {
			t.Errorf("one who followed got %d, want %d", n, packets)
		}
	}
}
