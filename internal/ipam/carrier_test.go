package ipam

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

// carried is a Carrier and what came out of it.
type carried struct {
	*Carrier
	told, problems []string
}

func carry(state string) *carried {
	c := &carried{}
	c.Carrier = NewCarrier(CarrierOptions{
		State: state,
		Next: source.SinkFunc(func(e model.Event) {
			switch fact := e.Put.(type) {
			case model.Service:
				c.told = append(c.told, strings.TrimSpace(fmt.Sprint(fact.Name.Name, " ", strings.Trim(fmt.Sprint(fact.LoadBalancerIPs), "[]"))))
			case nil:
				if e.Synced {
					c.told = append(c.told, "synced")
				}
			}
			if gone, ok := e.Delete.(model.ServiceKey); ok {
				c.told = append(c.told, gone.Name.Name+" gone")
			}
		}),
		Problem: func(p model.Problem) { c.problems = append(c.problems, p.Object.Name+" "+p.Reason) },
	})
	return c
}

func (c *carried) take() (told []string) {
	told, c.told = c.told, nil
	return told
}

func (c *carried) tell(facts ...any) {
	for _, f := range facts {
		switch f := f.(type) {
		case model.ServiceKey, model.AddressPoolKey:
			c.Event(model.Event{Source: source.File, Delete: f})
		case string: // "synced"
			c.Event(model.Event{Source: source.File, Synced: true})
		default:
			c.Event(model.Event{Source: source.File, Put: f})
		}
	}
}

// asking is a Service of a file, which has no UID and no age.
func asking(name string, change ...func(*model.Service)) model.Service {
	s := model.Service{
		Name: model.Name{Namespace: "default", Name: name}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Ports:    []model.ServicePort{{Protocol: model.TCP, Port: 80}},
		Balancer: model.Balancer{Wanted: true, Families: []model.Family{model.IPv4}},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func lab(first, last string) model.AddressPool {
	return model.AddressPool{Name: "lab", AutoAssign: true, Created: time.Unix(1, 0),
		Ranges: []model.AddrRange{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}}
}

func TestCarrier(t *testing.T) {
	state := filepath.Join(t.TempDir(), "sub", "addresses.json")
	c := carry(state)
	expect := func(when string, want ...string) {
		t.Helper()
		if got := c.take(); !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q", when, got, want)
		}
	}
	key := func(name string) model.ServiceKey {
		return model.ServiceKey{Name: model.Name{Namespace: "default", Name: name}}
	}
	named := func(s *model.Service) {
		s.Balancer.Status = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		s.LoadBalancerIPs = s.Balancer.Status
	}
	c.tell(asking("web"), asking("api", named), lab("192.0.2.1", "192.0.2.3"))
	expect("before all is told nothing is given", "web", "api 192.0.2.1")
	c.tell("synced")
	expect("the lowest that is free", "web 192.0.2.2", "synced")
	c.tell(asking("web"))
	expect("the same again", "web 192.0.2.2")
	c.tell(asking("db"), asking("late"))
	expect("one more than there are addresses", "db 192.0.2.3", "late")
	if want := []string{"late PoolExhausted"}; !slices.Equal(c.problems, want) {
		t.Errorf("problems %q, want %q", c.problems, want)
	}
	c.tell(key("web"))
	expect("one is freed", "web gone", "late 192.0.2.2")
	c.tell(asking("db", func(s *model.Service) { s.Balancer.Withheld = true }))
	expect("its source ranges are wrong", "db")
	c.tell(asking("db", func(s *model.Service) { s.Balancer = model.Balancer{} }))
	expect("it asks for none any more", "db")

	c.Save()
	c = carry(state)
	c.tell(lab("192.0.2.1", "192.0.2.9"), asking("aaa"), asking("late"), asking("api", named), "synced")
	expect("a restart: each has what it had", "aaa", "late", "api 192.0.2.1", "aaa 192.0.2.3", "late 192.0.2.2", "synced")

	c.Save()
	c = carry(state)
	c.tell(lab("192.0.2.1", "192.0.2.9"), asking("late"), asking("thief", func(s *model.Service) {
		s.Balancer.Status = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
		s.LoadBalancerIPs = s.Balancer.Status
	}), "synced")
	expect("what a file says goes before", "late", "thief 192.0.2.2", "late 192.0.2.1", "synced")
}

// TestCarrierWithoutItsFile: what cannot be read or written is no reason to
// serve nobody.
func TestCarrierWithoutItsFile(t *testing.T) {
	state := filepath.Join(t.TempDir(), "addresses.json")
	if err := os.WriteFile(state, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{state, "/proc/none/addresses.json"} {
		c := carry(file)
		c.tell(lab("192.0.2.1", "192.0.2.3"), asking("web"), "synced")
		c.Save()
		if got := c.take(); !slices.Contains(got, "web 192.0.2.1") {
			t.Errorf("%s: told %q", file, got)
		}
	}
	if body, err := os.ReadFile(state); err != nil || !strings.Contains(string(body), "192.0.2.1") {
		t.Errorf("the file was not made anew: %s %v", body, err)
	}
}
