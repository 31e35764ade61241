package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// drainAnnotation is what an administrator writes to a Node.
const drainAnnotation = `{sluice.dev/drain: "true"}`

// open is how many connections are open while a node is drained: enough for
// each node to have some.
const open = 20

// drain takes node1 out of the router's ways, and back, under load: of new
// connections, and of some that stay open all the time.
func (s *stage) drain(ctx context.Context) error {
	// Linux as a router moves connections of all nodes when a way goes.
	if _, err := s.net.Stick(s.net.Router); err != nil {
		return err
	}
	s.say("the router keeps a connection on its way when routes change, as those with resilient hashing do")
	kept, err := s.keep(ctx)
	if err != nil {
		return err
	}
	defer kept.close()
	ask := s.caller(s.net.Client, shopIP)
	fresh, old := s.startLoad(ctx, ask, ask), s.startLoad(ctx, kept.clients()...)
	err = s.leave(ctx, fresh, old)
	if err == nil {
		err = s.comeBack(ctx, fresh)
	}
	s.say("over new connections:")
	err = errors.Join(err, s.endLoad(fresh))
	s.say("over the %d connections that were open all the time:", open)
	if err := errors.Join(err, s.endLoad(old)); err != nil {
		return err
	}
	answered, failed := fresh.counts()
	more, lost := old.counts()
	s.fact("node drained and back under load: %d requests, %d failed", answered+failed+more+lost, failed+lost)
	return nil
}

// leave drains node1.
func (s *stage) leave(ctx context.Context, fresh, old *load) error {
	node := s.net.Nodes[0]
	pause(ctx, time.Second)
	before := old.ways.Load()
	s.say("requests over new connections come in at %s", fresh.ways.Load())
	s.say("requests over %d open connections at %s", open, before)
	mark, written := s.rack.routes.Mark(), time.Now()
	if err := s.applyNodes(node); err != nil {
		return err
	}
	s.say("the Node %s gets the annotation %s", node.Name, drainAnnotation)
	gone, err := s.leads(ctx, mark, s.net.Nodes[1:]...)
	if err != nil {
		return err
	}
	fresh.turn()
	old.turn()
	s.say("the router has taken it out of its routes, %d ms after the file was written", gone.Sub(written).Milliseconds())
	if err := s.showRoutes(ctx); err != nil {
		return err
	}
	if err := s.show(ctx, node, s.sluice, "bgp", "routes"); err != nil {
		return err
	}
	pause(ctx, time.Second)
	ways, after := fresh.ways.Load(), old.ways.Load()
	s.say("requests over new connections have come in since at %s", ways)
	s.say("requests over the open ones at %s: %s serves what it has until that ends", after, node.Name)
	if ways.of(node.Name) > 0 || ways.kinds() != len(s.net.Nodes)-1 {
		return fmt.Errorf("want new connections at every node but %s, have %s", node.Name, ways)
	}
	if after.kinds() != before.kinds() {
		return fmt.Errorf("want open connections where they were, at %s, have %s", before, after)
	}
	return nil
}

// comeBack ends the drain.
func (s *stage) comeBack(ctx context.Context, fresh *load) error {
	mark, written := s.rack.routes.Mark(), time.Now()
	if err := s.applyNodes(nil); err != nil {
		return err
	}
	back, err := s.leads(ctx, mark, s.net.Nodes...)
	if err != nil {
		return err
	}
	fresh.turn()
	s.say("the annotation is removed; the router has all nodes again, %d ms after the file was written", back.Sub(written).Milliseconds())
	pause(ctx, time.Second)
	ways := fresh.ways.Load()
	s.say("requests over new connections have come in since at %s", ways)
	if ways.kinds() != len(s.net.Nodes) {
		return fmt.Errorf("want new connections at all nodes, have %s", ways)
	}
	return nil
}

// connections are a client's that it keeps open.
type connections []*connection

type connection struct {
	net.Conn
	in *bufio.Reader
}

// keep opens connections to Service shop.
func (s *stage) keep(ctx context.Context) (all connections, err error) {
	for range open {
		conn, err := s.net.Client.Dial(ctx, topo.TCP, s.service(shopIP))
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, &connection{conn, bufio.NewReader(conn)})
	}
	return all, nil
}

func (all connections) clients() (list []client) {
	for _, c := range all {
		list = append(list, func() (topo.Answer, error) {
			defer time.Sleep(every)
			return c.ask()
		})
	}
	return list
}

// every is the pause between two requests over a connection.
const every = 100 * time.Millisecond

func (c *connection) ask() (topo.Answer, error) {
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return topo.Answer{}, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"); err != nil {
		return topo.Answer{}, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return topo.Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return topo.Answer{}, err
	}
	return topo.ParseAnswer(string(body))
}

func (all connections) close() {
	for _, c := range all {
		c.Close()
	}
}
