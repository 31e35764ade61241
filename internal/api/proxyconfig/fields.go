package proxyconfig

// Field is what becomes of one field of a KubeProxyConfiguration.
type Field struct {
	Path string // as in the file, such as "ipvs.scheduler"
	// Flag of `sluice run` that does what the field says; "": the field is
	// ignored.
	Flag string
	// Why it is ignored; of one that is not, what differs from kube-proxy.
	Why string
	// Modes in which kube-proxy reads it, if it is ignored in others.
	Modes []string
}

// Modes of kube-proxy. The empty one stands for iptables there.
const (
	ModeIPVS     = "ipvs"
	ModeIPTables = "iptables"
	ModeNFTables = "nftables"
)

// Reasons that several fields share.
const (
	whyAtOnce   = "changes are written at once, and in one batch if there are many"
	whyWindows  = "it is for Windows nodes"
	whyOtherNFT = "it is for the mode nftables"
)

// Fields are all fields of a KubeProxyConfiguration, in the order of its type.
func Fields() []Field {
	return append(generalFields(), append(modeFields(), nodeFields()...)...)
}

func generalFields() []Field {
	return []Field{
		{Path: "featureGates", Why: "they switch kube-proxy's features, not Sluice's"},
		{Path: "clientConnection.kubeconfig", Flag: "kubeconfig"},
		{Path: "clientConnection.acceptContentTypes", Why: "protobuf where the API server has it, JSON for our own kinds"},
		{Path: "clientConnection.contentType", Why: "protobuf where the API server has it, JSON for our own kinds"},
		{Path: "clientConnection.qps", Flag: "kube-api-qps"},
		{Path: "clientConnection.burst", Flag: "kube-api-burst"},
		{Path: "logging.format", Flag: "logging-format"},
		{Path: "logging.flushFrequency", Why: "lines are not buffered"},
		{Path: "logging.verbosity", Flag: "v", Why: "4 and more is debug"},
		{Path: "logging.vmodule", Why: "there is one log level for all"},
		{Path: "logging.options.text.splitStream", Why: "all lines go to stderr"},
		{Path: "logging.options.text.infoBufferSize", Why: "lines are not buffered"},
		{Path: "logging.options.json.splitStream", Why: "all lines go to stderr"},
		{Path: "logging.options.json.infoBufferSize", Why: "lines are not buffered"},
		{Path: "hostnameOverride", Flag: "hostname-override"},
		{Path: "bindAddress", Flag: "bind-address", Why: "only its family counts, for the default bind addresses; the node's addresses are taken from its interfaces"},
		{Path: "healthzBindAddress", Flag: "healthz-bind-address"},
		{Path: "metricsBindAddress", Flag: "metrics-bind-address"},
		{Path: "bindAddressHardFail", Why: "an address that cannot be bound is tried again: Services do not depend on it"},
		{Path: "enableProfiling", Flag: "profiling"},
		{Path: "showHiddenMetricsForVersion", Why: "no metric is hidden"},
		{Path: "mode", Flag: "proxy-mode", Why: "Services are virtual servers of IPVS in every mode"},
	}
}

func modeFields() []Field {
	iptables := []string{ModeIPTables, ModeIPVS}
	nftables := []string{ModeNFTables}
	return []Field{
		{Path: "iptables.masqueradeBit", Flag: "iptables-masquerade-bit", Modes: iptables},
		{Path: "iptables.masqueradeAll", Flag: "masquerade-all", Modes: iptables},
		{Path: "iptables.localhostNodePorts", Why: "as in kube-proxy's mode ipvs, no NodePort is served at the node's loopback addresses"},
		{Path: "iptables.syncPeriod", Why: "it is for the mode iptables; ipvs.syncPeriod is the time between two audits"},
		{Path: "iptables.minSyncPeriod", Why: whyAtOnce},
		{Path: "ipvs.syncPeriod", Flag: "audit-period"},
		{Path: "ipvs.minSyncPeriod", Why: whyAtOnce},
		{Path: "ipvs.scheduler", Flag: "ipvs-scheduler"},
		{Path: "ipvs.excludeCIDRs", Why: "a virtual server that Sluice did not make is never touched, wherever its address is"},
		{Path: "ipvs.strictARP", Flag: "ipvs-strict-arp"},
		{Path: "ipvs.tcpTimeout", Flag: "ipvs-tcp-timeout", Why: "0s is the flag's default, and not the kernel's value"},
		{Path: "ipvs.tcpFinTimeout", Flag: "ipvs-tcpfin-timeout"},
		{Path: "ipvs.udpTimeout", Flag: "ipvs-udp-timeout"},
		{Path: "nftables.masqueradeBit", Flag: "iptables-masquerade-bit", Modes: nftables},
		{Path: "nftables.masqueradeAll", Flag: "masquerade-all", Modes: nftables},
		{Path: "nftables.syncPeriod", Why: whyOtherNFT + "; ipvs.syncPeriod is the time between two audits"},
		{Path: "nftables.minSyncPeriod", Why: whyAtOnce},
		{Path: "winkernel.networkName", Why: whyWindows},
		{Path: "winkernel.sourceVip", Why: whyWindows},
		{Path: "winkernel.enableDSR", Why: whyWindows},
		{Path: "winkernel.rootHnsEndpointName", Why: whyWindows},
		{Path: "winkernel.forwardHealthCheckVip", Why: whyWindows},
	}
}

func nodeFields() []Field {
	return []Field{
		{Path: "detectLocalMode", Flag: "detect-local-mode"},
		{Path: "detectLocal.bridgeInterface", Flag: "pod-bridge-interface"},
		{Path: "detectLocal.interfaceNamePrefix", Flag: "pod-interface-name-prefix"},
		{Path: "clusterCIDR", Flag: "cluster-cidr"},
		{Path: "nodePortAddresses", Flag: "nodeport-addresses", Why: "unset: the primary address of each family, as in kube-proxy's mode nftables, and not all addresses"},
		{Path: "oomScoreAdj", Why: "the kubelet sets it, by the pod's priority class"},
		{Path: "conntrack.maxPerCore", Flag: "conntrack-max-per-core"},
		{Path: "conntrack.min", Flag: "conntrack-min"},
		{Path: "conntrack.tcpEstablishedTimeout", Flag: "conntrack-tcp-timeout-established"},
		{Path: "conntrack.tcpCloseWaitTimeout", Flag: "conntrack-tcp-timeout-close-wait"},
		{Path: "conntrack.tcpBeLiberal", Flag: "conntrack-tcp-be-liberal"},
		{Path: "conntrack.udpTimeout", Flag: "conntrack-udp-timeout"},
		{Path: "conntrack.udpStreamTimeout", Flag: "conntrack-udp-timeout-stream"},
		{Path: "configSyncPeriod", Why: "objects are watched, and not read again while the watch stands"},
		{Path: "portRange", Why: "kube-proxy does not use it either"},
		{Path: "windowsRunAsService", Why: whyWindows},
	}
}
