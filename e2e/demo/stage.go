package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// The addresses of Service web. The way to the load-balancer IP is set by hand
// at the router, until that learns it.
const (
	clusterIP = "10.96.0.80"
	loadIP    = "203.0.113.80"
	port      = 80
	nodePort  = 30080
	podPort   = 8080
)

// stage is everything the demo has set up.
type stage struct {
	story
	sluice string // the program that is shown
	dir    string // of manifests and logs

	net    *topo.Topology
	pods   []*topo.Host // the web pods, in service or not
	shell  *topo.Host   // a pod that only asks
	agents [3]*agent.Agent
	logs   []*os.File
	rack   rack
}

func (s *stage) build(context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
		return err
	}
	if s.net, err = topo.New(len(s.agents)); err != nil {
		return err
	}
	for _, n := range s.net.Nodes {
		s.say("%s has %s and %s", n.Name, n.V4, n.V6)
	}
	if s.shell, err = s.net.AddPod(s.net.Nodes[2], "shell"); err != nil {
		return err
	}
	s.say("the client has %s, the pod shell on node3 %s", s.net.Client.V4, s.shell.V4)
	return s.addPods(2)
}

// addPods starts web pods until there are n, on the nodes in turn.
func (s *stage) addPods(n int) error {
	for len(s.pods) < n {
		pod, err := s.addPod(s.net.Nodes[len(s.pods)%len(s.net.Nodes)], fmt.Sprintf("web-%d", len(s.pods)+1))
		if err != nil {
			return err
		}
		s.pods = append(s.pods, pod)
	}
	return nil
}

// addPod starts a pod that answers over HTTP.
func (s *stage) addPod(node *topo.Host, name string) (*topo.Host, error) {
	pod, err := s.net.AddPod(node, name)
	if err != nil {
		return nil, err
	}
	if _, err := pod.Serve(topo.HTTP, podPort); err != nil {
		return nil, err
	}
	s.say("pod %s runs on %s at %s", name, node.Name, pod.V4)
	return pod, nil
}

func (s *stage) start(ctx context.Context) error {
	if err := s.openWeb(); err != nil {
		return err
	}
	s.say("manifests: Service default/web, an EndpointSlice with %d endpoints, three Nodes", len(s.pods))
	for i := range s.net.Nodes {
		if err := s.startAgent(i); err != nil {
			return err
		}
	}
	for i, n := range s.net.Nodes {
		took := time.Now()
		if err := s.ready(ctx, i); err != nil {
			return err
		}
		s.say("%s is ready (%.1f s)", n.Name, time.Since(took).Seconds())
	}
	// Any node serves the load-balancer IP: the router spreads over all.
	args := []string{"route", "add", loadIP}
	for _, n := range s.net.Nodes {
		args = append(args, "nexthop", "via", n.V4.String())
	}
	_, err := s.net.Router.Run(ctx, "ip", args...)
	return err
}

// startAgent starts sluice on a node, its log going to a file.
func (s *stage) startAgent(i int) error {
	n := s.net.Nodes[i]
	log, err := s.log(n.Name)
	if err != nil {
		return err
	}
	s.agents[i], err = agent.Start(n, s.sluice, log, "--manifests", string(s.manifests()), "--hostname-override", n.Name,
		"--cluster-cidr", topo.ClusterCIDR4, "--audit-period", "10s",
		"--address-state", filepath.Join(s.dir, n.Name+"-addresses.json"))
	return err
}

// log opens the file of what a program says, a new one each time it starts.
func (s *stage) log(name string) (*os.File, error) {
	f, err := os.Create(s.logPath(name))
	if err != nil {
		return nil, err
	}
	s.logs = append(s.logs, f)
	return f, nil
}

func (s *stage) logPath(name string) string { return filepath.Join(s.dir, name+".log") }

// ready waits until a node's tables hold what is wanted.
func (s *stage) ready(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.agents[i].Ready(ctx); err != nil {
		log, _ := os.ReadFile(s.logPath(s.net.Nodes[i].Name)) // shown as far as it is there
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

func (s *stage) service(ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

func (s *stage) close() error {
	var errs []error
	if s.rack.router != nil {
		errs = append(errs, s.rack.router.Stop())
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	for _, l := range s.logs {
		errs = append(errs, l.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
