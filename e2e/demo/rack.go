package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/topo"
)

// limit is how long anything here may take.
const limit = 30 * time.Second

// rack is what the chapters about BGP set up: the router between the client and
// the nodes, and a Service that it hears of.
type rack struct {
	router *router.FRR
	routes *topo.RouteWatch // of the router's kernel
	pods   []*topo.Host     // of Service shop, one on each node
}

// learn has a Service get an address, and the router learn the way to it.
func (s *stage) learn(ctx context.Context) error {
	if err := s.startRouter(ctx); err != nil {
		return err
	}
	if err := s.stockShop(); err != nil {
		return err
	}
	mark, written := s.rack.routes.Mark(), time.Now()
	if err := s.openShop(); err != nil {
		return err
	}
	learned, err := s.leads(ctx, mark, s.net.Nodes...)
	if err != nil {
		return err
	}
	for i := range s.net.Nodes {
		if err := s.tells(ctx, i); err != nil {
			return err
		}
	}
	s.say("every agent gave default/shop %s, the lowest free address of the pool: default/web has the first", shopIP)
	took := learned.Sub(written).Milliseconds()
	s.say("the router has the routes to both, by way of all nodes, %d ms after the files were written", took)
	if err := s.show(ctx, s.net.Nodes[0], s.sluice, "bgp", "peers"); err != nil {
		return err
	}
	if err := s.show(ctx, s.net.Nodes[0], s.sluice, "bgp", "routes"); err != nil {
		return err
	}
	s.fact("address from the pool, and routes by way of 3 nodes at the router: %d ms after the files were written", took)
	return s.showRoutes(ctx)
}

// startRouter starts FRR in the place of the route that was set by hand.
func (s *stage) startRouter(ctx context.Context) (err error) {
	if _, err := s.net.Router.Run(ctx, "ip", "route", "del", loadIP); err != nil {
		return err
	}
	if s.rack.routes, err = s.net.Router.WatchRoutes(); err != nil {
		return err
	}
	log, err := s.log("router")
	if err != nil {
		return err
	}
	o := router.Options{ASN: routerASN, Log: log}
	for _, n := range s.net.Nodes {
		o.Neighbors = append(o.Neighbors, router.Neighbor{Addr: n.V4, ASN: nodesASN})
	}
	if s.rack.router, err = router.StartFRR(s.net.Router, o); err != nil {
		return err
	}
	s.say("the route to %s that was set by hand is gone; FRR runs on the router", loadIP)
	return nil
}

// stockShop starts the pods of Service shop.
func (s *stage) stockShop() error {
	for i, n := range s.net.Nodes {
		pod, err := s.addPod(n, fmt.Sprintf("shop-%d", i+1))
		if err != nil {
			return err
		}
		s.rack.pods = append(s.rack.pods, pod)
	}
	return nil
}

// openShop writes Service shop, whose file names no address, and has the agents
// speak.
func (s *stage) openShop() error {
	for _, f := range []struct{ name, text string }{
		{"shop-endpoints.yaml", s.endpointsYAML("shop", s.rack.pods)},
		{"shop.yaml", shopYAML()},
		{"bgp.yaml", s.speakYAML()},
	} {
		if err := s.manifests().WriteText(f.name, f.text); err != nil {
			return err
		}
	}
	s.say("manifests: a Service without an address and its three endpoints, a pool, and whom to tell of what is taken from it")
	s.quote(shopYAML() + "---\n" + s.speakYAML())
	return nil
}

// leads waits until the router's ways to both Services' addresses have become
// these nodes, after a mark, and returns when they did.
func (s *stage) leads(ctx context.Context, mark int, nodes ...*topo.Host) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var want []netip.Addr
	for _, n := range nodes {
		want = append(want, n.V4)
	}
	for _, ip := range []string{loadIP, shopIP} {
		c, err := s.rack.routes.Await(ctx, mark, netip.PrefixFrom(netip.MustParseAddr(ip), 32), func(hops []netip.Addr) bool {
			return slices.Equal(hops, want)
		})
		if err != nil {
			states, more := s.rack.router.Sessions()
			return at, errors.Join(fmt.Errorf("%w; sessions at the router: %v", err, states), more)
		}
		if c.At.After(at) {
			at = c.At
		}
	}
	return at, nil
}

// tells checks that an agent gave Service shop its address and told the router.
func (s *stage) tells(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return topo.Eventually(ctx, func() error {
		text, err := s.agents[i].Page(ctx, "/bgp/routes")
		if err != nil {
			return err
		}
		var list struct {
			Routes []struct {
				Address  string
				State    string
				Services []string
			}
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return err
		}
		for _, r := range list.Routes {
			if r.Address == shopIP && r.State == "told" && slices.Equal(r.Services, []string{"default/shop"}) {
				return nil
			}
		}
		return fmt.Errorf("%s does not tell that default/shop has %s: %s", s.net.Nodes[i].Name, shopIP, text)
	})
}

// show runs a program on a host and prints what it says.
func (s *stage) show(ctx context.Context, h *topo.Host, program string, args ...string) error {
	out, err := h.Run(ctx, program, args...)
	if err != nil {
		return err
	}
	if program == s.sluice {
		program = "sluice"
	}
	s.say("%s: %s %s", h.Name, program, strings.Join(args, " "))
	s.quote(out)
	return nil
}

// showRoutes prints what the router has learned, from its own kernel.
func (s *stage) showRoutes(ctx context.Context) error {
	return s.show(ctx, s.net.Router, "ip", "route", "show", "proto", "bgp")
}

// arrive asks Service shop from beyond the router.
func (s *stage) arrive(ctx context.Context) error {
	const times = 60
	var pods, ways tally
	for range times {
		a, err := s.net.Client.Ask(ctx, topo.HTTP, s.service(shopIP))
		pods.add(a.Pod, err)
		ways.add(s.way(a), err)
	}
	s.say("client -> %v, %d requests: the router chose %s", s.service(shopIP), times, &ways)
	s.say("IPVS on these nodes chose %s", &pods)
	if err := s.count(&pods); err != nil {
		return err
	}
	if n := len(s.net.Nodes); pods.kinds() != n || ways.kinds() != n {
		return fmt.Errorf("want requests by way of all %d nodes, answered by all %d pods", n, n)
	}
	s.fact("requests from beyond the router: by way of %s, answered by %s", &ways, &pods)
	return nil
}

// way is the node that a request came in at: what passes a node on the way to a
// pod elsewhere has the node's address, to a pod of its own its address there.
func (s *stage) way(a topo.Answer) string {
	from := a.Client.Addr()
	for _, n := range s.net.Nodes {
		if from.IsValid() && (from == n.V4 || from == s.net.Gateway(n, from)) {
			return n.Name
		}
	}
	return from.String()
}
