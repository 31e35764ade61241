// Package suite is what test packages share whose tests play in one world, made
// before the first and left by each as it was: how it begins and ends, its
// nodes, and how tests wait.
package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// Node is a node with sluice on it, and with what others have in its kernel.
type Node struct {
	*topo.Host
	Agent  *agent.Agent
	Before topo.Tables // what was there before sluice was first started

	log *os.File
}

// NewNode gives a host what others than sluice have in a node's tables. Nothing
// of sluice's may ever touch it. name is the package's, for the agent's log.
func NewNode(h *topo.Host, name string) (*Node, error) {
	if err := h.Furnish(); err != nil {
		return nil, err
	}
	before, err := h.Tables()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(LogDir(), name+"-"+h.Name+".log"))
	return &Node{Host: h, Before: before, log: log}, err
}

// LogDir is where logs are worth more than the run, if anywhere.
func LogDir() string {
	if out := os.Getenv("SLUICE_LAB_OUT"); out != "" {
		return out
	}
	return os.TempDir()
}

// StartAgent starts sluice on the node, under its name, and waits for nothing.
func (n *Node) StartAgent(bin string, flags ...string) (err error) {
	n.Agent, err = agent.Start(n.Host, bin, n.log, append([]string{"--hostname-override", n.Name}, flags...)...)
	return err
}

// Ready waits until the kernel holds what sluice wants of it, a minute at most.
func (n *Node) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Agent.Ready(ctx); err != nil {
		return fmt.Errorf("%w; its log:\n%s", err, n.LogSince(0))
	}
	return nil
}

// Probe asks sluice's own opinion, as a kubelet does.
func (n *Node) Probe(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return n.Agent.Probe(ctx, path)
}

// logged is the size of what sluice has logged, for LogSince.
func (n *Node) logged() int64 {
	info, err := n.log.Stat()
	if err != nil {
		return 0 // the log is shown from its beginning
	}
	return info.Size()
}

// LogSince is the tail of what sluice logged after an offset.
func (n *Node) LogSince(offset int64) string {
	text, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err.Error()
	}
	return Tail(string(text[min(offset, int64(len(text))):]), 40)
}

// Tail is the end of a text.
func Tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

func (n *Node) base() *Node { return n }

// OnNode is a Node, or what a package makes of one by embedding it.
type OnNode interface{ base() *Node }

// Start starts sluice on nodes with the same flags, and waits until it is ready
// on all of them.
func Start[N OnNode](bin string, nodes []N, flags ...string) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.base().StartAgent(bin, flags...))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return Ready(nodes)
}

// Ready waits until sluice is ready on nodes.
func Ready[N OnNode](nodes []N) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.base().Ready())
	}
	return errors.Join(errs...)
}
