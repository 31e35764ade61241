package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// The Service's addresses. The router knows the way to the load-balancer IP;
// making routers know it by themselves (BGP) is another chapter of Sluice.
const (
	clusterIP = "10.96.0.80"
	loadIP    = "203.0.113.80"
	port      = 80
	nodePort  = 30080
	podPort   = 8080
)

// stage is everything the demo has set up, and what it has counted.
type stage struct {
	sluice string
	out    io.Writer
	began  time.Time
	dir    string // of manifests and logs

	net    *topo.Topology
	pods   []*topo.Host // the web pods, in service or not
	shell  *topo.Host   // a pod that only asks
	agents [3]*agent.Agent
	logs   []*os.File

	chapters         int
	answered, failed int
	facts            []string
}

func (s *stage) chapter(title string) {
	s.chapters++
	fmt.Fprintf(s.out, "\n== %d. %s\n", s.chapters, title)
}

// say prints a line of progress with the time since the beginning.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// quote prints a program's output.
func (s *stage) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "          | %s", line)
	}
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
		node := s.net.Nodes[len(s.pods)%len(s.net.Nodes)]
		pod, err := s.net.AddPod(node, fmt.Sprintf("web-%d", len(s.pods)+1))
		if err != nil {
			return err
		}
		if _, err := pod.Serve(topo.HTTP, podPort); err != nil {
			return err
		}
		s.pods = append(s.pods, pod)
		s.say("pod %s runs on %s at %s", pod.Name, node.Name, pod.V4)
	}
	return nil
}

func (s *stage) start(ctx context.Context) error {
	if err := s.apply(len(s.pods)); err != nil {
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
	log, err := os.Create(s.log(i))
	if err != nil {
		return err
	}
	s.logs = append(s.logs, log)
	s.agents[i], err = agent.Start(n, s.sluice, log, "--manifests", s.manifests(), "--hostname-override", n.Name,
		"--cluster-cidr", "10.244.0.0/16", "--audit-period", "10s")
	return err
}

func (s *stage) log(i int) string { return filepath.Join(s.dir, s.net.Nodes[i].Name+".log") }

// ready waits until a node's tables hold what is wanted.
func (s *stage) ready(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.agents[i].Ready(ctx); err != nil {
		log, _ := os.ReadFile(s.log(i)) // shown as far as it is there
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

func (s *stage) service(ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

func (s *stage) summary(took time.Duration) {
	fmt.Fprintf(s.out, "\n== Summary\n")
	for _, f := range s.facts {
		fmt.Fprintf(s.out, "   %s\n", f)
	}
	fmt.Fprintf(s.out, "   %d requests answered, %d failed\n", s.answered, s.failed)
	fmt.Fprintf(s.out, "   %.0f seconds in all\n", took.Seconds())
}

func (s *stage) fact(format string, args ...any) {
	s.facts = append(s.facts, fmt.Sprintf(format, args...))
}

func (s *stage) close() error {
	var errs []error
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
