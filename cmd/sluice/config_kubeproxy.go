package main

import (
	"errors"
	"strconv"

	"github.com/spf13/pflag"
)

// kubeProxyFlags are those of kube-proxy that are other words for flags of ours,
// or have no effect. They are there so that its command lines work here; help
// does not show them.
func (c *config) kubeProxyFlags(f *pflag.FlagSet) {
	f.StringVar(&c.service.mode, "proxy-mode", "", whyOf("mode"))
	f.StringVar(&c.serve.bind, "bind-address", "0.0.0.0", whyOf("bindAddress"))
	f.IntVarP(&c.logging.verbosity, "v", "v", 0, "4 and more: --log-level=debug")
	f.StringVar(&c.logging.format, "logging-format", "text", "json: --log-json")
	f.DurationVar(&c.audit, "ipvs-sync-period", c.audit, "another name of --audit-period")
	for _, name := range []string{"proxy-mode", "bind-address", "v", "logging-format", "ipvs-sync-period"} {
		f.Lookup(name).Hidden = true
	}
	for _, u := range unusedFlags() {
		if u.why == "" {
			u.why = whyOf(u.field)
		}
		flag := f.VarPF(&u, u.name, "", u.why)
		flag.Hidden = true
		if u.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
	for _, r := range otherCommands() {
		flag := f.VarPF(&r, r.name, "", "use `"+r.use+"`")
		flag.Hidden = true
		if r.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// sameAs is the flag of which another is only another name; "": none.
func sameAs(flag string) string {
	if flag == "ipvs-sync-period" {
		return "audit-period"
	}
	return ""
}

// unused is a flag of kube-proxy that has no effect here.
type unused struct {
	name, kind string
	field      string // of the KubeProxyConfiguration, which says why
	why        string
	text       string // as given
}

func unusedFlags() []unused {
	const cadvisor = "the machine is not asked who it is"
	return []unused{
		{name: "bind-address-hard-fail", kind: "bool", field: "bindAddressHardFail"},
		{name: "boot-id-file", kind: "string", why: cadvisor},
		{name: "machine-id-file", kind: "string", why: cadvisor},
		{name: "config-sync-period", kind: "duration", field: "configSyncPeriod"},
		{name: "feature-gates", kind: "mapStringBool", field: "featureGates"},
		{name: "healthz-port", kind: "int32", why: "it is deprecated: use --healthz-bind-address"},
		{name: "metrics-port", kind: "int32", why: "it is deprecated: use --metrics-bind-address"},
		{name: "iptables-localhost-nodeports", kind: "bool", field: "iptables.localhostNodePorts"},
		{name: "iptables-min-sync-period", kind: "duration", field: "iptables.minSyncPeriod"},
		{name: "iptables-sync-period", kind: "duration", why: "it is for the mode iptables; --audit-period is the time between two audits"},
		{name: "ipvs-exclude-cidrs", kind: "strings", field: "ipvs.excludeCIDRs"},
		{name: "ipvs-min-sync-period", kind: "duration", field: "ipvs.minSyncPeriod"},
		{name: "kube-api-content-type", kind: "string", field: "clientConnection.contentType"},
		{name: "log-flush-frequency", kind: "duration", field: "logging.flushFrequency"},
		{name: "log-json-info-buffer-size", kind: "quantity", field: "logging.options.json.infoBufferSize"},
		{name: "log-json-split-stream", kind: "bool", field: "logging.options.json.splitStream"},
		{name: "log-text-info-buffer-size", kind: "quantity", field: "logging.options.text.infoBufferSize"},
		{name: "log-text-split-stream", kind: "bool", field: "logging.options.text.splitStream"},
		{name: "oom-score-adj", kind: "int32", field: "oomScoreAdj"},
		{name: "show-hidden-metrics-for-version", kind: "string", field: "showHiddenMetricsForVersion"},
		{name: "vmodule", kind: "pattern=N,...", field: "logging.vmodule"},
	}
}

// Set implements pflag.Value.
func (u *unused) Set(text string) error { u.text = text; return nil }

// String implements pflag.Value.
func (u *unused) String() string { return u.text }

// Type implements pflag.Value.
func (u *unused) Type() string { return u.kind }

// otherCommand is a flag that has kube-proxy do something else than serve. To
// serve instead would be no answer to it.
type otherCommand struct{ name, kind, use string }

func otherCommands() []otherCommand {
	return []otherCommand{
		{"cleanup", "bool", "sluice cleanup"},
		{"write-config-to", "string", "sluice run --print-config"},
		{"version", "bool", "sluice version"},
	}
}

// Set implements pflag.Value.
func (o *otherCommand) Set(text string) error {
	if on, err := strconv.ParseBool(text); err == nil && !on {
		return nil
	}
	return errors.New("use `" + o.use + "`")
}

// String implements pflag.Value.
func (o *otherCommand) String() string { return "" }

// Type implements pflag.Value.
func (o *otherCommand) Type() string { return o.kind }
