package nodeport_test

import "sluice.dev/sluice/internal/reconcile"

// difference is the change that makes have into want.
func difference[K, V comparable](want, have map[K]V) reconcile.Change[K, V] {
	var c reconcile.Change[K, V]
	for k, v := range want {
		if is, present := have[k]; !present || is != v {
			c.Puts = append(c.Puts, reconcile.Put[K, V]{Key: k, Spec: v, Present: present})
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}
