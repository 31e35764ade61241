// Package status serves what the loops publish: Prometheus metrics, health and
// readiness, and text tables for people.
//
//	:10249 (loopback)  /metrics  /proxyMode  /healthz  /state  /connections  /bgp/peers  /bgp/routes
//	                   /services  /services/NAMESPACE/NAME  /names  /policy/explain  /policy/denied
//	:10256             /healthz  /livez      /readyz
//
// # Health
//
// It comes from the state of the kernel's tables (what has failed to reach the
// kernel, and for how long), never from a loop having gone round, and never from
// a table that others can block (Health.Tables).
//
//	           tables   problems  node     for
//	/healthz   judged   judged    judged   load balancers: 503 takes this node out (KEP-3836)
//	/livez     judged   -         -        who would restart the agent, which makes no node eligible
//	/readyz    as wanted now      -        who waits for a start or a change
//	10249's    -        -         -        who asks whether the process answers: "ok"
//
// Problems are what no table knows of: a kernel switch that cannot be set without
// which Services are not served, or that pods sit on a bridge whose packets the
// kernel does not show to rules, so that no NetworkPolicy holds between them.
//
// No session with a router counts, nor the table of sessions and routes: a
// router that is down, or a peer that is configured wrongly, must not take away
// a node that serves all its Services. Who wants to know looks at
// sluice_bgp_session_up.
//
// # Metrics under kube-proxy's names
//
// Dashboards and alerts go on working; what a name means here is what it means
// there, as near as tables that are written one change at a time allow. The
// prefix is kubeproxy_, and f the label ip_family.
//
//	sync_proxy_rules_duration_seconds{f}          from a change of what one Service wants in a family
//	                                              until all tables hold it, the wait behind others
//	                                              included; there: one round for all Services
//	sync_proxy_rules_last_queued_timestamp_seconds{f}
//	                                              when such a change last happened
//	sync_proxy_rules_last_timestamp_seconds{f}    when the judged tables last held all that was wanted:
//	                                              now, or since when a change is missing; one value for
//	                                              all families, whose keys are in the same tables; none
//	                                              before a start is through. So it is old only when
//	                                              something is wrong, as there, where every period is
//	                                              a round
//	network_programming_duration_seconds{f}       the same: from the time that endpoints changed at, by
//	                                              their slice's annotation, until all tables hold it
//	sync_proxy_rules_service_changes_total        the same
//	sync_proxy_rules_service_changes_pending      the same: told of and not worked out yet; what is
//	                                              worked out and not written is sluice_table_pending_keys
//	sync_proxy_rules_endpoint_changes_total       the same
//	sync_proxy_rules_endpoint_changes_pending     the same
//	sync_proxy_rules_no_local_endpoints_total{f,traffic_policy}
//	                                              the same, a gauge: Services (not their ports) whose
//	                                              Local policy finds endpoints, but none here
//	conntrack_reconciler_sync_duration_seconds    the same, without f: one reading covers all families
//	conntrack_reconciler_deleted_entries_total    the same, without f
//	proxy_healthz_total{code}                     the same
//	proxy_livez_total{code}                       the same
//
// Left out, since the value could only be made up:
//
//	sync_full_proxy_rules_duration_seconds        there is one way to write, and it is the
//	sync_partial_proxy_rules_duration_seconds     partial one
//	sync_proxy_rules_iptables_total, _last        rules do not grow with Services: what does is
//	                                              sluice_table_keys{table="netfilter"}
//	sync_proxy_rules_iptables_restore_failures_total, _partial_restore_failures_total
//	                                              sluice_kernel_errors_total{table="netfilter"}
//	sync_proxy_rules_nftables_*, nftables_*       there is no nftables backend
//	iptables_ct_state_invalid_dropped_packets_total, iptables_localhost_nodeports_accepted_packets_total
//	                                              rules that are not made here
//	kubernetes_build_info, kubernetes_feature_enabled
//	                                              sluice_build_info; there are no feature gates
//
// process_* and go_* are there. rest_client_* is not.
//
// # Metrics of our own
//
// Each table, by the label table: sluice_table_keys, _pending_keys, _writes_total,
// _failing_keys, _failing_since_seconds, _deferred_keys, _drift_total,
// _applies_total, _audits_total, _last_apply_seconds, _last_apply_timestamp_seconds
// and _apply_duration_seconds (a histogram of batches).
//
//	sluice_kernel_errors_total{table,errno}   keys that could not be written and listings that failed, by the
//	                                          errno's name; "other": not the kernel's refusal
//	sluice_kernel_commands_total{table}       netlink messages that write
//	sluice_execs_total{table}                 programs run
//	sluice_ipvs_virtual_servers               ours
//	sluice_ipvs_destinations{state}           ours, serving or draining
//	sluice_build_info{version}                1
//
// Sessions and routes; a node without sessions has none of these:
//
//	sluice_bgp_session_up{peer}               1: established
//	sluice_bgp_session_since_seconds{peer}    Unix time since when it is, or is not
//	sluice_bgp_session_lost_total{peer}       established sessions that broke off
//	sluice_bgp_routes_told{peer,family}       addresses whose route the peer has
//	sluice_bgp_routes_waiting{peer,family}    that would be told if the session were established
//	sluice_bgp_routes_withheld{peer,family}   that are not to be told; peer "": that no peer is meant for
//	sluice_bgp_route_advertised{peer,prefix}  1: the peer has the route; 0: it has not. An aggregate is one,
//	                                          and is there for any of its addresses
//	sluice_bgp_route_advertised_hidden        routes for which that is not shown; see below
//
// NetworkPolicy, where it is enforced:
//
//	sluice_policy_policies                    that isolate a pod of this node
//	sluice_policy_pods                        of this node, that policies can select
//	sluice_policy_isolated_pods{direction}    of these, ingress or egress
//	sluice_policy_classes, sluice_policy_sets chains that isolated pods are under, and sets these look into
//	sluice_policy_enforcement_seconds         a histogram: from a change of what policies want of the rules to
//	                                          the kernel holding it
//	sluice_policy_denied_packets_total{side}  that the kernel told of, by whose policies denied: egress,
//	                                          ingress, revoked, or unknown. It tells of a few of each flow
//	sluice_policy_denied_packets_by_policy_total{side,policy}
//	                                          the same, once for each policy that isolates the pod; of 1000
//	                                          at most, and what the rest denied is in
//	sluice_policy_denied_packets_by_other_policies_total
//	sluice_policy_revoked_connections_total   that were stopped since policies do not allow them any more
//
// A pod that comes or goes runs no program: sluice_execs_total{table="netfilter"}
// counts iptables.
//
// A series for each load-balancer address, peer and node is much where there
// are many: with more than 5000 on a node none of them is shown, and
// sluice_bgp_route_advertised_hidden, 0 otherwise, is their number. `sluice bgp
// routes` shows them all.
//
// Connections per Service are not a metric (a series for each Service of each
// node, and a read of the whole table for each scrape): /connections counts them
// when asked.
//
// # What Services mean here, and why
//
// /services lists Services (ServiceList; the parameters namespace and name choose),
// /services/NAMESPACE/NAME says of one what the tables hold of each frontend and why
// each endpoint is in or out (ServiceDetail), /names how people call what IPVS has by
// number (NameList), and /state?format=json how the agent is (State). They are JSON,
// of which fields are neither renamed nor removed; reasons have a name for programs
// and a sentence for people, who alone are to rely on that. `sluice services` and
// `sluice status` show them as tables.
//
// Answers come from the goroutines that own the facts and the tables, between two
// of their rounds. One that takes too long, since its kernel does, is said not to
// answer; the others' part is shown.
//
// # What policy denies
//
// /policy/explain answers whether one may connect to another and why: POST takes
// an array of policy.Query and returns one of policy.Explanation, GET asks one by
// its parameters from, to, protocol and port. /policy/denied has the last denials as
// lines of JSON (Denied), and with follow=1 goes on with new ones; see DeniedQuery
// for its other parameters. Without policy both are 404 and say so. `sluice
// policy` shows them to people.
//
// # What is wrong with sessions
//
// /bgp/peers and /bgp/routes are JSON (PeerList, RouteList), of which fields are
// neither renamed nor removed; `sluice bgp` shows them as tables, and /state has
// the first. Sessions turns losses into Events and says what an agent reports in
// a BGPPeer's status; EstablishedCondition makes one condition of all reports.
package status
