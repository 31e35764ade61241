package proxyconfig

import (
	"fmt"
	"strings"
	"testing"
)

const agentHead = "apiVersion: config.sluice.dev/v1alpha1\nkind: AgentConfiguration\n"

func someKeys() Keys {
	return Keys{
		"clusterCIDR":    {"cluster-cidr", "stringSlice"},
		"ipvsTCPTimeout": {"ipvs-tcp-timeout", "duration"},
		"enablePolicy":   {"enable-policy", "bool"},
		"kubeAPIBurst":   {"kube-api-burst", "int"},
		"kubeAPIQPS":     {"kube-api-qps", "float32"},
		"policyLogGroup": {"policy-log-group", "uint16"},
		"logLevel":       {"log-level", "string"},
		"device":         {"device", "string"},
	}
}

// TestKeyOf pins the names that stand in people's files.
func TestKeyOf(t *testing.T) {
	for flag, want := range map[string]string{
		"cluster-cidr": "clusterCIDR", "ipvs-tcp-timeout": "ipvsTCPTimeout", "ipvs-tcpfin-timeout": "ipvsTCPFinTimeout", "ipvs-udp-timeout": "ipvsUDPTimeout",
		"bgp-on-stop": "bgpOnStop", "ipvs-strict-arp": "ipvsStrictARP", "allow-external-ips": "allowExternalIPs", "log-json": "logJSON",
		"kube-api-qps": "kubeAPIQPS", "kubeconfig": "kubeconfig", "nodeport-addresses": "nodePortAddresses", "conntrack-tcp-be-liberal": "conntrackTCPBeLiberal",
		"reserved-cidrs": "reservedCIDRs", "hostname-override": "hostnameOverride",
	} {
		if got := KeyOf(flag); got != want {
			t.Errorf("--%s is %s, want %s", flag, got, want)
		}
	}
}

func TestAgentConfiguration(t *testing.T) {
	docs, err := Read("f", []byte(agentHead+`
clusterCIDR: [10.244.0.0/16, "fd00::/48"]
ipvsTCPTimeout: 2h
enablePolicy: false
kubeAPIBurst: 7
kubeAPIQPS: 0.5
policyLogGroup: 3
logLevel: debug
device: "0"
`), someKeys())
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range docs[0].Settings {
		fmt.Fprintf(&got, "%s: --%s %q\n", s.At, s.Flag, s.Values)
	}
	want := `f:4: clusterCIDR: --cluster-cidr ["10.244.0.0/16" "fd00::/48"]
f:5: ipvsTCPTimeout: --ipvs-tcp-timeout ["2h"]
f:6: enablePolicy: --enable-policy ["false"]
f:7: kubeAPIBurst: --kube-api-burst ["7"]
f:8: kubeAPIQPS: --kube-api-qps ["0.5"]
f:9: policyLogGroup: --policy-log-group ["3"]
f:10: logLevel: --log-level ["debug"]
f:11: device: --device ["0"]
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
}

// TestAgentConfigurationIsStrict: each mistake is named with its place and what
// to do.
func TestAgentConfigurationIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"clusterCidr: [10.0.0.0/8]":           "f:3: clusterCidr: unknown field; use clusterCIDR",
		"cluster-cidr: [10.0.0.0/8]":          "f:3: cluster-cidr: unknown field; use clusterCIDR",
		"logLevle: info":                      "f:3: logLevle: unknown field; use logLevel",
		"spec: {}":                            "f:3: spec: unknown field; docs/configuration.md has the list, and sluice run --help the flags it is made of",
		"logLevel: info\nlogLevel: debug":     "f:4: logLevel: it stands in line 3 already; say it once",
		"logLevel:":                           "f:3: logLevel: it has no value; leave it out to have the default",
		"logLevel: 5":                         `f:3: logLevel: "5": use a text, in quotes if it looks like something else`,
		"logLevel: [info]":                    "f:3: logLevel: a list: use a text, in quotes if it looks like something else",
		"enablePolicy: \"true\"":              `f:3: enablePolicy: "true": use true or false, without quotes`,
		"enablePolicy: yes":                   `f:3: enablePolicy: "yes": use true or false, without quotes`,
		"kubeAPIBurst: 7.5":                   `f:3: kubeAPIBurst: "7.5": use a whole number, without quotes`,
		"kubeAPIBurst: \"7\"":                 `f:3: kubeAPIBurst: "7": use a whole number, without quotes`,
		"kubeAPIQPS: fast":                    `f:3: kubeAPIQPS: "fast": use a number, without quotes`,
		"ipvsTCPTimeout: 30":                  `f:3: ipvsTCPTimeout: "30": use a time with its unit, such as 30s or 5m`,
		"ipvsTCPTimeout: soon":                `f:3: ipvsTCPTimeout: "soon": use a time with its unit, such as 30s or 5m`,
		"clusterCIDR: 10.0.0.0/8":             `f:3: clusterCIDR: "10.0.0.0/8": use a list of texts, such as [10.244.0.0/16]`,
		"clusterCIDR:\n- 10.0.0.0/8\n- 7":     `f:3: clusterCIDR: "7" in line 5 of the document: use a list of texts, such as [10.244.0.0/16]`,
		"clusterCIDR: {a: b}":                 "f:3: clusterCIDR: an object: use a list of texts, such as [10.244.0.0/16]",
		"device: x\nenablePolicy: 1\nwhat: 1": "f:4: enablePolicy: \"1\": use true or false, without quotes\nf:5: what: unknown field; docs/configuration.md has the list, and sluice run --help the flags it is made of",
	} {
		_, err := Read("f", []byte(agentHead+text+"\n"), someKeys())
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", text, err, want)
		}
	}
	if _, err := Read("f", []byte(agentHead+"ipvsTCPTimeout: 0\n"), someKeys()); err != nil {
		t.Errorf("0 needs no unit: %v", err)
	}
}

func TestDocuments(t *testing.T) {
	both := kubeProxyHead + "clusterCIDR: 10.0.0.0/8\n---\n# ours\n" + agentHead + "device: d0\n"
	for _, c := range []struct{ name, text, want string }{
		{"both", both, "KubeProxyConfiguration 10.0.0.0/8 f:3; AgentConfiguration d0 f:8"},
		{"both, the other way", agentHead + "device: d0\n--- \n" + kubeProxyHead + "clusterCIDR: 10.0.0.0/8\n", "AgentConfiguration d0 f:3; KubeProxyConfiguration 10.0.0.0/8 f:7"},
		{"marks around", "---\n" + both + "---\n\n---\n# nothing\n", "KubeProxyConfiguration 10.0.0.0/8 f:4; AgentConfiguration d0 f:9"},
		{"DOS line ends", strings.ReplaceAll(both, "\n", "\r\n"), "KubeProxyConfiguration 10.0.0.0/8 f:3; AgentConfiguration d0 f:8"},
		{"nothing", "# nothing\n---\n", "f: there is no document in it; write a KubeProxyConfiguration or an AgentConfiguration"},
		{"a list", "- a\n", "f:1: this is no object; write apiVersion, kind and fields"},
		{"no YAML", agentHead + "device: [\n", "f:1: this is no YAML: yaml: line 3: did not find expected node content (lines counted from there)"},
		{"a ConfigMap", "apiVersion: v1\nkind: ConfigMap\n", `f:1: apiVersion "v1", kind "ConfigMap": give what stands in the ConfigMap at the key config.conf, without the ConfigMap around it`},
		{"another version", "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n",
			`f:1: apiVersion "kubeproxy.config.k8s.io/v1alpha2", kind "KubeProxyConfiguration": of this kind, kubeproxy.config.k8s.io/v1alpha1 is read`},
		{"another version of ours", "apiVersion: config.sluice.dev/v1\nkind: AgentConfiguration\n", `f:1: apiVersion "config.sluice.dev/v1", kind "AgentConfiguration": of this kind, config.sluice.dev/v1alpha1 is read`},
		{"no kind", agentHead + "---\ndevice: x\n",
			`f:4: apiVersion "", kind "": use kind KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, or AgentConfiguration of config.sluice.dev/v1alpha1`},
	} {
		docs, err := Read("f", []byte(c.text), someKeys())
		var got []string
		for _, d := range docs {
			for _, s := range d.Settings {
				got = append(got, fmt.Sprintf("%s %s %s", d.Kind, s.Values[0], s.At.Where()))
			}
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, strings.Join(got, "; "), c.want)
		}
	}
}

// FuzzRead: whatever stands in a file, it is read or refused.
func FuzzRead(f *testing.F) {
	f.Add(kubeProxyHead + "ipvs: {scheduler: lc}\n")
	f.Add(agentHead + "clusterCIDR: [a]\n---\n" + kubeProxyHead)
	f.Add(kubeProxyHead + "ipvs: &a\n  x: *a\n")
	f.Add(kubeProxyHead + "conntrack: {min: [1]}\n<<: {a: b}\n")
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := Read("f", []byte(text), someKeys())
		if len(docs) == 0 && err == nil {
			t.Error("neither read nor refused")
		}
	})
}
