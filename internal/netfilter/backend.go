package netfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sluice.dev/sluice/internal/model"
)

// Backend is which of the kernel's two rule engines the iptables programs
// speak to. Rules of the two are invisible to each other and both are obeyed,
// so the host's programs and we must use the same one.
type Backend string

// The backends.
const (
	HostDefault Backend = "" // whatever "iptables" is on this host
	Legacy      Backend = "legacy"
	NFT         Backend = "nft"
)

// save and restore are the names of the backend's programs.
func (b Backend) save(f model.Family) string    { return b.program(f) + "-save" }
func (b Backend) restore(f model.Family) string { return b.program(f) + "-restore" }

func (b Backend) program(f model.Family) string {
	name := "iptables"
	if f == model.IPv6 {
		name = "ip6tables"
	}
	if b != HostDefault {
		name += "-" + string(b)
	}
	return name
}

// Detect finds the backend that the host uses: the one in which the kubelet
// has left its hint, else the one that holds more rules, else the host's
// default. It is how the images of kube-proxy and of most network plugins
// decide, so that we end up where they do.
func Detect(ctx context.Context, r Runner) (Backend, error) {
	var rules [2]int
	var failed [2]error
	for i, b := range []Backend{NFT, Legacy} {
		for _, f := range []model.Family{model.IPv4, model.IPv6} {
			out, err := r.Run(ctx, nil, b.save(f))
			if err != nil {
				failed[i] = errors.Join(failed[i], err)
				continue
			}
			if hinted(out) {
				return b, nil
			}
			rules[i] += bytes.Count(out, []byte("\n-A "))
		}
	}
	switch {
	case rules[0] > rules[1]:
		return NFT, nil
	case rules[1] > 0:
		return Legacy, nil
	}
	if _, err := r.Run(ctx, nil, HostDefault.save(model.IPv4)); err != nil {
		return "", fmt.Errorf("no usable iptables: %w", errors.Join(err, failed[0], failed[1]))
	}
	return HostDefault, nil
}

// hinted reports whether the kubelet has marked the backend as the host's.
func hinted(save []byte) bool {
	return bytes.Contains(save, []byte("\n:KUBE-IPTABLES-HINT ")) ||
		bytes.Contains(save, []byte("\n:KUBE-KUBELET-CANARY "))
}

// Usable are the families whose tables this host has, in the order given. The
// error says what is wrong with each of the others: a node without IPv6 goes on
// with IPv4, and someone has to be told once.
func Usable(ctx context.Context, r Runner, b Backend, families []model.Family) ([]model.Family, error) {
	var usable []model.Family
	var errs []error
	for _, f := range families {
		if err := usableFamily(ctx, r, b, f); err != nil {
			errs = append(errs, fmt.Errorf("%s is not served, its packet filter is unusable: %w", f, err))
			continue
		}
		usable = append(usable, f)
	}
	return usable, errors.Join(errs...)
}

// usableFamily makes a chain in each table and removes it in the same breath.
// Reading is not enough: a kernel without nf_tables has the nft programs print
// empty tables, and succeed. Where only some tables are lacking, the error
// says which.
func usableFamily(ctx context.Context, r Runner, b Backend, f model.Family) error {
	err := probe(ctx, r, b.restore(f), tables())
	if !refused(err) {
		return err
	}
	var errs []error
	for _, t := range tables() {
		if err := probe(ctx, r, b.restore(f), []Table{t}); err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", t, b.lacking(f, t, err)))
		}
	}
	if len(errs) == len(tables()) {
		return err
	}
	return errors.Join(errs...)
}

func probe(ctx context.Context, r Runner, program string, which []Table) error {
	texts := emptyTexts()
	for _, t := range which {
		texts[t].drop(Prefix + "PROBE")
	}
	return restore(ctx, r, program, texts)
}

// lacking adds the remedy to the refusal of a program that was asked for
// nothing but a table: the kernel has no such table.
func (b Backend) lacking(f model.Family, t Table, err error) error {
	if !refused(err) {
		return err
	}
	module := "iptable_" + t.String()
	if f == model.IPv6 {
		module = "ip6table_" + t.String()
	}
	switch b {
	case NFT:
		module = "nf_tables"
	case HostDefault:
		module += " (or nf_tables, if the host's iptables is the nft one)"
	}
	return fmt.Errorf("is the kernel module %s loaded? %w", module, err)
}
