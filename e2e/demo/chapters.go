package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// compare shows a node's table by sluice and by ipvsadm, and checks that they
// are the same byte for byte on all nodes.
func (s *stage) compare(ctx context.Context) error {
	for i, n := range s.net.Nodes {
		ours, err := n.Run(ctx, s.sluice, "ipvs", "-Ln")
		if err != nil {
			return err
		}
		theirs, err := n.Run(ctx, "ipvsadm", "-Ln")
		if err != nil {
			return err
		}
		if i == 0 {
			s.say("node1: sluice ipvs -Ln")
			s.quote(ours)
			s.say("node1: ipvsadm -Ln")
			s.quote(theirs)
		}
		if ours != theirs {
			return fmt.Errorf("%s: sluice and ipvsadm differ:\n%s\n%s", n.Name, ours, theirs)
		}
		s.say("%s: identical, %d bytes", n.Name, len(ours))
	}
	s.fact("sluice ipvs -Ln and ipvsadm -Ln: identical on 3 nodes")
	return nil
}

// balance asks each of the Service's addresses in turn.
func (s *stage) balance(ctx context.Context) error {
	node := netip.AddrPortFrom(s.net.Nodes[0].V4, nodePort)
	for _, c := range []struct {
		what string
		from *topo.Host
		to   netip.AddrPort
	}{
		{"client -> load-balancer IP", s.net.Client, s.service(loadIP)},
		{"client -> node port", s.net.Client, node},
		{"pod on node3 -> cluster IP", s.shell, s.service(clusterIP)},
		{"node2 -> cluster IP", s.net.Nodes[1], s.service(clusterIP)},
	} {
		var t tally
		for range 20 {
			a, err := c.from.Ask(ctx, topo.HTTP, c.to)
			t.add(a.Pod, err)
		}
		s.say("%-27s %-19v %s", c.what, c.to, &t)
		if err := s.count(&t); err != nil {
			return err
		}
		if t.kinds() != len(s.pods) {
			return fmt.Errorf("%s: only %s answered, want every one of %d pods", c.what, &t, len(s.pods))
		}
	}
	return nil
}

// scale goes from two pods to six and back while clients keep asking. A pod
// that leaves is taken out of the Service first and ends when its connections
// have ended, as the kubelet does.
func (s *stage) scale(ctx context.Context) error {
	l := s.startWebLoad(ctx)
	s.during(ctx, l, time.Second)
	err := s.scaleUp(ctx)
	if err == nil {
		s.during(ctx, l, 3*time.Second)
		err = s.scaleDown(ctx, 2)
	}
	if err == nil {
		s.during(ctx, l, 2*time.Second)
	}
	if err := errors.Join(err, s.endLoad(l)); err != nil {
		return err
	}
	answered, failed := l.counts()
	s.fact("scaled 2 -> 6 -> 2 pods under load: %d requests, %d failed", answered+failed, failed)
	return nil
}

func (s *stage) scaleUp(ctx context.Context) error {
	if err := s.addPods(6); err != nil {
		return err
	}
	if err := s.apply(6); err != nil {
		return err
	}
	edited := time.Now()
	for _, n := range s.net.Nodes {
		if err := s.await(ctx, n, func(d []destination) bool { return inService(d) == 6 }); err != nil {
			return err
		}
	}
	s.say("all nodes balance over 6 pods, %d ms after the file was written", time.Since(edited).Milliseconds())
	return nil
}

func (s *stage) scaleDown(ctx context.Context, n int) error {
	if err := s.apply(n); err != nil {
		return err
	}
	edited := time.Now()
	for _, node := range s.net.Nodes {
		err := s.await(ctx, node, func(d []destination) bool { return inService(d) == n && leavingAreIdle(d) })
		if err != nil {
			return err
		}
	}
	s.say("4 pods leave: weight 0 everywhere and no active connection, %d ms after the file was written", time.Since(edited).Milliseconds())
	s.say("node3, where a pod has just been asking: what leaves stays until its last connection has ended")
	table, err := s.net.Nodes[2].Run(ctx, "ipvsadm", "-Ln", "-t", s.service(clusterIP).String())
	if err != nil {
		return err
	}
	s.quote(table)
	for _, p := range s.pods[n:] {
		if err := s.net.RemovePod(p); err != nil {
			return err
		}
	}
	s.pods = s.pods[:n]
	s.say("the 4 pods have ended")
	return nil
}

// crash kills the agent of node1 while clients keep asking.
func (s *stage) crash(ctx context.Context) error {
	l := s.startWebLoad(ctx)
	s.during(ctx, l, time.Second)
	err := s.agents[0].Kill()
	if err == nil {
		s.say("the agent on node1 is dead; the kernel goes on")
		s.during(ctx, l, time.Second)
		if err = s.startAgent(0); err == nil {
			err = s.ready(ctx, 0)
		}
	}
	var writes string
	if err == nil {
		writes, err = s.writes(ctx, 0)
		s.say("a new agent is ready; it adopted what it found and wrote: %s", writes)
		s.during(ctx, l, time.Second)
	}
	if err := errors.Join(err, s.endLoad(l)); err != nil {
		return err
	}
	answered, failed := l.counts()
	s.fact("agent killed and restarted under load: %d requests, %d failed; the new agent wrote %s", answered+failed, failed, writes)
	return nil
}

// writes is what an agent wrote to the kernel since it started.
func (s *stage) writes(ctx context.Context, i int) (string, error) {
	var parts []string
	for _, table := range []string{"netfilter", "ipvs", "vip"} {
		n, err := s.agents[i].Metric(ctx, "sluice_table_writes_total", map[string]string{"table": table})
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprint(table, " ", n))
	}
	return strings.Join(parts, ", "), nil
}

// cleanup stops the agents, removes what they made and looks for what is left.
func (s *stage) cleanup(ctx context.Context) error {
	mark := s.rack.routes.Mark()
	for i, n := range s.net.Nodes {
		if err := s.agents[i].Stop(); err != nil {
			return fmt.Errorf("%s: the agent ended with %w", n.Name, err)
		}
		if _, err := n.Run(ctx, s.sluice, "cleanup"); err != nil {
			return err
		}
		var left []string
		for _, look := range [][]string{
			{"ipvsadm", "-Ln"}, {"ipset", "list", "-n"}, {"iptables-save"}, {"ip6tables-save"}, {"ip", "-o", "addr"},
		} {
			out, err := n.Run(ctx, look[0], look[1:]...)
			if err != nil {
				return err
			}
			for _, trace := range []string{"SLUICE", "sluice", "->  10.", clusterIP, loadIP, shopIP} {
				if strings.Contains(out, trace) {
					left = append(left, strings.Join(look, " ")+" shows "+trace)
				}
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("%s: left behind: %s", n.Name, strings.Join(left, "; "))
		}
		s.say("%s: no virtual server, set, rule or address of ours is left", n.Name)
	}
	if _, err := s.leads(ctx, mark); err != nil {
		return err
	}
	s.say("the router has no route to the Services: the agents withdrew them when they were stopped")
	s.fact("cleanup: no residue on 3 nodes, no route at the router")
	return nil
}
