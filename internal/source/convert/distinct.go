package convert

import "slices"

// few is how many elements are looked through faster than hashed.
const few = 8

// distinct is a list in which each value stands once, where it came first.
type distinct[T comparable] struct {
	list []T
	seen map[T]struct{} // once list is long
}

func (d *distinct[T]) add(v T) {
	if len(d.list) < few {
		if !slices.Contains(d.list, v) {
			d.list = append(d.list, v)
		}
		return
	}
	if d.seen == nil {
		d.seen = make(map[T]struct{}, 2*few)
		for _, old := range d.list {
			d.seen[old] = struct{}{}
		}
	}
	if _, twice := d.seen[v]; twice {
		return
	}
	d.seen[v] = struct{}{}
	d.list = append(d.list, v)
}
