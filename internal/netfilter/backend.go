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
// empty tables, and succeed.
func usableFamily(ctx context.Context, r Runner, b Backend, f model.Family) error {
	probe := map[Table]*tableText{}
	for _, t := range []Table{NAT, Filter} {
		probe[t] = &tableText{}
		probe[t].drop(Prefix + "PROBE")
	}
	return restore(ctx, r, b.restore(f), probe)
}
