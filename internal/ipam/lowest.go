package ipam

import "container/heap"

// minSet is a set that knows its least member: a heap whose members are removed
// by forgetting them, and leave the heap when they reach its top. A member that
// comes back before that is not put in twice, so the heap never holds more than
// there were different members.
type minSet[T comparable] struct {
	order heapOf[T]
	in    map[T]bool // in the heap; false: no member any more
	n     int
}

func newMinSet[T comparable](less func(a, b T) bool) minSet[T] {
	return minSet[T]{order: heapOf[T]{less: less}, in: map[T]bool{}}
}

func (s *minSet[T]) len() int { return s.n }

func (s *minSet[T]) add(m T) {
	member, queued := s.in[m]
	if member {
		return
	}
	s.in[m] = true
	s.n++
	if !queued {
		heap.Push(&s.order, m)
	}
}

func (s *minSet[T]) remove(m T) {
	if s.in[m] {
		s.in[m] = false
		s.n--
	}
}

// min is the least member, if there is one.
func (s *minSet[T]) min() (T, bool) {
	for len(s.order.all) > 0 {
		top := s.order.all[0]
		if s.in[top] {
			return top, true
		}
		heap.Pop(&s.order)
		delete(s.in, top)
	}
	var none T
	return none, false
}

// pop removes the least member and returns it.
func (s *minSet[T]) pop() (T, bool) {
	m, ok := s.min()
	if ok {
		s.remove(m)
	}
	return m, ok
}

// heapOf implements heap.Interface.
type heapOf[T any] struct {
	all  []T
	less func(a, b T) bool
}

func (h *heapOf[T]) Len() int           { return len(h.all) }
func (h *heapOf[T]) Less(i, j int) bool { return h.less(h.all[i], h.all[j]) }
func (h *heapOf[T]) Swap(i, j int)      { h.all[i], h.all[j] = h.all[j], h.all[i] }

// Push implements heap.Interface.
func (h *heapOf[T]) Push(m any) { h.all = append(h.all, m.(T)) }

// Pop implements heap.Interface.
func (h *heapOf[T]) Pop() any {
	last := len(h.all) - 1
	m := h.all[last]
	h.all = h.all[:last]
	return m
}
