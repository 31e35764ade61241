package ipam

import (
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// ReturningAnnotation is on an AddressClaim of which some holders are giving the
// address back: "namespace/name/uid", with commas between them. They may not be
// told to have it any more, and nobody else may have it until they are off the
// list.
const ReturningAnnotation = "sluice.dev/returning"

// claimName is the name of the claim of an address.
func claimName(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	return strings.ReplaceAll(a.StringExpanded(), ":", "-")
}

// claim is who has an address, as an AddressClaim says it.
type claim struct {
	object    *v1alpha1.AddressClaim
	holders   []Holder
	returning []Holder
}

func newClaim(a netip.Addr) claim {
	return claim{object: &v1alpha1.AddressClaim{
		ObjectMeta: metav1.ObjectMeta{Name: claimName(a)},
		Spec:       v1alpha1.AddressClaimSpec{Address: a.String()},
	}}
}

func readClaim(o *v1alpha1.AddressClaim) claim {
	c := claim{object: o}
	for _, h := range o.Spec.Holders {
		c.holders = append(c.holders, Holder{model.Name{Namespace: h.Namespace, Name: h.Name}, string(h.UID)})
	}
	for entry := range strings.SplitSeq(o.Annotations[ReturningAnnotation], ",") {
		if parts := strings.SplitN(entry, "/", 3); len(parts) == 3 {
			c.returning = append(c.returning, Holder{model.Name{Namespace: parts[0], Name: parts[1]}, parts[2]})
		}
	}
	return c
}

// addr is the address that is claimed; ok is false of a claim that nobody can
// read.
func (c claim) addr() (addr netip.Addr, ok bool) {
	addr, err := netip.ParseAddr(c.object.Spec.Address)
	return addr.Unmap(), err == nil
}

// write is the claim as an object to be written.
func (c claim) write(key string) *v1alpha1.AddressClaim {
	o := c.object.DeepCopy()
	o.Spec.SharingKey = key
	o.Spec.Holders = nil
	for _, h := range c.holders {
		o.Spec.Holders = append(o.Spec.Holders, v1alpha1.AddressHolder{Namespace: h.Name.Namespace, Name: h.Name.Name, UID: types.UID(h.UID)})
	}
	delete(o.Annotations, ReturningAnnotation)
	if len(c.returning) > 0 {
		entries := make([]string, 0, len(c.returning))
		for _, h := range c.returning {
			entries = append(entries, h.Name.Namespace+"/"+h.Name.Name+"/"+h.UID)
		}
		metav1.SetMetaDataAnnotation(&o.ObjectMeta, ReturningAnnotation, strings.Join(entries, ","))
	}
	return o
}

func (c claim) empty() bool { return len(c.holders)+len(c.returning) == 0 }

func (c claim) holds(h Holder) bool { return slices.Contains(c.holders, h) }

// lists reports whether the claim names somebody at all.
func (c claim) lists(h Holder) bool { return c.holds(h) || slices.Contains(c.returning, h) }

// everybody are all whom the claim names.
func (c claim) everybody() []Holder { return slices.Concat(c.holders, c.returning) }

// without is the claim without somebody.
func (c claim) without(h Holder) claim {
	not := func(o Holder) bool { return o == h }
	c.holders = slices.DeleteFunc(slices.Clone(c.holders), not)
	c.returning = slices.DeleteFunc(slices.Clone(c.returning), not)
	return c
}

// with is the claim with one more holder.
func (c claim) with(h Holder) claim {
	c = c.without(h)
	c.holders = append(c.holders, h)
	return c
}

// returned is the claim with somebody who gives the address back.
func (c claim) returned(h Holder) claim {
	c = c.without(h)
	c.returning = append(c.returning, h)
	return c
}
