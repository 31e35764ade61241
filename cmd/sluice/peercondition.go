package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/status"
)

// conditionEvery is the time between two looks at what nodes say of their
// sessions.
const conditionEvery = 5 * time.Second

// conditionManager is the field manager of BGPPeers' conditions.
const conditionManager = "sluice-controller"

// peerConditions sums up in each BGPPeer's condition Established what nodes say
// in its status, and takes back what nodes said that are gone.
type peerConditions struct {
	api peerClient
	log *slog.Logger

	mu    sync.Mutex
	nodes map[string]model.Node
	peers map[string]model.Peer
}

func newPeerConditions(api peerClient, log *slog.Logger) *peerConditions {
	return &peerConditions{api: api, log: log, nodes: map[string]model.Node{}, peers: map[string]model.Peer{}}
}

// Event takes note of nodes and peers.
func (c *peerConditions) Event(e model.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch fact := e.Put.(type) {
	case model.Node:
		c.nodes[fact.Name] = fact
	case model.Peer:
		c.peers[fact.Name] = fact
	}
	switch gone := e.Delete.(type) {
	case model.NodeKey:
		delete(c.nodes, gone.Name)
	case model.PeerKey:
		delete(c.peers, gone.Name)
	}
}

// beside is f, which begins to lead, with the conditions kept up to date for as
// long as that lasts.
func (c *peerConditions) beside(f func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		f(ctx)
		c.run(ctx)
	}
}

func (c *peerConditions) run(ctx context.Context) {
	tick := time.NewTicker(conditionEvery)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.pass(ctx)
		if err != nil && !said && ctx.Err() == nil {
			c.log.Error("cannot say in BGPPeers' status how sessions are; trying again", "err", err)
		}
		said = err != nil
	}
}

// pass brings every peer's condition up to date. An API server that does not
// have the kind has no peers.
func (c *peerConditions) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if c.idle() {
		return nil
	}
	list, err := c.api.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("list BGPPeers: %w", err)
	}
	var failed []error
	for i := range list.Items {
		failed = append(failed, c.update(ctx, &list.Items[i]))
	}
	return errors.Join(failed...)
}

func (c *peerConditions) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.peers) == 0
}

// dialling are the nodes that are to have a session with a peer, and gone those
// of the failing ones that are no nodes any more.
func (c *peerConditions) dialling(p *v1alpha1.BGPPeer) (dialling, gone []string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fact, known := c.peers[p.Name]
	for name, n := range c.nodes {
		if model.Selected(fact.Nodes, n.Labels) {
			dialling = append(dialling, name)
		}
	}
	for _, f := range p.Status.Failing {
		if _, there := c.nodes[f.Node]; !there {
			gone = append(gone, f.Node)
		}
	}
	return dialling, gone, known
}

// update writes a peer's condition if it is another one.
func (c *peerConditions) update(ctx context.Context, p *v1alpha1.BGPPeer) error {
	dialling, gone, known := c.dialling(p)
	if !known { // it cannot be used, which an Event says
		return nil
	}
	var failed []error
	for _, node := range gone {
		failed = append(failed, applyFailing(ctx, c.api, p.Name, node, nil))
	}
	var failing []status.Failing
	for _, f := range p.Status.Failing {
		failing = append(failing, status.Failing{Node: f.Node, Since: f.Since.Time, Error: f.Error})
	}
	is := status.EstablishedCondition(failing, dialling)
	conditions := slices.Clone(p.Status.Conditions)
	if !meta.SetStatusCondition(&conditions, metav1.Condition{
		Type: v1alpha1.PeerEstablished, Status: metav1.ConditionStatus(is.Status), ObservedGeneration: p.Generation,
		Reason: is.Reason, Message: is.Message,
	}) {
		return errors.Join(failed...)
	}
	established := *meta.FindStatusCondition(conditions, v1alpha1.PeerEstablished)
	failed = append(failed, applyStatus(ctx, c.api, p.Name, conditionManager, &v1alpha1.BGPPeerStatus{Conditions: []metav1.Condition{established}}))
	return errors.Join(failed...)
}
