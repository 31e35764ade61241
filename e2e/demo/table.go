package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// destination is one line of ipvsadm.
type destination struct {
	addr           string
	weight, active int
}

// destinations reads the cluster IP's destinations on a node, by ipvsadm.
func (s *stage) destinations(ctx context.Context, n *topo.Host) ([]destination, error) {
	out, err := n.Run(ctx, "ipvsadm", "-Ln", "-t", s.service(clusterIP).String())
	if err != nil {
		return nil, err
	}
	var list []destination
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != "->" || f[2] != "Masq" {
			continue
		}
		weight, err := strconv.Atoi(f[3])
		if err != nil {
			return nil, fmt.Errorf("ipvsadm prints %q: %w", line, err)
		}
		active, err := strconv.Atoi(f[4])
		if err != nil {
			return nil, fmt.Errorf("ipvsadm prints %q: %w", line, err)
		}
		list = append(list, destination{f[1], weight, active})
	}
	return list, nil
}

func inService(list []destination) (n int) {
	for _, d := range list {
		if d.weight > 0 {
			n++
		}
	}
	return n
}

// leavingAreIdle reports whether no destination that leaves has a connection
// in use.
func leavingAreIdle(list []destination) bool {
	for _, d := range list {
		if d.weight == 0 && d.active > 0 {
			return false
		}
	}
	return true
}

// await waits until a node's destinations are as they should be.
func (s *stage) await(ctx context.Context, n *topo.Host, good func([]destination) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return topo.Eventually(ctx, func() error {
		list, err := s.destinations(ctx, n)
		if err == nil && !good(list) {
			err = fmt.Errorf("%s has %v", n.Name, list)
		}
		return err
	})
}
