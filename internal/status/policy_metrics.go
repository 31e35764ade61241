package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Enforced takes note of how long a change of what policies want of the rules
// took to stand in the kernel.
func (m *Meter) Enforced(took time.Duration) { m.enforced.Observe(max(took, 0).Seconds()) }

// policyCollector shows what policies want and what they deny.
type policyCollector struct {
	policy *Policy
	meter  *Meter // nil: nobody measures

	policies, pods, isolated, classes, sets *prometheus.Desc
	denied, byPolicy, others, revoked       *prometheus.Desc
}

func newPolicyCollector(p *Policy, m *Meter) *policyCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_policy_"+name, help, labels, nil)
	}
	return &policyCollector{
		policy: p, meter: m,
		policies: desc("policies", "NetworkPolicies that isolate a pod of this node."),
		pods:     desc("pods", "Pods of this node that policies can select."),
		isolated: desc("isolated_pods", "Of these, those that a policy isolates.", "direction"),
		classes:  desc("classes", "Chains of rules that isolated pods are under; what means the same shares one."),
		sets:     desc("sets", "Sets of peers and named ports that the rules look into."),
		denied:   desc("denied_packets_total", "Denied packets that the kernel told of, which is a few of each flow.", "side"),
		byPolicy: desc("denied_packets_by_policy_total",
			"The same, once for each policy that isolates the pod of the side that denied.", "side", "policy"),
		others:  desc("denied_packets_by_other_policies_total", "The same, of policies that are not shown since there are too many."),
		revoked: desc("revoked_connections_total", "Connections that were stopped since policies do not allow them any more."),
	}
}

// Describe implements prometheus.Collector.
func (c *policyCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.policies, c.pods, c.isolated, c.classes, c.sets, c.denied, c.byPolicy, c.others, c.revoked,
	} {
		out <- d
	}
	if c.meter != nil {
		c.meter.enforced.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (c *policyCollector) Collect(out chan<- prometheus.Metric) {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	emit := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	s := c.policy.Status()
	emit(c.policies, gauge, float64(s.Policies))
	emit(c.pods, gauge, float64(s.LocalPods))
	emit(c.isolated, gauge, float64(s.IsolatedIngress), "ingress")
	emit(c.isolated, gauge, float64(s.IsolatedEgress), "egress")
	emit(c.classes, gauge, float64(s.Classes))
	emit(c.sets, gauge, float64(s.Sets))
	counts := c.policy.Denials.Counts()
	for side, n := range counts.Sides {
		emit(c.denied, counter, float64(n), side)
	}
	for d, n := range counts.Policies {
		emit(c.byPolicy, counter, float64(n), d.Side, d.Policy.String())
	}
	emit(c.others, counter, float64(counts.Others))
	emit(c.revoked, counter, float64(c.policy.Revoked()))
	if c.meter != nil {
		c.meter.enforced.Collect(out)
	}
}
