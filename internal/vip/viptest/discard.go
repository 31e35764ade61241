package viptest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"sluice.dev/sluice/internal/vip"
)

// MainTable is an imaginary main routing table, as far as discard routes need
// one. It is for one goroutine at a time.
type MainTable struct {
	// Fault, when set, is asked before each operation on its subject (a prefix,
	// or nothing); its error is the operation's. Verbs: list, others, put,
	// delete.
	Fault func(verb string, subject netip.Prefix) error

	routes []entry
}

type entry struct {
	prefix netip.Prefix
	metric uint32
	others string // whose it is; "": ours
}

var _ vip.DiscardHandle = (*MainTable)(nil)

// Add puts in a route of others, which are described by a text.
func (m *MainTable) Add(prefix netip.Prefix, metric uint32, others string) {
	m.routes = append(m.routes, entry{prefix, metric, others})
}

func (m *MainTable) fault(ctx context.Context, verb string, subject netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Fault == nil {
		return nil
	}
	return m.Fault(verb, subject)
}

// List reads our routes.
func (m *MainTable) List(ctx context.Context) (prefixes []netip.Prefix, err error) {
	if err := m.fault(ctx, "list", netip.Prefix{}); err != nil {
		return nil, err
	}
	for _, r := range m.routes {
		if r.others == "" {
			prefixes = append(prefixes, r.prefix)
		}
	}
	return prefixes, nil
}

// Others describes the routes of others.
func (m *MainTable) Others(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]string, error) {
	if err := m.fault(ctx, "others", netip.Prefix{}); err != nil {
		return nil, err
	}
	others := map[netip.Prefix]string{}
	for _, r := range m.routes {
		if r.others != "" && slices.Contains(prefixes, r.prefix) {
			others[r.prefix] = fmt.Sprintf("%s, metric %d", r.others, r.metric)
		}
	}
	return others, nil
}

// Put makes routes, beside those of another metric.
func (m *MainTable) Put(ctx context.Context, prefixes []netip.Prefix) []error {
	return m.each(prefixes, func(p netip.Prefix) error {
		if err := m.fault(ctx, "put", p); err != nil {
			return err
		}
		if p != p.Masked() {
			return syscall.EINVAL // of IPv6 the kernel forgives it; nobody should try
		}
		if slices.ContainsFunc(m.routes, func(r entry) bool { return r.prefix == p && r.metric == vip.DiscardMetric }) {
			return syscall.EEXIST
		}
		m.routes = append(m.routes, entry{prefix: p, metric: vip.DiscardMetric})
		return nil
	})
}

// Delete removes our routes.
func (m *MainTable) Delete(ctx context.Context, prefixes []netip.Prefix) []error {
	return m.each(prefixes, func(p netip.Prefix) error {
		if err := m.fault(ctx, "delete", p); err != nil {
			return err
		}
		i := slices.IndexFunc(m.routes, func(r entry) bool { return r.prefix == p && r.others == "" })
		if i < 0 {
			return syscall.ESRCH
		}
		m.routes = slices.Delete(m.routes, i, i+1)
		return nil
	})
}

func (m *MainTable) each(prefixes []netip.Prefix, fn func(netip.Prefix) error) []error {
	errs := make([]error, len(prefixes))
	for i, p := range prefixes {
		errs[i] = fn(p)
	}
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}
