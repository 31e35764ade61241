package main

import (
	"context"
	"log/slog"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/status"
)

// stopLimit bounds the end of all sessions, the time for routers to converge
// aside.
const stopLimit = 5 * time.Second

// speaker is the part of the agent that talks to routers.
type speaker struct {
	announcer *bgp.Announcer
	server    *bgp.GoBGP
	sessions  *status.Sessions
	config    balancerConfig
	log       *slog.Logger
}

func newSpeaker(s settings, tell func(model.Problem)) *speaker {
	p := &speaker{
		announcer: bgp.NewAnnouncer(bgp.AnnouncerOptions{NotReadyAfter: s.balancer.notReadyAfter}),
		config:    s.balancer, log: s.log,
	}
	changed := func(state bgp.PeerState) { p.sessions.Changed(state) }
	p.server = bgp.NewGoBGP(bgp.GoBGPOptions{Changed: changed, Log: s.log})
	p.sessions = status.NewSessions(status.SessionsOptions{
		Node: s.source.nodeName, Peers: p.server.Peers, Problem: tell,
	})
	return p
}

// shown is what of it can be asked for over HTTP.
func (p *speaker) shown(problems func() []model.Problem) *status.BGP {
	return &status.BGP{Peers: p.server.Peers, Routes: p.announcer.Rows, Problems: problems}
}

// stop ends the sessions. away says why nobody is to be led to this node; "":
// they may be, and it may be back in a moment.
func (p *speaker) stop(away string) {
	keep := p.config.onStop == stopKeep || p.config.onStop == stopAuto && away == ""
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit+p.config.stopWait)
	defer cancel()
	before := p.told()
	if err := p.server.WithdrawAll(ctx, keep); err != nil {
		p.log.Error("not every router has heard that routes are withdrawn", "err", err)
	}
	if withdrawn := before - p.told(); withdrawn > 0 {
		p.log.Info("routes are withdrawn; routers are given time to converge", "routes", withdrawn, "wait", p.config.stopWait)
		wait(ctx, p.config.stopWait)
	}
	if err := p.server.Stop(ctx, keep); err != nil {
		p.log.Error("not every session has been closed", "err", err)
	}
	if kept := p.told(); kept > 0 {
		p.log.Info("routers with graceful restart keep their routes to this node", "routes", kept)
	}
}

// told counts what routers have been told.
func (p *speaker) told() int {
	n := 0
	for _, peer := range p.server.Peers() {
		n += peer.Told
	}
	return n
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
