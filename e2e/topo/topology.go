package topo

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// ErrNotInLab says that the process is not inside the lab, where building a
// network disturbs nobody.
var ErrNotInLab = errors.New("topo: not inside the lab (SLUICE_LAB is not set)")

// maxNodes keeps node n at address 10+n.
const maxNodes = 200

// bridge is the shared segment, a device of the router.
const bridge = "segment"

// Topology is a built network. Its methods are for one goroutine; its Hosts'
// are for any.
type Topology struct {
	Nodes  []*Host // Nodes[0] is node1
	Router *Host
	Client *Host // the external client
	Root   *Host // the namespace the process is in

	pods    map[*Host]int // how many addresses of the node's pod network are taken
	routers int           // how many there are beside Router
	all     []*Host       // those whose namespaces are ours, in order of creation
}

// New builds a network with the given number of nodes and no pods. Close it.
func New(nodes int) (*Topology, error) {
	if os.Getenv("SLUICE_LAB") == "" {
		return nil, ErrNotInLab
	}
	if nodes < 0 || nodes > maxNodes {
		return nil, fmt.Errorf("topo: %d nodes: want at most %d", nodes, maxNodes)
	}
	t := &Topology{pods: map[*Host]int{}}
	if err := t.build(nodes); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Topology) build(nodes int) error {
	var err error
	if t.Root, err = rootHost(); err != nil {
		return err
	}
	if t.Router, err = t.add("router"); err != nil {
		return err
	}
	if err := t.buildRouter(); err != nil {
		return err
	}
	if t.Client, err = t.add("client"); err != nil {
		return err
	}
	if err := t.buildLeaf(t.Router, t.Client, 20); err != nil {
		return err
	}
	if err := t.buildRoot(); err != nil {
		return err
	}
	for n := 1; n <= nodes; n++ {
		if err := t.addNode(n); err != nil {
			return err
		}
	}
	return nil
}

// add makes an empty namespace with forwarding on.
func (t *Topology) add(name string) (*Host, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	t.all = append(t.all, h)
	if err := h.forward(); err != nil {
		return nil, err
	}
	return h, h.up("lo")
}

func (t *Topology) buildRouter() error {
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := t.Router.links.LinkAdd(link); err != nil {
		return fmt.Errorf("topo: add bridge: %w", err)
	}
	t.Router.claim(outside(10, 1))
	return t.Router.address(bridge, outside(10, 1))
}

// buildLeaf joins a host to a router by a link of its own.
func (t *Topology) buildLeaf(router, h *Host, segment int) error {
	if err := connect(router, h.Name, h, "eth0"); err != nil {
		return err
	}
	h.claim(outside(segment, 2))
	return errors.Join(
		router.address(h.Name, outside(segment, 1)),
		h.address("eth0", outside(segment, 2)),
		h.route("eth0", anywhere(), outside(segment, 1)),
	)
}

// buildRoot joins the root namespace to the router, as the way to what is
// beyond the lab: the companion. The root has a way to nodes, not to pods.
func (t *Topology) buildRoot() error {
	const toRouter, toRoot = "sluice0", "root"
	if err := t.Root.forward(); err != nil {
		return err
	}
	if err := connect(t.Router, toRoot, t.Root, toRouter); err != nil {
		return err
	}
	t.Root.claim(outside(30, 2))
	return errors.Join(
		t.Router.address(toRoot, outside(30, 1)),
		t.Root.address(toRouter, outside(30, 2)),
		t.Root.route(toRouter, outsideAll(), outside(30, 1)),
		t.Router.route(toRoot, anywhere(), outside(30, 2)),
	)
}

func (t *Topology) addNode(n int) error {
	h, err := t.add(fmt.Sprintf("node%d", n))
	if err != nil {
		return err
	}
	if err := connect(t.Router, h.Name, h, "eth0"); err != nil {
		return err
	}
	h.claim(outside(10, 10+n))
	err = errors.Join(
		t.Router.enslave(h.Name, bridge),
		h.address("eth0", outside(10, 10+n)),
		h.route("eth0", anywhere(), outside(10, 1)),
	)
	for i, other := range t.Nodes {
		err = errors.Join(err,
			h.route("eth0", podNetwork(i+1), outside(10, 10+i+1)),
			other.route("eth0", podNetwork(n), outside(10, 10+n)),
		)
	}
	t.Nodes = append(t.Nodes, h)
	return err
}

// AddPod attaches a new pod to one of the topology's nodes. Names are unique
// and at most 15 bytes: the node's end of the link has the pod's name.
func (t *Topology) AddPod(node *Host, name string) (*Host, error) {
	n := slices.Index(t.Nodes, node) + 1
	if n == 0 {
		return nil, fmt.Errorf("topo: add pod %s: %s is not a node", name, node.Name)
	}
	h, err := t.add(name)
	if err != nil {
		return nil, err
	}
	t.pods[node]++
	gateway, own := pod(n, 1), pod(n, 1+t.pods[node])
	if err := connect(node, name, h, "eth0"); err != nil {
		return nil, err
	}
	h.claim(own)
	// Every pod has its link to the node, which is the next hop for all: both
	// ends have host addresses, on-link routes say where they are.
	return h, errors.Join(
		node.address(name, gateway),
		h.address("eth0", own),
		node.route(name, own, dual{}),
		h.route("eth0", gateway, dual{}),
		h.route("eth0", anywhere(), gateway),
	)
}

// Gateway is the address a node has in its own pod network, of the family that
// other has. Pods of the node see it, not the node's own address, as the source
// of what the node sends or masquerades to them; pods elsewhere do not.
func (t *Topology) Gateway(node *Host, other netip.Addr) netip.Addr {
	addresses := pod(slices.Index(t.Nodes, node)+1, 1)
	if other.Is4() {
		return addresses[0].Addr()
	}
	return addresses[1].Addr()
}

// NodeOf is the node that a pod is on; nil for who is no pod.
func (t *Topology) NodeOf(pod *Host) *Host {
	for i, n := range t.Nodes {
		if podNetwork(i + 1)[0].Contains(pod.V4) {
			return n
		}
	}
	return nil
}

// RemovePod takes a pod and its link away, as when a pod is killed: its
// connections get no farewell. It also removes what AddRouter attached.
func (t *Topology) RemovePod(h *Host) error {
	i := slices.Index(t.all, h)
	if i < 0 {
		return fmt.Errorf("topo: remove %s: not of this topology", h.Name)
	}
	t.all = slices.Delete(t.all, i, i+1)
	return h.close()
}

// Close stops all servers and processes of the hosts and removes the network.
func (t *Topology) Close() error {
	var errs []error
	for _, h := range slices.Backward(t.all) {
		errs = append(errs, h.close())
	}
	t.all = nil
	if t.Root != nil {
		errs = append(errs, t.Root.close())
	}
	return errors.Join(errs...)
}

// rootHost is the process's own namespace, without a name of its own.
func rootHost() (*Host, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("topo: own namespace: %w", err)
	}
	return openHost("", ns)
}

// Unlimited has the kernel report every refusal, in all hosts: tests make more
// of them in a second than it would otherwise speak of.
func (t *Topology) Unlimited() error {
	const perSecond, atOnce = "net/ipv4/icmp_msgs_per_sec", "net/ipv4/icmp_msgs_burst"
	var errs []error
	for _, h := range append([]*Host{t.Root}, t.all...) {
		errs = append(errs, h.Sysctl("net/ipv4/icmp_ratelimit", "0"), h.Sysctl("net/ipv6/icmp/ratelimit", "0"))
		// Where these are not each namespace's, they are the root's, for all.
		for _, name := range []string{perSecond, atOnce} {
			if err := h.Sysctl(name, "1000000"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
