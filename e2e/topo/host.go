package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is one network namespace: a node, a pod, the router or the client.
type Host struct {
	Name string // of the namespace, as `ip netns` has it; "" is the root
	V4   netip.Addr
	V6   netip.Addr

	ns    netns.NsHandle
	links *netlink.Handle

	mu      sync.Mutex
	closers []func() error // servers and processes, guarded by mu
}

func newHost(name string) (*Host, error) {
	var ns netns.NsHandle
	err := excursion(func() (err error) {
		ns, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: make namespace %s: %w", name, err)
	}
	return openHost(name, ns)
}

func openHost(name string, ns netns.NsHandle) (*Host, error) {
	links, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("topo: open rtnetlink in %q: %w", name, err)
	}
	return &Host{Name: name, ns: ns, links: links}, nil
}

// Do calls f on a thread in the host's namespace. Sockets that f makes stay in
// the namespace for good; goroutines that f starts are not in it.
func (h *Host) Do(f func() error) error {
	return excursion(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("topo: enter %q: %w", h.Name, err)
		}
		return f()
	})
}

// excursion calls f, which may leave the thread in any network namespace, and
// takes the thread back to where it was.
func excursion(f func() error) error {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("topo: own namespace: %w", err)
	}
	defer before.Close()
	err = f()
	if back := netns.Set(before); back != nil {
		// Still locked: the thread ends with the goroutine, nobody gets it.
		return errors.Join(err, fmt.Errorf("topo: return from another namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Sysctl sets a value in the host's namespace, for instance
// "net/ipv4/vs/conntrack".
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("topo: sysctl in %q: %w", h.Name, err)
		}
		return nil
	})
}

// Addr is the host's address of the family that other has.
func (h *Host) Addr(other netip.Addr) netip.Addr {
	if other.Is4() {
		return h.V4
	}
	return h.V6
}

// onClose has f called when the host's network goes away.
func (h *Host) onClose(f func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = append(h.closers, f)
}

func (h *Host) close() error {
	h.mu.Lock()
	closers := h.closers
	h.closers = nil
	h.mu.Unlock()
	var errs []error
	for _, f := range closers {
		errs = append(errs, f())
	}
	if h.Name == "" {
		h.links.Close()
		return errors.Join(append(errs, h.ns.Close())...)
	}
	// The kernel takes a namespace down when it comes to it; its links would
	// be in the way of the next topology until then.
	links, err := h.links.LinkList()
	if err != nil {
		errs = append(errs, fmt.Errorf("topo: list links of %s: %w", h.Name, err))
	}
	for _, link := range links {
		if link.Type() == "veth" {
			if err := h.links.LinkDel(link); err != nil {
				errs = append(errs, fmt.Errorf("topo: remove %s of %s: %w", link.Attrs().Name, h.Name, err))
			}
		}
	}
	h.links.Close()
	errs = append(errs, h.ns.Close())
	if err := netns.DeleteNamed(h.Name); err != nil {
		errs = append(errs, fmt.Errorf("topo: remove namespace %s: %w", h.Name, err))
	}
	return errors.Join(errs...)
}
