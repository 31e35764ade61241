package ipam

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/source/convert"
)

// The conditions in a Service's status.
const (
	// AllocatedCondition says whether the Service has what it asks for.
	AllocatedCondition = "sluice.dev/AddressAllocated"
	// ReallocatedCondition has the last value of annotation sluice.dev/reallocate
	// that was done as its message, so that nobody does it twice.
	ReallocatedCondition = "sluice.dev/Reallocated"
	// ReturnedCondition says that an address that the Service was to have, but
	// never got, was given back, and when: see writer.carry for what it is for.
	ReturnedCondition = "sluice.dev/AddressReturned"
)

// standing is what a Service's status says of its addresses.
type standing struct {
	ours    []netip.Addr // that nodes answer on
	others  []netip.Addr // of another load balancer (ipMode Proxy)
	said    bool         // a condition of ours is there
	verdict Condition
	handled string // of the annotation that asks for other addresses: what was done
	asked   string // and what it says
}

func (st standing) equal(o standing) bool {
	return slices.Equal(st.ours, o.ours) && slices.Equal(st.others, o.others) && st.said == o.said && st.verdict == o.verdict &&
		st.handled == o.handled && st.asked == o.asked
}

func readStanding(s *corev1.Service) standing {
	st := standing{asked: strings.TrimSpace(s.Annotations[convert.ReallocateAnnotation])}
	for _, in := range s.Status.LoadBalancer.Ingress {
		addr, ok := ingressAddr(in)
		switch {
		case !ok:
		case isVIP(in):
			st.ours = append(st.ours, addr)
		default:
			st.others = append(st.others, addr)
		}
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, AllocatedCondition); c != nil {
		st.said = true
		st.verdict = Condition{OK: c.Status == metav1.ConditionTrue, Reason: c.Reason, Message: c.Message}
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, ReallocatedCondition); c != nil {
		st.handled = c.Message
	} else if !st.said {
		// We have not seen the Service before: what it asks for now is no change.
		st.handled = st.asked
	}
	return st
}

func ingressAddr(in corev1.LoadBalancerIngress) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(in.IP)
	return addr.Unmap(), err == nil
}

func isVIP(in corev1.LoadBalancerIngress) bool {
	return in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP
}

// says reports whether the standing is what a decision wants it to be.
func (st standing) says(d Decision) bool {
	if !d.Wanted {
		return !st.said && !slices.ContainsFunc(st.ours, func(a netip.Addr) bool { return slices.Contains(d.Release, a) })
	}
	return st.said && st.verdict == d.Condition && st.handled == d.Handled && slices.Equal(st.ours, d.Addresses)
}

// apply makes a Service's status say what a decision wants. What another load
// balancer wrote stays.
func apply(s *corev1.Service, d Decision) {
	var entries []corev1.LoadBalancerIngress
	for _, a := range d.Addresses {
		entries = append(entries, entryOf(s, a))
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		addr, ok := ingressAddr(in)
		mine := ok && isVIP(in) && (d.Wanted || slices.Contains(d.Release, addr))
		if !mine {
			entries = append(entries, in)
		}
	}
	s.Status.LoadBalancer.Ingress = entries
	if !d.Wanted {
		for _, kind := range []string{AllocatedCondition, ReallocatedCondition, ReturnedCondition} {
			meta.RemoveStatusCondition(&s.Status.Conditions, kind)
		}
		return
	}
	state := metav1.ConditionFalse
	if d.Condition.OK {
		state = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{
		Type: AllocatedCondition, Status: state, Reason: d.Condition.Reason, Message: d.Condition.Message, ObservedGeneration: s.Generation,
	})
	if d.Handled == "" {
		meta.RemoveStatusCondition(&s.Status.Conditions, ReallocatedCondition)
		return
	}
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{
		Type: ReallocatedCondition, Status: metav1.ConditionTrue, Reason: "Done", Message: d.Handled, ObservedGeneration: s.Generation,
	})
}

// entryOf is the entry of an address: the one that is there, or a new one.
func entryOf(s *corev1.Service, a netip.Addr) corev1.LoadBalancerIngress {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if addr, ok := ingressAddr(in); ok && addr == a && isVIP(in) {
			return in
		}
	}
	mode := corev1.LoadBalancerIPModeVIP
	return corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode}
}

// stir changes a Service's status where nothing else does.
func stir(s *corev1.Service, now time.Time) {
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{
		Type: ReturnedCondition, Status: metav1.ConditionTrue, Reason: "Returned", Message: now.UTC().Format(time.RFC3339Nano),
		ObservedGeneration: s.Generation,
	})
}
