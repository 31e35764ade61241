package ipam

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

// saveAfter is how long a change of what Services have may be unsaved: a thousand
// Services that come together are one writing.
const saveAfter = 100 * time.Millisecond

// CarrierOptions are what a Carrier needs. Next and State are required.
type CarrierOptions struct {
	Next      source.Sink
	Allocator Options
	// State is the file that remembers which Service has which address. What
	// cannot be read is as if it were empty, with a log line.
	State   string
	Problem func(model.Problem) // hears what is wrong; nil: nobody
	Log     *slog.Logger        // nil: silence
}

// Carrier gives the Services of a node without an API server their addresses, on
// their way from the sources to the engine. Nothing is allocated until the
// source of files has told all; what the state file says is adopted then, but
// what the files themselves say goes before.
type Carrier struct {
	opts CarrierOptions

	saving    sync.Mutex // held while the file is written; taken before mu
	mu        sync.Mutex
	alloc     *Allocator
	started   bool
	services  map[model.Name]model.Service // as they were told
	given     map[model.Name]given
	unsaved   bool                         // given has changed since it was written
	complaint map[model.Name]model.Problem // the last of each Service
	pools     map[model.Problem]bool       // what is wrong with pools
}

// given is what the state file says of a Service.
type given struct {
	UID         string       `json:"uid,omitempty"`
	Addresses   []netip.Addr `json:"addresses"`
	Reallocated string       `json:"reallocated,omitempty"` // the value of the annotation that was done last
}

var _ source.Sink = (*Carrier)(nil)

// NewCarrier makes one that has told nothing yet.
func NewCarrier(opts CarrierOptions) *Carrier {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Problem == nil {
		opts.Problem = func(model.Problem) {}
	}
	return &Carrier{
		opts: opts, alloc: New(opts.Allocator),
		services: map[model.Name]model.Service{}, given: map[model.Name]given{}, complaint: map[model.Name]model.Problem{},
	}
}

// Event passes a fact on. A Service that is to have an address is told with it.
func (c *Carrier) Event(e model.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alloc.Apply(e)
	if fact, ok := e.Put.(model.Service); ok {
		c.services[fact.Name] = fact
		e.Put = c.carried(fact)
	}
	if gone, ok := e.Delete.(model.ServiceKey); ok {
		delete(c.services, gone.Name)
		delete(c.complaint, gone.Name)
	}
	if !c.started && e.Synced && e.Source == source.File {
		c.start()
	}
	if e.Delete != nil { // before anybody is told what it frees
		c.opts.Next.Event(e)
		c.carryOut()
		return
	}
	told := c.carryOut()
	if svc, ok := e.Put.(model.Service); ok && told[svc.Name] {
		return // with what was decided just now
	}
	c.opts.Next.Event(e)
}

// start ends the adoption: what the file remembers is a Service's, unless a file
// gives the address to another one.
func (c *Carrier) start() {
	claimed := map[netip.Addr]bool{}
	for _, svc := range c.services {
		for _, a := range svc.Balancer.Status {
			claimed[a] = true
		}
	}
	for name, was := range c.read() {
		svc, there := c.services[name]
		if !there || svc.UID != was.UID || len(svc.Balancer.Status) > 0 {
			continue
		}
		free := slices.DeleteFunc(was.Addresses, func(a netip.Addr) bool { return claimed[a] })
		c.alloc.Adopt(Holder{name, svc.UID}, free, nil, was.Reallocated)
		for _, a := range free {
			claimed[a] = true // should the file have been edited
		}
	}
	c.alloc.Start()
	c.started = true
}

// carryOut does what was decided, tells the Services that it changes, and
// returns these.
func (c *Carrier) carryOut() (told map[model.Name]bool) {
	if !c.started {
		return nil
	}
	told = map[model.Name]bool{}
	changed := false
	for d, more := c.alloc.Next(); more; d, more = c.alloc.Next() {
		svc, there := c.services[d.Name]
		was := c.carried(svc)
		changed = c.note(d) || changed
		if is := c.carried(svc); there && !d.Gone && !slices.Equal(is.LoadBalancerIPs, was.LoadBalancerIPs) {
			told[d.Name] = true
			c.opts.Next.Event(model.Event{Source: source.File, Put: is})
		}
		for _, a := range d.Release {
			c.alloc.Released(d.Holder, a)
		}
		c.complain(d)
	}
	c.complainOfPools()
	if changed && !c.unsaved {
		c.unsaved = true
		time.AfterFunc(saveAfter, c.Save)
	}
	return told
}

// note remembers a decision and reports whether it changes anything.
func (c *Carrier) note(d Decision) bool {
	was, had := c.given[d.Name]
	if d.Gone || !d.Wanted {
		if had && was.UID == d.UID {
			delete(c.given, d.Name)
			return true
		}
		return false
	}
	is := given{UID: d.UID, Addresses: d.Addresses, Reallocated: d.Handled}
	if !had && len(is.Addresses) == 0 || had && was.UID == is.UID && was.Reallocated == is.Reallocated && slices.Equal(was.Addresses, is.Addresses) {
		return false
	}
	c.given[d.Name] = is
	return true
}

// carried is a Service as it is passed on: with the addresses that it was given.
// Those of one whose source ranges cannot be used are not served.
func (c *Carrier) carried(svc model.Service) model.Service {
	if has, ok := c.given[svc.Name]; ok && svc.Balancer.Wanted && !svc.Balancer.Withheld {
		svc.LoadBalancerIPs = has.Addresses
	}
	return svc
}

func (c *Carrier) complain(d Decision) {
	p := d.Problem()
	if p == nil {
		delete(c.complaint, d.Name)
		return
	}
	if c.complaint[d.Name] != *p {
		c.complaint[d.Name] = *p
		c.opts.Problem(*p)
	}
}

func (c *Carrier) complainOfPools() {
	now := map[model.Problem]bool{}
	for _, pool := range c.alloc.Pools() {
		for _, p := range pool.Problems {
			if now[p] = true; !c.pools[p] {
				c.opts.Problem(p)
			}
		}
	}
	c.pools = now
}

// read is what the state file says.
func (c *Carrier) read() map[model.Name]given {
	body, err := os.ReadFile(c.opts.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var entries []entry
	if err == nil {
		err = json.Unmarshal(body, &entries)
	}
	if err != nil {
		c.opts.Log.Error("cannot read which Service has which address; Services without an address in their file may get another one than before",
			"file", c.opts.State, "err", err)
		return nil
	}
	all := make(map[model.Name]given, len(entries))
	for _, e := range entries {
		all[model.Name{Namespace: e.Namespace, Name: e.Name}] = e.given
	}
	return all
}

// entry is a line of the state file.
type entry struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	given
}

// Save writes the state file if what it is to say has changed. That is done a
// moment after a change by itself, once for all changes of that moment.
func (c *Carrier) Save() {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	unsaved, given := c.unsaved, maps.Clone(c.given)
	c.unsaved = false
	c.mu.Unlock()
	if unsaved {
		c.write(given)
	}
}

// write puts a new state file in the place of the old one, whole.
func (c *Carrier) write(all map[model.Name]given) {
	entries := make([]entry, 0, len(all))
	for _, name := range slices.SortedFunc(maps.Keys(all), model.Name.Compare) {
		entries = append(entries, entry{name.Namespace, name.Name, all[name]})
	}
	body, err := json.MarshalIndent(entries, "", "  ")
	if err == nil {
		err = replace(c.opts.State, append(body, '\n'))
	}
	if err != nil {
		c.opts.Log.Error("cannot remember which Service has which address; a restart may give other ones", "file", c.opts.State, "err", err)
	}
}

// replace writes a file so that at any moment there is the old or the new one.
func replace(path string, body []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = cmp.Or(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
