// Command demo shows Sluice at work on its embedded default, the file source:
// three nodes, pods and an outside client as network namespaces, a web Service
// with a cluster IP, a node port and a load-balancer IP, balanced by the
// kernel's IPVS; then scaling and a crash of the agent under load; then a
// NetworkPolicy that is explained; then a router that learns over BGP which nodes lead to an address from a pool, and a node
// that is drained under load. It runs inside the lab (see e2e/lab) and needs a
// built sluice, the real ipvsadm and FRR:
//
//	lab demo -sluice bin/sluice
//
// Its exit status is 0 only if every request was answered and every check held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	sluice := flag.String("sluice", "bin/sluice", "the program to show")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Show Sluice at work in the lab, for example: lab %s -sluice bin/sluice\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *sluice); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo FAILED: %v\n", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

// run is the story, a function a chapter.
func run(ctx context.Context, sluice string) (err error) {
	s := &stage{sluice: sluice, story: story{out: os.Stdout, began: time.Now()}}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, chapter := range []struct {
		title string
		play  func(context.Context) error
	}{
		{"Three nodes, two pods, a client behind a router (network namespaces)", s.build},
		{"Sluice starts on every node and reads the Service from YAML files", s.start},
		{"The same table, seen by sluice and by ipvsadm", s.compare},
		{"Requests are balanced over pods on different nodes", s.balance},
		{"Scaling 2 -> 6 -> 2 pods while clients keep asking", s.scale},
		{"The agent on node1 is killed (kill -9) and started again under load", s.crash},
		{"A NetworkPolicy keeps a pod out, says why, and lets it in", s.police},
		{"A Service gets its address from a pool, and the router learns the way by BGP", s.learn},
		{"Requests from beyond the router come in at all nodes", s.arrive},
		{"node1 is drained while clients keep asking", s.drain},
		{"Cleanup leaves nothing behind", s.cleanup},
	} {
		s.chapter(chapter.title)
		if err := chapter.play(ctx); err != nil {
			return fmt.Errorf("%q: %w", chapter.title, err)
		}
	}
	s.summary()
	if s.failed > 0 {
		return fmt.Errorf("%d of %d requests failed", s.failed, s.failed+s.answered)
	}
	return nil
}
