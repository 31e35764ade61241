package policy_test

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// slicesOf are the EndpointSlices of web, by family: its pods at port 80, or at
// that in "x/a=8080"; "x/a-" is not ready.
func slicesOf(pods ...string) []any {
	four, six := model.EndpointSlice{Name: nameOf("x/web-4"), Service: "web", Family: model.IPv4}, model.EndpointSlice{Name: nameOf("x/web-6"), Service: "web", Family: model.IPv6}
	for _, s := range []*model.EndpointSlice{&four, &six} {
		s.Ports = []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 80}}
		for _, name := range pods {
			name, idle := strings.CutSuffix(name, "-")
			p := podOf(name)
			s.Endpoints = append(s.Endpoints, model.Endpoint{Addr: endOf(name, s.Family), Node: p.Node, Ready: !idle, Serving: !idle})
		}
	}
	return []any{four, six}
}

// TestExplain: verdicts and hints, in the words that people read. Of the hints
// each has to be there, and "no hints" says that there is none.
func TestExplain(t *testing.T) {
	local := func(s *model.Service) { s.ExternalLocal = true }
	host := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.2") }
	both := slicesOf("x/a", "y/a")
	const no = "no hints"
	for name, c := range map[string]struct {
		facts    []any
		from, to string
		want     string   // the verdict, with the ways that are open of all
		hints    []string // parts of them
	}{
		"nothing isolates":         {nil, "x/a", "y/b:80", "ALLOWED", []string{no}},
		"denied by nothing allows": {[]any{policyOf("y/p", "all")}, "x/a", "y/b:80", "DENIED", []string{no}},
		"a named port that the pod lacks": {[]any{policyOf("y/p", "all", in(rule("", "TCP http")))}, "x/a", "y/b:80", "DENIED",
			[]string{`y/p ingress[0] ports[0] is TCP "http" and allows nothing: y/b has no container port named "http"; name the port`}},
		"a named port of another protocol": {[]any{policyOf("y/p", "all", in(rule("ns:all", "TCP 1; TCP serve-80-udp")))}, "x/a", "y/b:80", "DENIED",
			[]string{`y/p ingress[0] ports[1] is TCP "serve-80-udp" and allows nothing: "serve-80-udp" of y/b is UDP 80, not TCP`}},
		"on the way out too": {[]any{policyOf("x/p", "all", types("Egress"), out(rule("", "TCP http")))}, "x/a", "y/b:80", "DENIED",
			[]string{`x/p egress[0] ports[0] is TCP "http" and allows nothing: y/b has no`}},
		"the Service's port where the target port counts": {append(both, web(), policyOf("x/p", "all", in(rule("", "TCP 8000")))), "y/b", "10.96.0.10:8000", "PARTLY ALLOWED",
			[]string{"x/p ingress[0] ports[0] is TCP 8000, the port of Service x/web: policies see what the pod listens at, so write 80"}},
		"the same asked for by the pod": {append(both, web(), policyOf("x/p", "all", in(rule("", "TCP 8000")))), "y/b", "x/a:80", "DENIED",
			[]string{"the port of Service x/web"}},
		"an ipBlock of virtual addresses": {append(both, web(), policyOf("z/p", "all", types("Egress"), out(rule("10.96.0.0/16", "")))), "z/b", "10.96.0.10:8000", "DENIED",
			[]string{"z/p egress[0] to[0] (10.96.0.0/16) covers 10.96.0.10, an address of Service x/web, which never matches"}},
		"a client from outside and NodePorts, hit at the endpoint's node": {append(slicesOf("x/a"), web(), policyOf("x/p", "all", in(rule("203.0.113.0/24", "")))), "203.0.113.7", "192.168.0.1:30080", "ALLOWED",
			[]string{no}},
		"hit at another": {append(slicesOf("x/a"), web(), policyOf("x/p", "all", in(rule("203.0.113.0/24", "")))), "203.0.113.7", "192.168.0.2:30080", "DENIED",
			[]string{"node n2 puts its own address in place of 203.0.113.7, so x/a does not see who is allowed; it depends on the node that is hit. externalTrafficPolicy: Local lets it see the client"}},
		"and a load balancer, which hits any": {append(slicesOf("x/a"), web(), policyOf("x/p", "all", in(rule("203.0.113.0/24", "")))), "203.0.113.7", "198.51.100.8:8000", "PARTLY ALLOWED",
			[]string{"it depends on the node that is hit"}},
		"with externalTrafficPolicy Local": {append(slicesOf("x/a"), web(local), policyOf("x/p", "all", in(rule("203.0.113.0/24", "")))), "203.0.113.7", "198.51.100.8:8000", "ALLOWED",
			[]string{no}},
		"a NodePort of a node without endpoints under Local": {append(slicesOf("x/a"), web(local)), "203.0.113.7", "192.168.0.2:30080", "DENIED", []string{no}},
		"a node that may, for one that may not": {append(slicesOf("x/a"), web(), policyOf("x/p", "all", in(rule("192.168.0.0/16", "")))), "203.0.113.7", "192.168.0.2:30080", "ALLOWED",
			[]string{"which would not be allowed itself"}},
		"a pod through a load balancer is masqueraded too": {append(both, web(), policyOf("y/p", "all", in(rule("ns:ns=x", "")))), "x/b", "198.51.100.8:8000", "PARTLY ALLOWED",
			[]string{"node n1 puts its own address in place of x/b, so y/a does not see who is allowed"}},
		"a pod at a ClusterIP is not": {append(both, web(), policyOf("y/p", "all", in(rule("ns:ns=x", "")))), "x/b", "10.96.0.10:8000", "ALLOWED", []string{no}},
		"one label of the pod is another": {[]any{policyOf("y/p", "all", in(rule("ns:all pod=b", "")))}, "x/a", "y/b:80", "DENIED",
			[]string{"y/p ingress[0] from[0] (pods pod=b of every namespace) misses it by one label: pod x/a has label pod=a, not pod=b"}},
		"one label of the namespace is missing": {[]any{policyOf("y/p", "all", in(rule("ns:team=one pod=a", "")))}, "x/a", "y/b:80", "DENIED",
			[]string{"misses it by one label: namespace x lacks label team=one"}},
		"two labels are too far": {[]any{policyOf("y/p", "all", in(rule("ns:team=one pod=b", "")))}, "x/a", "y/b:80", "DENIED", []string{no}},
		"a podSelector without its namespace": {[]any{policyOf("y/p", "all", in(rule("pod=a", "")))}, "x/a", "y/b:80", "DENIED",
			[]string{"means pods of the policy's own namespace only: add a namespaceSelector (kubernetes.io/metadata.name=x)"}},
		"a policy that would allow it and selects another": {[]any{policyOf("y/p", "pod=b"), policyOf("y/q", "ns=y,tier=web", in(rule("", "")))}, "x/a", "y/b:80", "DENIED",
			[]string{"y/q would allow it, but does not select the pod by one label: pod y/b lacks label tier=web"}},
		"a policy that selects nothing": {[]any{policyOf("y/p", "tier=web")}, "x/a", "y/b:80", "ALLOWED",
			[]string{"y/p selects no pod (pods tier=web): pod y/a lacks label tier=web"}},
		"a policy that selects a pod of the host": {[]any{podOf("y/c", host), policyOf("y/p", "pod=c")}, "x/a", "y/b:80", "ALLOWED",
			[]string{"y/p selects no pod (pods pod=c), for y/c is on its node's network"}},
		"to a pod of the host": {[]any{podOf("y/c", host), policyOf("x/p", "all", types("Egress"), out(rule("ns:ns=y", "")))}, "x/a", "y/c:80", "DENIED",
			[]string{"x/p egress[0] to[0] (all pods of namespaces ns=y) would mean y/c, but that is on its node's network", "y/c is on its node's network: no policy selects it"}},
		"from a pod that has ended, by its address": {[]any{podOf("y/c", func(p *model.Pod) { p.Done = true }), policyOf("x/p", "all", in(rule("ns:ns=y", "")))}, "10.0.2.3", "x/a:80", "DENIED",
			[]string{"10.0.2.3 was the address of y/c, which has ended"}},
		"a pod that is not ready": {append(slicesOf("x/a", "y/a-"), web()), "z/a", "10.96.0.10:8000", "ALLOWED",
			[]string{"Service x/web does not lead to what is not ready: y/a 10.0.2.1:80"}},
		"a virtual address's other port": {append(both, web()), "z/a", "10.96.0.10:22", "DENIED", []string{no}},
		"no endpoint":                    {[]any{web()}, "z/a", "10.96.0.10:8000", "DENIED", []string{no}},
		"not in the source ranges": {append(slicesOf("x/a"), web(local, func(s *model.Service) { s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })), "203.0.113.7", "198.51.100.8:8000", "DENIED",
			[]string{no}},
		"a pod that has no address yet": {[]any{podOf("x/b", func(p *model.Pod) { p.Addrs = nil }), policyOf("y/p", "all", in(rule("ns:ns=x pod=b", "TCP 80")))}, "x/b", "y/a:80", "ALLOWED",
			[]string{"x/b has no address yet"}},
		"nor has the other": {[]any{podOf("x/b", func(p *model.Pod) { p.Addrs = nil }), podOf("y/a", func(p *model.Pod) { p.Addrs = nil }), policyOf("y/p", "all", in(rule("10.0.0.0/8", "")))}, "x/b", "y/a:80", "DENIED",
			[]string{"x/b has no address yet"}},
		"a node's process": {append(both, web(), policyOf("x/p", "all"), policyOf("y/p", "all")), "192.168.0.1", "10.96.0.10:8000", "PARTLY ALLOWED", []string{no}},
		"a node's process is its node to others": {append(slicesOf("y/a"), web(local), model.LocalAddrs{Addrs: addrList("172.17.0.1")}, policyOf("y/p", "all", in(rule("192.168.0.1/32", "")))), "172.17.0.1", "198.51.100.8:8000", "ALLOWED",
			[]string{"which would not be allowed itself"}},
		"a pod through a load balancer with externalTrafficPolicy Local": {append(slicesOf("y/a"), web(local), policyOf("y/p", "all", in(rule("ns:ns=x", "")))), "x/b", "198.51.100.8:8000", "ALLOWED", []string{no}},
		"a pod at its own node's NodePort goes out to the endpoint":      {append(slicesOf("y/a"), web(local), policyOf("x/p", "all", types("Egress"), out(rule("ns:ns=y", "")))), "x/b", "192.168.0.1:30080", "ALLOWED", []string{no}},
		"at another node's it goes out to that":                          {append(slicesOf("y/a"), web(local), policyOf("x/p", "all", types("Egress"), out(rule("ns:ns=y", "")))), "x/b", "192.168.0.3:30080", "DENIED", []string{no}},
		"and may if that is allowed":                                     {append(slicesOf("y/a"), web(local), policyOf("x/p", "all", types("Egress"), out(rule("192.168.0.3/32", "TCP 30080")))), "x/b", "192.168.0.3:30080", "ALLOWED", []string{no}},
		"endpoints that end serve when no other does": {[]any{web(), policyOf("x/p", "all"), model.EndpointSlice{Name: nameOf("x/web-1"), Service: "web", Family: model.IPv4,
			Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 80}}, Endpoints: []model.Endpoint{{Addr: endOf("y/a", model.IPv4), Node: "n2", Serving: true, Terminating: true}}}},
			"z/a", "10.96.0.10:8000", "ALLOWED", []string{no}},
		"itself": {[]any{policyOf("x/p", "all", types("Ingress", "Egress"))}, "x/a", "x/a:80", "ALLOWED", []string{no}},
	} {
		t.Run(name, func(t *testing.T) {
			e := fixture(c.facts...).Explain(policy.Query{From: c.from, To: c.to})
			text := e.String()
			if got, _, _ := strings.Cut(text, ":"); got != c.want || e.Error != "" {
				t.Errorf("got %s, want %s:\n%s", got, c.want, text)
			}
			for _, h := range c.hints {
				if h == no && len(e.Hints) > 0 || h != no && !strings.Contains(strings.Join(e.Hints, "\n"), h) {
					t.Errorf("want hint %q:\n%s", h, text)
				}
			}
		})
	}
}

// TestExplainErrors: each names what is wrong and what to write.
func TestExplainErrors(t *testing.T) {
	f := fixture(web(), podOf("z/c", func(p *model.Pod) { p.Done = true }), podOf("z/b", func(p *model.Pod) { p.Addrs = addrList("10.0.3.2") }))
	for name, c := range map[string]struct {
		q    policy.Query
		want string
	}{
		"nobody":             {policy.Query{To: "x/a:80"}, "from: nobody is named; write namespace/pod or an address"},
		"no namespace":       {policy.Query{From: "a", To: "x/b:80"}, `from: "a" is no address; write a pod with its namespace, as in default/a`},
		"no such pod":        {policy.Query{From: "x/d", To: "x/b:80"}, "from: there is no pod x/d; in namespace x are a, b, c"},
		"no such namespace":  {policy.Query{From: "x/a", To: "w/b:80"}, "to: there is no pod w/b, and none else in namespace w"},
		"a Service":          {policy.Query{From: "x/a", To: "x/web:8000"}, "to: x/web is a Service, not a pod; ask for its address, 10.96.0.10:8000"},
		"ended":              {policy.Query{From: "z/c", To: "x/b:80"}, "from: pod z/c has ended"},
		"no port":            {policy.Query{From: "x/a", To: "x/b"}, `to: "x/b" has no port; write one behind it, as in x/b:80`},
		"no port, IPv6":      {policy.Query{From: "x/a", To: "fd00::1:2"}, `as in [fd00::1:2]:80`},
		"two ports":          {policy.Query{From: "x/a", To: "x/b:80", Port: 81}, "give one of them"},
		"a port of the from": {policy.Query{From: "x/a:80", To: "x/b:80"}, `from: "x/a:80" has a port`},
		"not a number":       {policy.Query{From: "x/a", To: "x/b:http"}, `port "http" of x/b is no number from 1 to 65535`},
		"ICMP has none":      {policy.Query{From: "x/a", To: "x/b:80", Protocol: 1}, "to: ICMP has no ports; leave 80 out"},
		"no family":          {policy.Query{From: "z/b", To: "[fd00::1:1]:80"}, "z/b has no IPv6 address"},
		"a zone":             {policy.Query{From: "fe80::1%eth0", To: "x/b:80"}, "has a zone"},
	} {
		e := f.Explain(c.q)
		if e.Allowed || !strings.Contains(e.Error, c.want) {
			t.Errorf("%s: %q, want %q", name, e.Error, c.want)
		}
	}
}

// TestExplanationJSON: what an agent sends is what its client prints.
func TestExplanationJSON(t *testing.T) {
	f := fixture(append(slicesOf("x/a", "y/a"), web(), policyOf("x/p", "all", in(rule("ns:ns=y", "TCP http"))), policyOf("y/p", "all", in(rule("", "TCP 80"))))...)
	for _, to := range []string{"10.96.0.10:8000", "x/a:80", "nobody"} {
		e := f.Explain(policy.Query{From: "z/a", To: to, Protocol: model.TCP})
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back policy.Explanation
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if !reflect.DeepEqual(back, e) {
			t.Errorf("got\n%+v\nwant\n%+v", back, e)
		}
	}
}

func TestQueryJSON(t *testing.T) {
	for text, want := range map[string]policy.Query{
		`{"from":"x/a","to":"y/b","protocol":"udp","port":53}`: {From: "x/a", To: "y/b", Protocol: model.UDP, Port: 53},
		`{"from":"x/a","to":"y/b:80"}`:                         {From: "x/a", To: "y/b:80"},
		`{"from":"x/a","to":"y/b","protocol":"47"}`:            {From: "x/a", To: "y/b", Protocol: 47},
	} {
		var got policy.Query
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	var q policy.Query
	if err := json.Unmarshal([]byte(`{"protocol":"http"}`), &q); err == nil || !strings.Contains(err.Error(), "use TCP, UDP, SCTP") {
		t.Errorf("protocol http: %v", err)
	}
}

var update = flag.Bool("update-texts", false, "write the texts that tests compare with anew")

// TestExplanationText: how it reads.
func TestExplanationText(t *testing.T) {
	f := fixture(append(slicesOf("x/a", "y/a"), web(),
		policyOf("x/allow-y", "pod=a", in(rule("ns:ns=y", "TCP 80")), in(rule("ns:team=one pod=a", "TCP serve-80-tcp"))),
		policyOf("y/deny", "all"), policyOf("y/web", "pod=a", in(rule("203.0.113.0/24 except 203.0.113.9/32; pod=b", "TCP 80; TCP 8000-8080"))))...)
	var b strings.Builder
	for _, q := range []policy.Query{
		{From: "y/b", To: "x/a:80"},
		{From: "x/a", To: "y/a", Port: 80},
		{From: "z/a", To: "x/a:80"},
		{From: "y/b", To: "x/a", Protocol: 1},
		{From: "203.0.113.9", To: "10.0.2.1:80"},
		{From: "y/b", To: "10.96.0.10:8000"},
		{From: "203.0.113.7", To: "198.51.100.8:8000"},
		{From: "z/a", To: "[fd00:96::10]:22"},
		{From: "x/a", To: "x/web:8000"},
	} {
		b.WriteString(f.Explain(q).String() + "\n")
	}
	file := filepath.Join("testdata", "explain.txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
