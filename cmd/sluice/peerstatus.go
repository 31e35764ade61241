package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/status"
)

const (
	// reportFirst is when sessions are reported first: those of a start have
	// come about by then.
	reportFirst = 30 * time.Second
	// reportEvery is the time between two reports, on average: nodes that all
	// lose one router do not write in step.
	reportEvery = 10 * time.Second
	// reportAgain is how often at most another error of the same outage is
	// reported.
	reportAgain = 5 * time.Minute
	// reportTimeout bounds one report.
	reportTimeout = time.Minute
	// reportBackoff bounds the wait after one that failed.
	reportBackoff = 5 * time.Minute
	// managerLimit is the longest name of a field manager.
	managerLimit = 128
)

// peerClient reads and writes BGPPeers.
type peerClient = client.Resource[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList]

// peerReporter writes to status.failing of BGPPeers which of this node's
// sessions are down for longer than their hold time, and takes that back. A
// node whose sessions are established writes nothing. The list is a map by
// node, and each node's entry has a field manager of its own (server-side
// apply): nodes do not overwrite each other. But an API server takes writes of
// one object one after the other, so that a thousand nodes that lose one router
// are too many: status.FailingLimit of them are enough.
type peerReporter struct {
	peers peerClient
	node  string
	down  func() []status.Down // must not block
	log   *slog.Logger

	reported map[string]report // by peer; nil: not read yet
}

// report is what this node has written to a peer's status.
type report struct {
	outage time.Time // since when the session is down; zero: a former run's report
	since  time.Time // the same as it stands there
	err    string
	at     time.Time // when; zero: a former run's
}

func newPeerReporter(api client.Interface, node string, down func() []status.Down, log *slog.Logger) *peerReporter {
	return &peerReporter{peers: api.BGPPeers(), node: node, down: down, log: log}
}

// run reports until ctx ends. A report that fails is logged once and tried
// again, less and less often; kinds that the API server does not have are
// nobody's fault.
func (r *peerReporter) run(ctx context.Context) {
	wait, said := reportFirst, false
	for ; ; wait = min(wait, reportBackoff) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		err := r.pass(ctx)
		switch {
		case err == nil:
			wait, said = reportEvery, false
			continue
		case !said && !apierrors.IsNotFound(err) && ctx.Err() == nil:
			r.log.Warn("cannot report sessions in the status of BGPPeers; trying again", "err", err)
			said = true
		}
		wait *= 2
	}
}

// pass writes what is not reported yet.
func (r *peerReporter) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if r.reported == nil {
		if err := r.read(ctx); err != nil {
			return fmt.Errorf("list BGPPeers: %w", err)
		}
	}
	var failed []error
	down := map[string]bool{}
	for _, d := range r.down() {
		down[d.Peer] = true
		now, due := r.due(d)
		if due {
			written, err := r.write(ctx, d.Peer, now)
			if failed = append(failed, err); !written {
				continue
			}
			now.at = time.Now()
		}
		if d.Long {
			r.reported[d.Peer] = now
		}
	}
	for peer := range r.reported {
		if down[peer] {
			continue
		}
		if err := applyFailing(ctx, r.peers, peer, r.node, nil); err != nil {
			failed = append(failed, err)
			continue
		}
		delete(r.reported, peer)
	}
	return errors.Join(failed...)
}

// due is what is to be reported of a session that is down, and whether it has to
// be written.
func (r *peerReporter) due(d status.Down) (report, bool) {
	now := report{outage: d.Since, since: d.Since.Truncate(time.Second), err: d.Error}
	was, is := r.reported[d.Peer]
	if !is || !d.Long {
		return now, d.Long
	}
	now.at = was.at
	if was.outage.IsZero() || was.outage.Equal(d.Since) { // the same, as far as this run knows
		now.since = was.since
	}
	if now.since.Equal(was.since) && time.Since(was.at) < reportAgain {
		now.err = was.err
	}
	return now, now.err != was.err || !now.since.Equal(was.since)
}

// read finds what a former run has reported.
func (r *peerReporter) read(ctx context.Context) error {
	list, err := r.peers.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	found := map[string]report{}
	for _, peer := range list.Items {
		for _, f := range peer.Status.Failing {
			if f.Node == r.node {
				found[peer.Name] = report{since: f.Since.Time, err: f.Error}
			}
		}
	}
	r.reported = found
	return nil
}

// write makes this node's entry in a peer's status, unless enough others have
// one. A peer that is gone needs none.
func (r *peerReporter) write(ctx context.Context, peer string, now report) (written bool, err error) {
	if _, is := r.reported[peer]; !is {
		object, err := r.peers.Get(ctx, peer, metav1.GetOptions{ResourceVersion: "0"})
		switch {
		case apierrors.IsNotFound(err):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("BGPPeer %s: %w", peer, err)
		case len(object.Status.Failing) >= status.FailingLimit:
			return false, nil
		}
	}
	entry := v1alpha1.FailingNode{Node: r.node, Since: metav1.NewTime(now.since), Error: now.err}
	err = applyFailing(ctx, r.peers, peer, r.node, &entry)
	return err == nil, err
}

// applyFailing makes a node's entry in a peer's status; nil takes it back, of
// which nothing is left then. A peer that is gone is none of its business.
func applyFailing(ctx context.Context, peers peerClient, peer, node string, entry *v1alpha1.FailingNode) error {
	if entry == nil {
		return applyStatus(ctx, peers, peer, fieldManager(node), nil)
	}
	return applyStatus(ctx, peers, peer, fieldManager(node), &v1alpha1.BGPPeerStatus{Failing: []v1alpha1.FailingNode{*entry}})
}

// applyStatus makes a peer's status say what a field manager has to say of it,
// and nothing else of what that said before; nil: nothing. A peer that is gone
// needs none.
func applyStatus(ctx context.Context, peers peerClient, peer, manager string, is *v1alpha1.BGPPeerStatus) error {
	said := map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.BGPPeerKind,
		"metadata": map[string]any{"name": peer},
	}
	if is != nil { // an empty status would become null, which is invalid
		said["status"] = is
	}
	body, err := json.Marshal(said)
	if err != nil {
		return fmt.Errorf("status of BGPPeer %s: %w", peer, err)
	}
	force := true
	opts := metav1.PatchOptions{FieldManager: manager, Force: &force}
	_, err = peers.Patch(ctx, peer, types.ApplyPatchType, body, opts, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("status of BGPPeer %s: %w", peer, err)
	}
	return nil
}

// fieldManager names whoever owns a node's entries. Names of nodes may be
// longer than those of field managers.
func fieldManager(node string) string {
	name := "sluice-" + node
	if len(name) <= managerLimit {
		return name
	}
	return fmt.Sprintf("sluice-%x", sha256.Sum256([]byte(node)))
}
