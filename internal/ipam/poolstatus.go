package ipam

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

// The conditions in a pool's status.
const (
	// PoolUsableCondition says whether the pool gives all that it lists.
	PoolUsableCondition = "Usable"
	// PoolAvailableCondition says whether there is a free address.
	PoolAvailableCondition = "AddressesAvailable"
)

// writePools writes the pools' status where it changed, and tells the problems
// that are new.
func (c *Controller) writePools() {
	c.due.pools = time.Now().Add(poolPeriod)
	counts := c.allocator.Pools()
	for _, p := range counts {
		c.tellPool(p)
		was, written := c.pools[p.Name]
		if written && was.UID == p.UID && was.Assigned == p.Assigned && was.Available == p.Available && slices.Equal(was.Problems, p.Problems) {
			continue
		}
		if c.writePool(p) {
			c.pools[p.Name] = p
		}
	}
}

// tellPool tells the problems that a pool did not have before.
func (c *Controller) tellPool(p PoolCounts) {
	for _, problem := range p.Problems {
		if !slices.Contains(c.told[p.Name], problem) {
			c.opts.Problem(problem)
		}
	}
	c.told[p.Name] = p.Problems
}

// writePool reports whether a pool's status says how it is. What failed is tried
// again with the next writing.
func (c *Controller) writePool(p PoolCounts) bool {
	live, err := c.opts.Cluster.Pool(c.term, p.Name)
	if err == nil && string(live.UID) == p.UID {
		next := live.DeepCopy()
		next.Status.AssignedIPv4, next.Status.AssignedIPv6 = p.Assigned[0], p.Assigned[1]
		next.Status.AvailableIPv4, next.Status.AvailableIPv6 = p.Available[0], p.Available[1]
		for _, condition := range poolConditions(p) {
			condition.ObservedGeneration = live.Generation
			meta.SetStatusCondition(&next.Status.Conditions, condition)
		}
		if equality.Semantic.DeepEqual(next.Status, live.Status) {
			return true
		}
		err = c.opts.Cluster.UpdatePoolStatus(c.term, next)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && c.term.Err() == nil {
		c.log.Warn("status of a pool not written, trying again", "pool", p.Name, "err", err)
	}
	return err == nil
}

func poolConditions(p PoolCounts) []metav1.Condition {
	usable := metav1.Condition{Type: PoolUsableCondition, Status: metav1.ConditionTrue, Reason: "Usable", Message: "every address of the pool can be given"}
	if len(p.Problems) > 0 {
		usable = metav1.Condition{Type: PoolUsableCondition, Status: metav1.ConditionFalse, Reason: p.Problems[0].Reason, Message: joinMessages(p.Problems)}
	}
	available := metav1.Condition{Type: PoolAvailableCondition, Status: metav1.ConditionTrue, Reason: "Available", Message: "there are free addresses"}
	if p.Available == [2]int64{} {
		available = metav1.Condition{Type: PoolAvailableCondition, Status: metav1.ConditionFalse, Reason: PoolExhausted,
			Message: "spec.addresses: no address is free; add some, or remove a Service that needs none"}
	}
	return []metav1.Condition{usable, available}
}

func joinMessages(problems []model.Problem) string {
	messages := make([]string, 0, len(problems))
	for _, p := range problems {
		messages = append(messages, p.Message)
	}
	return strings.Join(messages, "; ")
}
