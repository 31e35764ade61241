package convert

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// readPolicy reads shop/web from what stands under its spec, and which fields
// are not known, as strict decoders say it.
func readPolicy(tb testing.TB, spec string) (*networkingv1.NetworkPolicy, []string) {
	tb.Helper()
	js, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		tb.Fatal(err)
	}
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}}
	strict, err := kjson.UnmarshalStrict([]byte(`{"spec":`+string(js)+`}`), p)
	if err != nil {
		tb.Fatal(err)
	}
	var unknown []string
	for _, err := range strict {
		unknown = append(unknown, err.(kjson.FieldError).FieldPath()) //nolint:errorlint // never wrapped
	}
	return p, unknown
}

// policyLine is a policy in one line, without its name.
func policyLine(tb testing.TB, np model.NetworkPolicy) string {
	tb.Helper()
	p := sourcetest.NewPicture(tb, "convert")
	p.Event(model.Event{Source: "convert", Put: np})
	return strings.TrimPrefix(p.Lines()[0], "policy shop/web: ")
}

type policyRow struct {
	name, spec string
	want       string // as sourcetest writes it; "": refused
	says       []string
}

func checkPolicies(t *testing.T, rows []policyRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			given, unknown := readPolicy(t, row.spec)
			before := given.DeepCopy()
			np, ok, problems := NetworkPolicy(given, unknown)
			if ok != (row.want != "") {
				t.Errorf("told: %v", ok)
			}
			if got := policyLine(t, np); ok && got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			if !reflect.DeepEqual(given, before) {
				t.Error("the object was changed")
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "NetworkPolicy", Object: model.Name{Namespace: "shop", Name: "web"}, UID: "u1"})
		})
	}
}

// TestPolicyTypes is what of section 1.1 is about whom a policy isolates.
func TestPolicyTypes(t *testing.T) {
	checkPolicies(t, []policyRow{
		{"no podSelector: every pod", "{}", "pods *, Ingress", nil},
		{"empty podSelector: every pod", "{podSelector: {}}", "pods *, Ingress", nil},
		{"podSelector null: every pod", "{podSelector: null}", "pods *, Ingress", nil},
		{"some pods", "{podSelector: {matchLabels: {b: '2', a: '1'}}}", "pods a=1&b=2, Ingress", nil},
		{"by expressions", "{podSelector: {matchLabels: {a: '1'}, matchExpressions: [{key: b, operator: NotIn, values: [v, w]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}, {key: e, operator: In, values: [z]}]}}",
			"pods a=1&b!=v|w&c&!d&e=z, Ingress", nil},

		{"default with nothing", "{}", "pods *, Ingress", nil},
		{"default with ingress: [] isolates, as without", "{ingress: []}", "pods *, Ingress", nil},
		{"default with ingress rules", "{ingress: [{}]}", "pods *, Ingress, in 0: everybody at every port", nil},
		{"default with egress: [] does not isolate for egress", "{egress: []}", "pods *, Ingress", nil},
		{"default with egress rules also isolates ingress", "{egress: [{}]}", "pods *, Ingress, Egress, out 0: everybody at every port", nil},
		{"policyTypes: [] is the default", "{policyTypes: [], egress: [{}]}", "pods *, Ingress, Egress, out 0: everybody at every port", nil},
		{"Ingress", "{policyTypes: [Ingress]}", "pods *, Ingress", nil},
		{"Egress", "{policyTypes: [Egress]}", "pods *, Egress", nil},
		{"both", "{policyTypes: [Egress, Ingress]}", "pods *, Ingress, Egress", nil},
		{"Ingress, though there are egress rules", "{policyTypes: [Ingress], egress: [{}]}", "pods *, Ingress, out 0: everybody at every port", nil},
		{"Egress, though there are ingress rules", "{policyTypes: [Egress], ingress: [{}]}", "pods *, Egress, in 0: everybody at every port", nil},
		{"a type that is none may mean either", "{policyTypes: [egress]}", "pods *, Ingress, Egress",
			[]string{`InvalidPolicyType: spec.policyTypes[0]: "egress" is not a type of policy; use "Ingress" or "Egress"; until then the policy isolates in both directions`}},
		{"a type that is none beside one", "{policyTypes: [Ingress, '']}", "pods *, Ingress, Egress", []string{`InvalidPolicyType: spec.policyTypes[1]: "" is not`}},

		{"whom it isolates cannot be said", "{podSelector: {matchLabels: {a: 'no value'}}, ingress: [{}]}", "",
			[]string{`InvalidSelector: spec.podSelector: "{\"matchLabels\":{\"a\":\"no value\"}}" cannot be used: `}},
		{"an operator that is none", "{podSelector: {matchExpressions: [{key: a, operator: Like, values: [x]}]}}", "",
			[]string{`InvalidSelector: spec.podSelector: `}},
	})
}

// TestPolicyRules is what of section 1.1 is about empty and missing lists.
func TestPolicyRules(t *testing.T) {
	checkPolicies(t, []policyRow{
		{"one rule {} allows everything", "{ingress: [{}]}", "pods *, Ingress, in 0: everybody at every port", nil},
		{"from nil or []: everybody", "{ingress: [{from: null}, {from: []}]}", "pods *, Ingress, in 0: everybody at every port, in 1: everybody at every port", nil},
		{"to nil or []: everybody", "{policyTypes: [Egress], egress: [{to: null}, {to: []}]}", "pods *, Egress, out 0: everybody at every port, out 1: everybody at every port", nil},
		{"ports nil or []: every port", "{ingress: [{ports: null}, {ports: []}]}", "pods *, Ingress, in 0: everybody at every port, in 1: everybody at every port", nil},
		{"ports and peers of a rule", "{ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}]}",
			"pods *, Ingress, in 0: 0:pods * or 1:10.0.0.0/8 at 0:80/TCP or 1:53/UDP", nil},
		{"rules keep their places", "{policyTypes: [Ingress, Egress], ingress: [{colour: red}, {}], egress: [{}, {ports: [{port: 0}]}]}",
			"pods *, Ingress, Egress, in 1: everybody at every port, out 0: everybody at every port, out 1: everybody at no port",
			[]string{`UnknownField: spec.ingress[0].colour: `, `InvalidPort: spec.egress[1].ports[0].port: `}},
	})
}

// TestPolicyPorts is what of sections 1.1 and 1.2 is about ports. The rest of the
// line is left out.
func TestPolicyPorts(t *testing.T) {
	const none, until = "no port", "; until then this port means no port"
	rows := []policyRow{
		{"protocol nil: TCP", "[{port: 80}]", "0:80/TCP", nil},
		{"protocols", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}, {port: 80, protocol: SCTP}]", "0:80/TCP or 1:80/UDP or 2:80/SCTP", nil},
		{"port nil: all of the protocol only", "[{protocol: UDP}, {}, {protocol: SCTP, port: null}]", "0:any/UDP or 1:any/TCP or 2:any/SCTP", nil},
		{"endPort", "[{port: 80, endPort: 90}, {port: 1, endPort: 65535, protocol: SCTP}]", "0:80-90/TCP or 1:1-65535/SCTP", nil},
		{"endPort as port", "[{port: 80, endPort: 80, protocol: UDP}]", "0:80/UDP", nil},
		{"a name", "[{port: http}, {port: dns, protocol: UDP}]", "0:http/TCP or 1:dns/UDP", nil},

		{"no protocol of ports", "[{port: 80, protocol: ICMP}, {port: 80, protocol: tcp}, {port: 80, protocol: ''}]", none, []string{
			`InvalidProtocol: spec.ingress[0].ports[0].protocol: "ICMP" is not a protocol of ports; use TCP, UDP or SCTP` + until,
			`InvalidProtocol: spec.ingress[0].ports[1].protocol: "tcp" is not`, `InvalidProtocol: spec.ingress[0].ports[2].protocol: "" is not`,
		}},
		{"no number of a port", "[{port: 0}, {port: -1}, {port: 65536}]", none, []string{
			`InvalidPort: spec.ingress[0].ports[0].port: "0" is not a port number; use a number from 1 to 65535` + until,
			`InvalidPort: spec.ingress[0].ports[1].port: "-1" is not`, `InvalidPort: spec.ingress[0].ports[2].port: "65536" is not`,
		}},
		{"no name of a port", "[{port: '80'}, {port: ''}, {port: HTTP}, {port: a-name-of-more-than-fifteen}]", none, []string{
			`InvalidPort: spec.ingress[0].ports[0].port: "80" is not the name of a port; write a number without quotes, or the name of a container's port` + until,
			`InvalidPort: spec.ingress[0].ports[1].port: "" is not`, `InvalidPort: spec.ingress[0].ports[2].port: "HTTP" is not`, `InvalidPort: spec.ingress[0].ports[3].port: "a-name`,
		}},
		{"endPort before port, or beyond", "[{port: 80, endPort: 79}, {port: 80, endPort: 65536}, {port: 80, endPort: 0}]", none, []string{
			`InvalidPort: spec.ingress[0].ports[0].endPort: "79" is not a port number from port upwards; use a number from 80 to 65535` + until,
			`InvalidPort: spec.ingress[0].ports[1].endPort: "65536" is not`, `InvalidPort: spec.ingress[0].ports[2].endPort: "0" is not`,
		}},
		{"endPort without a number", "[{endPort: 90}, {port: http, endPort: 90}]", none, []string{
			`InvalidPort: spec.ingress[0].ports[0].endPort: "90" needs a number to begin at; write a number as port, or remove endPort` + until,
			`InvalidPort: spec.ingress[0].ports[1].endPort: "90" needs`,
		}},
		{"the others stay", "[{port: 0}, {port: 80}]", "1:80/TCP", []string{`InvalidPort: spec.ingress[0].ports[0].port: "0" is not`}},
	}
	for i := range rows {
		rows[i].spec = "{ingress: [{ports: " + rows[i].spec + "}]}"
		rows[i].want = "pods *, Ingress, in 0: everybody at " + rows[i].want
	}
	checkPolicies(t, rows)
}

// TestPolicyPeers is what of section 1.1 is about peers, and row 7 of section 2.
func TestPolicyPeers(t *testing.T) {
	const none, until = "nobody", "; until then this peer means nobody"
	rows := []policyRow{
		{"podSelector: pods of the policy's namespace", "[{podSelector: {matchLabels: {a: '1'}}}]", "0:pods a=1", nil},
		{"podSelector {}: all of them", "[{podSelector: {}}]", "0:pods *", nil},
		{"namespaceSelector: all pods of namespaces", "[{namespaceSelector: {matchLabels: {tier: '1'}}}]", "0:in namespaces tier=1", nil},
		{"namespaceSelector {}: all pods of all namespaces, nobody else", "[{namespaceSelector: {}}]", "0:in namespaces *", nil},
		{"both: AND", "[{podSelector: {matchLabels: {a: '1'}}, namespaceSelector: {matchLabels: {tier: '1'}}}]", "0:pods a=1 in namespaces tier=1", nil},
		{"with a dash: OR", "[{podSelector: {matchLabels: {a: '1'}}}, {namespaceSelector: {matchLabels: {tier: '1'}}}]", "0:pods a=1 or 1:in namespaces tier=1", nil},
		{"nil beside {}", "[{podSelector: null, namespaceSelector: {}}, {podSelector: {}, namespaceSelector: null}]", "0:in namespaces * or 1:pods *", nil},

		{"ipBlock", "[{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: '2001:db8::/32'}}]", "0:10.0.0.0/8 or 1:2001:db8::/32", nil},
		{"everywhere", "[{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]", "0:0.0.0.0/0 or 1:::/0", nil},
		{"one address", "[{ipBlock: {cidr: 192.0.2.1/32}}, {ipBlock: {cidr: '2001:db8::1/128'}}]", "0:192.0.2.1/32 or 1:2001:db8::1/128", nil},
		{"host bits", "[{ipBlock: {cidr: 10.1.2.3/8, except: [10.4.5.6/16]}}]", "0:10.0.0.0/8 but [10.4.0.0/16]", nil},
		{"IPv4 in the form of IPv6", "[{ipBlock: {cidr: '::ffff:10.0.0.0/104', except: ['::ffff:10.1.0.0/112', 10.1.0.0/16]}}]", "0:10.0.0.0/8 but [10.1.0.0/16]", nil},
		{"old objects' leading zeros", "[{ipBlock: {cidr: 010.0.0.0/8}}]", "0:10.0.0.0/8", nil},
		{"except", "[{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16, 0.0.0.0/1]}}]", "0:0.0.0.0/0 but [10.0.0.0/8 192.168.0.0/16 0.0.0.0/1]", nil},
		{"what one excepts another allows", "[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.1.0.0/16}}]", "0:10.0.0.0/8 but [10.1.0.0/16] or 1:10.1.0.0/16", nil},

		{"no field", "[{}]", none, []string{`InvalidPeer: spec.ingress[0].from[0]: "{}" has no field; add a podSelector, a namespaceSelector or an ipBlock` + until}},
		{"null", "[null]", none, []string{`InvalidPeer: spec.ingress[0].from[0]: "{}" has no field`}},
		{"a field that is not known looks the same", "[{serviceSelector: {}}]", none,
			[]string{`UnknownField: spec.ingress[0].from[0].serviceSelector: "serviceSelector" is not a field that is known here; correct its name or its indentation, or upgrade; until then this peer means nobody`}},
		{"ipBlock and selectors", "[{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}]", none, []string{
			`InvalidPeer: spec.ingress[0].from[0]: "{\"podSelector\":{},\"ipBlock\":{\"cidr\":\"10.0.0.0/8\"}}" has both an ipBlock and selectors; make two peers of it` + until, `InvalidPeer: spec.ingress[0].from[1]`,
		}},
		{"selectors that select by nothing known", "[{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}, {namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}]", none, []string{
			`InvalidSelector: spec.ingress[0].from[0].podSelector: "{\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Gt\",\"values\":[\"1\"]}]}" cannot be used: `, `InvalidSelector: spec.ingress[0].from[1].namespaceSelector: `,
		}},
		{"one bad selector of two", "[{podSelector: {}, namespaceSelector: {matchLabels: {'': x}}}, {podSelector: {matchLabels: {a: '-'}}, namespaceSelector: {}}]", none,
			[]string{`InvalidSelector: spec.ingress[0].from[0].namespaceSelector: `, `InvalidSelector: spec.ingress[0].from[1].podSelector: `}},
		{"no CIDR", "[{ipBlock: {cidr: 10.0.0.1}}, {ipBlock: {cidr: 10.0.0.0/33}}, {ipBlock: {}}, {ipBlock: {cidr: ' 10.0.0.0/8'}}, {ipBlock: {cidr: 'fe80::%eth0/64'}}]", none, []string{
			`InvalidIPBlock: spec.ingress[0].from[0].ipBlock.cidr: "10.0.0.1" is not a CIDR; write it as a CIDR, such as "10.0.0.0/8"` + until,
			`InvalidIPBlock: spec.ingress[0].from[1].ipBlock.cidr: "10.0.0.0/33"`, `InvalidIPBlock: spec.ingress[0].from[2].ipBlock.cidr: ""`,
			`InvalidIPBlock: spec.ingress[0].from[3].ipBlock.cidr: " 10.0.0.0/8"`, `InvalidIPBlock: spec.ingress[0].from[4].ipBlock.cidr: "fe80::%eth0/64"`,
		}},
		{"except that is no CIDR: not the rest without it", "[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, x]}}]", none, []string{`InvalidIPBlock: spec.ingress[0].from[0].ipBlock.except[1]: "x" is not a CIDR`}},
		{"except that is not strictly inside", "[{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}, {ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}, {ipBlock: {cidr: 0.0.0.0/0, except: ['2001:db8::/32']}}]", none, []string{
			`InvalidIPBlock: spec.ingress[0].from[0].ipBlock.except[0]: "10.0.0.0/8" is not strictly inside 10.0.0.0/8; use a range inside of it, or remove it` + until,
			`InvalidIPBlock: spec.ingress[0].from[1].ipBlock.except[0]: "0.0.0.0/0" is not`, `InvalidIPBlock: spec.ingress[0].from[2].ipBlock.except[0]: "11.0.0.0/16" is not`,
			`InvalidIPBlock: spec.ingress[0].from[3].ipBlock.except[0]: "2001:db8::/32" is not`,
		}},
		{"the others stay", "[{}, {ipBlock: {cidr: x}}, {podSelector: {}}]", "2:pods *", []string{`InvalidPeer: spec.ingress[0].from[0]: `, `InvalidIPBlock: spec.ingress[0].from[1].ipBlock.cidr: `}},
	}
	for i := range rows {
		rows[i].spec = "{ingress: [{from: " + rows[i].spec + "}]}"
		rows[i].want = "pods *, Ingress, in 0: " + rows[i].want + " at every port"
	}
	checkPolicies(t, rows)
}

// TestPolicyUnknownFields: what a newer API may have added never widens a policy.
func TestPolicyUnknownFields(t *testing.T) {
	const why = " is not a field that is known here; correct its name or its indentation, or upgrade; until then "
	checkPolicies(t, []policyRow{
		{"the famous one: namespaceSelector without to", "{policyTypes: [Egress], egress: [{namespaceSelector: {}, ports: [{port: 53}]}]}", "pods *, Egress",
			[]string{`UnknownField: spec.egress[0].namespaceSelector: "namespaceSelector"` + why + "this rule allows nothing"}},
		{"in a rule: the others stay", "{ingress: [{form: [{podSelector: {}}]}, {from: [{podSelector: {}}]}]}", "pods *, Ingress, in 1: 0:pods * at every port",
			[]string{`UnknownField: spec.ingress[0].form: "form"` + why + "this rule allows nothing"}},
		{"in a peer", "{ingress: [{from: [{podSelector: {}, zone: a}, {podSelector: {}}]}]}", "pods *, Ingress, in 0: 1:pods * at every port",
			[]string{`UnknownField: spec.ingress[0].from[0].zone: "zone"` + why + "this peer means nobody"}},
		{"in the only peer", "{policyTypes: [Egress], egress: [{to: [{podSelector: {}, zone: a}]}]}", "pods *, Egress, out 0: nobody at every port",
			[]string{`UnknownField: spec.egress[0].to[0].zone: "zone"` + why}},
		{"in a peer's selector", "{ingress: [{from: [{podSelector: {matchName: web}}, {namespaceSelector: {matchExpressions: [{key: a, operator: Exists, fold: true}]}}]}]}", "pods *, Ingress, in 0: nobody at every port",
			[]string{`UnknownField: spec.ingress[0].from[0].podSelector.matchName: "matchName"` + why + "this peer means nobody", `UnknownField: spec.ingress[0].from[1].namespaceSelector.matchExpressions[0].fold`}},
		{"in an ipBlock", "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, only: [10.1.0.0/16]}}]}]}", "pods *, Ingress, in 0: nobody at every port",
			[]string{`UnknownField: spec.ingress[0].from[0].ipBlock.only: "only"` + why + "this peer means nobody"}},
		{"in a port", "{ingress: [{ports: [{port: 80, l7: GET}, {port: 81}]}]}", "pods *, Ingress, in 0: everybody at 1:81/TCP",
			[]string{`UnknownField: spec.ingress[0].ports[0].l7: "l7"` + why + "this port means no port"}},
		{"in the only port", "{ingress: [{ports: [{l7: GET}]}]}", "pods *, Ingress, in 0: everybody at no port", []string{`UnknownField: spec.ingress[0].ports[0].l7: `}},
		{"elsewhere: it isolates and allows nothing", "{action: Deny, ingress: [{}], egress: [{}]}", "pods *, Ingress, Egress",
			[]string{`UnknownField: spec.action: "action"` + why + "the policy allows nothing"}},
		{"in its podSelector", "{podSelector: {matchLabels: {a: '1'}, matchName: web}, ingress: [{}]}", "pods a=1, Ingress",
			[]string{`UnknownField: spec.podSelector.matchName: "matchName"` + why + "the policy allows nothing"}},
		{"in capitals", "{Ingress: [{}]}", "pods *, Ingress", []string{`UnknownField: spec.Ingress: "Ingress"` + why + "the policy allows nothing"}},
	})
}

// TestPolicyUnknownElsewhere: a status, as servers of old wrote it, and metadata
// say nothing of traffic.
func TestPolicyUnknownElsewhere(t *testing.T) {
	given, _ := readPolicy(t, "{ingress: [{}]}")
	np, ok, problems := NetworkPolicy(given, []string{"status", "metadata.colour", "specs"})
	if got := policyLine(t, np); !ok || problems != nil || got != "pods *, Ingress, in 0: everybody at every port" {
		t.Errorf("%s, problems %v", got, problems)
	}
}

// TestPolicyManyUnknownFields: a decoder stops counting at a hundred; what comes
// behind may be unknown too.
func TestPolicyManyUnknownFields(t *testing.T) {
	var rules []string
	for i := range 200 {
		rules = append(rules, fmt.Sprintf("{from: [{podSelector: {}, f%d: 1}]}", i))
	}
	given, unknown := readPolicy(t, "{ingress: ["+strings.Join(rules, ", ")+"]}")
	np, ok, problems := NetworkPolicy(given, unknown)
	if got := policyLine(t, np); !ok || got != "pods *, Ingress" {
		t.Errorf("of %d unknown fields of 200: %s", len(unknown), got)
	}
	if len(problems) != maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
}

// TestPolicyOddNumber: what no JSON can say and Go can.
func TestPolicyOddNumber(t *testing.T) {
	given, _ := readPolicy(t, "{ingress: [{ports: [{port: 80}]}]}")
	given.Spec.Ingress[0].Ports[0].Port = &intstr.IntOrString{Type: 7, IntVal: 0, StrVal: "http"}
	np, _, problems := NetworkPolicy(given, nil)
	if got := policyLine(t, np); got != "pods *, Ingress, in 0: everybody at no port" || len(problems) != 1 {
		t.Errorf("%s, problems %v", got, problems)
	}
}

func TestPolicyIsNotShared(t *testing.T) {
	given, _ := readPolicy(t, "{podSelector: {matchExpressions: [{key: a, operator: In, values: [x]}]}}")
	np, _, _ := NetworkPolicy(given, nil)
	given.Spec.PodSelector.MatchExpressions[0].Values[0] = "changed"
	if got := policyLine(t, np); got != "pods a=x, Ingress" {
		t.Errorf("changed with the object: %s", got)
	}
}

func BenchmarkNetworkPolicy(b *testing.B) {
	given, _ := readPolicy(b, "{podSelector: {matchLabels: {a: '1'}}, ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80}, {port: http}]}]}")
	b.ReportAllocs()
	for b.Loop() {
		NetworkPolicy(given, nil)
	}
}
