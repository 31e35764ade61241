package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// attempts is how often a write that met somebody else's is tried at once;
// after that the Service waits for its next turn.
const attempts = 5

// conflictWait is the time before the second attempt. It doubles.
const conflictWait = 20 * time.Millisecond

// writer carries decisions out. It keeps nothing between two of them, and may
// be used from several goroutines.
type writer struct{ cluster Cluster }

// outcome is how far a task came. At most one of adopt, refused, alive and err
// is set: then the Service is decided upon again.
type outcome struct {
	released []netip.Addr            // nobody is told to have them any more
	standing *standing               // what its status says now
	adopt    *standing               // what somebody else has written, and is claimed now
	others   map[netip.Addr][]Holder // who else has what is to be adopted
	refused  netip.Addr              // belongs to by
	by       string
	alive    bool // the Service that was told to be gone is there
	err      error
}

// carry makes the cluster as a decision says. The order of its writes is what
// the package comment promises: whoever else carries out another decision on the
// same Service or address at the same time, even after a pause of any length
// between two writes, no address is in two Services' status.
func (w writer) carry(ctx context.Context, d Decision) outcome {
	var err error
	for n := range attempts {
		var o outcome
		if o, err = w.attempt(ctx, d); err == nil {
			return o
		}
		if !overtaken(err) || !pause(ctx, conflictWait<<n) {
			break
		}
	}
	return outcome{err: err}
}

// overtaken reports whether somebody else was quicker: he wrote or deleted what
// was read before.
func overtaken(err error) bool { return apierrors.IsConflict(err) || apierrors.IsNotFound(err) }

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (w writer) attempt(ctx context.Context, d Decision) (outcome, error) {
	live, err := w.cluster.Service(ctx, d.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return outcome{}, fmt.Errorf("read Service %s: %w", d.Name, err)
	}
	if err != nil || string(live.UID) != d.UID { // it is no more, and nothing can be written to it
		if _, err := w.mark(ctx, d); err != nil {
			return outcome{}, err
		}
		return w.letGo(ctx, d, outcome{})
	}
	if d.Gone {
		return outcome{alive: true}, nil
	}
	if d.Wanted {
		if o, err := w.given(ctx, readStanding(live), d); err != nil || o.adopt != nil {
			return o, err
		}
	}
	return w.write(ctx, live, d)
}

// write makes a Service that was just read, its claims and its status as a
// decision says.
func (w writer) write(ctx context.Context, live *corev1.Service, d Decision) (outcome, error) {
	returning, err := w.mark(ctx, d)
	if err != nil {
		return outcome{}, err
	}
	for _, a := range d.Addresses {
		told := slices.Contains(readStanding(live).ours, a)
		if by, _, err := w.claim(ctx, a, d, told); err != nil || by != "" {
			return outcome{refused: a, by: by}, err
		}
	}
	now, err := w.tell(ctx, live, d, returning)
	if err != nil {
		return outcome{}, err
	}
	return w.letGo(ctx, d, outcome{standing: &now})
}

// given looks for what this decision knows nothing of: an address that somebody
// else gave to the Service, or a new address that was asked for and that somebody
// else has seen to. It stands if the Service has the claim, or gets it now; what
// is left in the status of addresses that others have claimed is overwritten.
func (w writer) given(ctx context.Context, st standing, d Decision) (outcome, error) {
	done := st.said && st.asked != "" && st.handled == st.asked && d.Handled != st.asked
	var stands []netip.Addr
	news := done
	others := map[netip.Addr][]Holder{}
	for _, a := range st.ours {
		switch {
		case slices.Contains(d.Addresses, a):
			stands = append(stands, a)
		case done || !slices.Contains(d.Dropped, a):
			by, with, err := w.claim(ctx, a, d, false)
			if err != nil {
				return outcome{}, err
			}
			if by == "" {
				news = true
				stands, others[a] = append(stands, a), with
			}
		}
	}
	if !news {
		return outcome{}, nil
	}
	st.ours = stands
	return outcome{adopt: &st, others: others}, nil
}

// tell writes a Service's status, if it says anything else. Where an address is
// being returned it is written in any case: a write that was decided upon before
// that must not succeed any more.
func (w writer) tell(ctx context.Context, live *corev1.Service, d Decision, returning bool) (standing, error) {
	next := live.DeepCopy()
	apply(next, d)
	if equality.Semantic.DeepEqual(next.Status, live.Status) {
		if !returning {
			return readStanding(live), nil
		}
		stir(next, time.Now())
	}
	next, err := w.cluster.UpdateServiceStatus(ctx, next)
	if err != nil {
		return standing{}, fmt.Errorf("write status of Service %s: %w", d.Name, err)
	}
	return readStanding(next), nil
}

// mark says on the claims of what a Service releases that it gives them back;
// listed is whether any of them names it at all.
func (w writer) mark(ctx context.Context, d Decision) (listed bool, err error) {
	for _, a := range d.Release {
		c, err := w.read(ctx, a)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return false, err
		case c.holds(d.Holder):
			if err := w.update(ctx, c.returned(d.Holder), c.object.Spec.SharingKey); err != nil {
				return false, err
			}
		}
		listed = listed || c.lists(d.Holder)
	}
	return listed, nil
}

// letGo takes a Service off the claims of what it released. One that has become
// a holder again since it was marked is somebody else's doing, and not let go.
func (w writer) letGo(ctx context.Context, d Decision, o outcome) (outcome, error) {
	for _, a := range d.Release {
		c, err := w.read(ctx, a)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return o, err
		case c.holds(d.Holder):
			return o, apierrors.NewConflict(schema.GroupResource{Resource: v1alpha1.AddressClaims}, c.object.Name, errors.New("claimed again while it was returned"))
		case c.lists(d.Holder):
			if err := w.update(ctx, c.without(d.Holder), c.object.Spec.SharingKey); err != nil {
				return o, err
			}
		}
		o.released = append(o.released, a)
	}
	return o, nil
}

// claim makes a Service a holder of an address. by says who has it instead, if
// somebody does who is not known to share it; with are the other holders. An
// address that was adopted from several Services' statuses is claimed by one of
// them only: told says that the Service has been told it in the status that is
// going to be written, and so may keep it.
func (w writer) claim(ctx context.Context, a netip.Addr, d Decision, told bool) (by string, with []Holder, err error) {
	fresh := newClaim(a).with(d.Holder)
	err = w.cluster.CreateClaim(ctx, fresh.write(d.Key))
	if !apierrors.IsAlreadyExists(err) {
		return "", nil, wrap("create AddressClaim", fresh, err)
	}
	c, err := w.read(ctx, a)
	if err != nil {
		return "", nil, err
	}
	key := c.object.Spec.SharingKey
	if c.lists(d.Holder) && len(c.everybody()) > 1 { // it was let in before; until it is let go, it may come back
		if !c.holds(d.Holder) {
			err = w.update(ctx, c.with(d.Holder), key)
		}
		return "", c.without(d.Holder).holders, err
	}
	if c.holds(d.Holder) && key == d.Key {
		return "", nil, nil
	}
	for _, other := range c.without(d.Holder).everybody() {
		if key == d.Key && slices.Contains(d.With[a], other) {
			continue
		}
		alive, err := w.alive(ctx, other)
		if err != nil {
			return "", nil, err
		}
		if alive && told {
			return "", nil, nil
		}
		if alive {
			return "Service " + other.String() + " (AddressClaim " + c.object.Name + ")", nil, nil
		}
		c = c.without(other)
	}
	with = c.without(d.Holder).holders
	return "", with, w.update(ctx, c.with(d.Holder), d.Key)
}

// alive reports whether a Service is there.
func (w writer) alive(ctx context.Context, h Holder) (bool, error) {
	live, err := w.cluster.Service(ctx, h.Name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read Service %s: %w", h.Name, err)
	}
	return string(live.UID) == h.UID, nil
}

func (w writer) read(ctx context.Context, a netip.Addr) (claim, error) {
	o, err := w.cluster.Claim(ctx, claimName(a))
	if err != nil {
		return claim{}, wrap("read AddressClaim", newClaim(a), err)
	}
	return readClaim(o), nil
}

// update writes a claim, or deletes it when it names nobody.
func (w writer) update(ctx context.Context, c claim, key string) error {
	if c.empty() {
		if err := w.cluster.DeleteClaim(ctx, c.object); !apierrors.IsNotFound(err) {
			return wrap("delete AddressClaim", c, err)
		}
		return nil
	}
	return wrap("write AddressClaim", c, w.cluster.UpdateClaim(ctx, c.write(key)))
}

func wrap(verb string, c claim, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, c.object.Name, err)
}

// nameOfService is a Service's name as the model has it.
func nameOfService(s *corev1.Service) model.Name {
	return model.Name{Namespace: s.Namespace, Name: s.Name}
}
