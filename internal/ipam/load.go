package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

// load reads the cluster at the beginning of a term and adopts all that was
// given: what status and claims say is newer than what the source told so far.
func (c *Controller) load() {
	if err := c.read(); err != nil {
		if c.term.Err() != nil {
			return
		}
		c.log.Warn("cluster cannot be read, no address is given", "err", err)
		c.reset()
		c.due.load = time.Now().Add(c.backoff)
		c.backoff = min(2*c.backoff, retryMost)
		return
	}
	c.loaded = true
	c.due.pools, c.due.audit = time.Now(), time.Now().Add(auditPeriod)
}

func (c *Controller) read() error {
	services, err := c.opts.Cluster.Services(c.term)
	if err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	claims, err := c.claims()
	if err != nil {
		return err
	}
	for i := range services {
		s := &services[i]
		st := readStanding(s)
		fact, ok, _ := convert.Service(s, nil)
		if !ok {
			for _, addr := range slices.Concat(st.ours, st.others) {
				c.apart[addr] = "Service " + nameOfService(s).String()
			}
			continue
		}
		h := Holder{nameOfService(s), string(s.UID)}
		c.allocator.Apply(model.Event{Put: fact})
		c.allocator.Adopt(h, st.ours, st.others, st.handled)
		c.known[h] = st
	}
	c.blockApart()
	c.allocator.Start()
	c.compare(claims)
	return nil
}

// claimed is which addresses claims name a Service as a holder of.
type claimed map[Holder][]netip.Addr

func (c *Controller) claims() ([]claim, error) {
	objects, err := c.opts.Cluster.Claims(c.term)
	if err != nil {
		return nil, fmt.Errorf("list AddressClaims: %w; are the objects of deploy/crds there?", err)
	}
	claims := make([]claim, 0, len(objects))
	for i := range objects {
		claims = append(claims, readClaim(&objects[i]))
	}
	return claims, nil
}

// compare finishes what others began and did not finish: a Service that has a
// claim and no address yet gets what was claimed for it, other claims without a
// Service that has the address are given back, and addresses without a claim are
// claimed.
func (c *Controller) compare(claims []claim) {
	have := claimed{}
	for _, cl := range claims {
		addr, ok := cl.addr()
		if !ok {
			c.log.Warn("not an address", "claim", cl.object.Name, "address", cl.object.Spec.Address)
			continue
		}
		for _, h := range cl.holders {
			have[h] = append(have[h], addr)
		}
		for _, h := range cl.returning {
			c.allocator.Abandon(h, addr)
		}
	}
	for _, h := range sortedHolders(have) {
		c.allocator.Resume(h, have[h])
		for _, addr := range have[h] {
			if !c.allocator.Has(h, addr) {
				c.allocator.Abandon(h, addr)
			}
		}
	}
	for _, h := range sortedHolders(c.known) {
		for _, addr := range c.known[h].ours {
			if !slices.Contains(have[h], addr) {
				delete(c.known, h) // written anew, and claimed with that
				c.allocator.Again(h)
				break
			}
		}
	}
}

// audit compares with all claims again: somebody may have deleted one, and one
// may have been left by a controller that was frozen when it lost the lead.
func (c *Controller) audit() {
	c.due.audit = time.Now().Add(auditPeriod)
	claims, err := c.claims()
	if err != nil {
		if c.term.Err() == nil {
			c.log.Warn("claims cannot be compared", "err", err)
		}
		return
	}
	c.allocator.UnblockAll()
	c.blockApart()
	c.compare(claims)
}

// blockApart keeps the addresses of Services that are none of ours to proxy, and
// so are not told, out of what is given. They are read once in a term.
func (c *Controller) blockApart() {
	for addr, by := range c.apart {
		c.allocator.Block(addr, by)
	}
}
