package policy

import (
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"sluice.dev/sluice/internal/model"
)

// The sides of a Denial: which end's policies denied, or why a packet was
// denied without asking them.
const (
	DeniedEgress  = "egress"
	DeniedIngress = "ingress"
	DeniedUnknown = "unknown" // an address in the node's pod range is no known pod's
	DeniedRevoked = "revoked" // of a connection that policies allow no more
)

// Refused is one packet that the kernel says it has refused.
type Refused struct {
	At       time.Time // zero: now
	Prefix   string    // of the rule that told: LogEgress ...
	Src, Dst netip.AddrPort
	Protocol model.Protocol
	// In is the interface it came in by; "": IPVS sent it on, or a process of
	// the host did.
	In string
	// Dialled is what the client had opened the connection to; invalid:
	// nobody knows.
	Dialled netip.AddrPort
}

// Denial is one refused packet, with names. It stands for Suppressed others of
// the same flow too.
type Denial struct {
	Time     time.Time      `json:"time"`
	Node     string         `json:"node,omitempty"` // that denied it
	Side     string         `json:"side"`           // egress, ingress, unknown or revoked
	Protocol string         `json:"protocol"`       // "TCP"
	Src      netip.AddrPort `json:"src"`            // port 0: the protocol has none
	Dst      netip.AddrPort `json:"dst"`            // the endpoint, behind every virtual address
	SrcPod   string         `json:"srcPod,omitempty"`
	DstPod   string         `json:"dstPod,omitempty"` // "namespace/name"
	// Dialled is the virtual address that the client had asked, if that is
	// known. Services are the Service's that has it; if it is not known and
	// the packet came through one, all that have the endpoint.
	Dialled  netip.AddrPort `json:"dialled,omitzero"`
	Services []string       `json:"services,omitempty"`
	// Policies isolate the pod of the side that denied.
	Policies []string `json:"policies,omitempty"`
	// Why is one line: what the policies lack for it to be allowed.
	Why string `json:"why"`
	// Suppressed are packets of the flow, before this one, that were told of
	// and not reported.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// Concerns reports whether a pod, "namespace/name", is one of the denial's ends.
func (d Denial) Concerns(pod string) bool { return d.SrcPod == pod || d.DstPod == pod }

// denialsKept is how many denials can be asked for later.
const denialsKept = 1024

// DenialInterval is the least time between two denials of the same flow.
const DenialInterval = 10 * time.Second

// DenialOptions are what Denials are made of. Only Facts is required.
type DenialOptions struct {
	Facts    *Facts
	Node     string        // this one's name
	Interval time.Duration // 0: DenialInterval
	Log      *slog.Logger  // gets a line for each denial; nil: none
}

// Denials say who was denied what and why: the last ones, to whoever asks, and
// new ones as they come. One goroutine tells of packets; any may ask. Nobody who
// asks holds up the one that tells.
type Denials struct {
	opts    DenialOptions
	limiter *limiter // of the goroutine that tells

	mu     sync.Mutex
	ring   []Denial // denial number n is at (n-1) % denialsKept
	last   uint64   // number of the newest; 0: none yet
	more   chan struct{}
	counts DenialCounts
}

// NewDenials makes Denials that have been told of nothing.
func NewDenials(opts DenialOptions) *Denials {
	if opts.Interval == 0 {
		opts.Interval = DenialInterval
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Denials{
		opts: opts, limiter: newLimiter(opts.Interval),
		more: make(chan struct{}), counts: newDenialCounts(),
	}
}

// Tell takes in a packet. One with a prefix that is not ours is nothing.
func (d *Denials) Tell(r Refused) {
	side := deniedBy(r.Prefix)
	if side == "" {
		return
	}
	if r.At.IsZero() {
		r.At = time.Now()
	}
	if side == DeniedRevoked && r.Src.Port() < r.Dst.Port() {
		r.Src, r.Dst = r.Dst, r.Src // an answer: servers have the lower port, as a rule
	}
	f, report := d.limiter.take(flow{side, r.Src.Addr(), r.Dst, r.Protocol}, r.At)
	if !report {
		d.count(side, f.policies)
		return
	}
	denial, policies := d.name(side, r)
	denial.Suppressed = f.reported(r.At, policies)
	d.count(side, policies)
	d.add(denial)
	d.log(denial)
}

// deniedBy is the side that a rule's prefix stands for; "": the rule is not ours.
func deniedBy(prefix string) string {
	switch prefix {
	case LogEgress:
		return DeniedEgress
	case LogIngress:
		return DeniedIngress
	case LogUnknown:
		return DeniedUnknown
	case LogRevoked:
		return DeniedRevoked
	}
	return ""
}

func (d *Denials) count(side string, policies []model.Name) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.add(side, policies)
}

func (d *Denials) add(denial Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ring) < denialsKept {
		d.ring = append(d.ring, denial)
	} else {
		d.ring[d.last%denialsKept] = denial
	}
	d.last++
	close(d.more)
	d.more = make(chan struct{})
}

// After returns the denials after number n, the oldest first, as far as they
// are still kept; the number of the newest, from which to go on; and a channel
// that is closed when there are more. From 0 on it returns all that are kept.
func (d *Denials) After(n uint64) (list []Denial, last uint64, more <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = max(n, d.last-uint64(len(d.ring)))
	for ; n < d.last; n++ {
		list = append(list, d.ring[n%denialsKept])
	}
	return list, d.last, d.more
}

// Counts are how many packets were told of so far.
func (d *Denials) Counts() DenialCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts.clone()
}

// log writes a denial as a line, with the fields of its JSON form.
func (d *Denials) log(n Denial) {
	fields := []any{"side", n.Side, "protocol", n.Protocol, "src", n.Src.String(), "dst", n.Dst.String(), "why", n.Why}
	for _, f := range []struct {
		key   string
		value string
	}{
		{"srcPod", n.SrcPod}, {"dstPod", n.DstPod},
		{"services", strings.Join(n.Services, ",")}, {"policies", strings.Join(n.Policies, ",")},
	} {
		if f.value != "" {
			fields = append(fields, f.key, f.value)
		}
	}
	if n.Dialled.IsValid() {
		fields = append(fields, "dialled", n.Dialled.String())
	}
	if n.Suppressed > 0 {
		fields = append(fields, "suppressed", n.Suppressed)
	}
	d.opts.Log.Info("denied by policy", fields...)
}
