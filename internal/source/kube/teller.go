package kube

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

// teller makes events of what an informer says of objects O, facts F of them.
// An informer calls its handler from one goroutine. An object that has another
// key under its name (a Pod of another UID) is another object, and the one before
// is gone, whether or not anybody saw that.
type teller[O metav1.Object, F any] struct {
	sink    source.Sink
	convert func(O) (F, bool, []model.Problem)
	key     func(F) any       // by which its deletion is told
	same    func(a, b O) bool // that there is no news; nil: there always is
	// keeps: an object that cannot be used any more leaves what was told of it
	// standing. A mistake in an edit is not a wish to have nothing.
	keeps bool

	told     map[model.Name]any             // the keys of what is put and not deleted
	problems map[model.Name][]model.Problem // told last; few objects have any
}

// OnAdd implements cache.ResourceEventHandler.
func (t *teller[O, F]) OnAdd(obj any, _ bool) {
	if o, ok := obj.(O); ok {
		t.tell(o)
	}
}

// OnUpdate implements cache.ResourceEventHandler. After a lost watch an
// informer reports everything as updated.
func (t *teller[O, F]) OnUpdate(before, obj any) {
	o, ok := obj.(O)
	if !ok {
		return
	}
	was, ok := before.(O)
	if ok && was.GetResourceVersion() != "" && was.GetResourceVersion() == o.GetResourceVersion() && was.GetUID() == o.GetUID() {
		return
	}
	if ok && t.same != nil && t.same(was, o) {
		return
	}
	t.tell(o)
}

// OnDelete implements cache.ResourceEventHandler. When a watch missed the
// deletion there may be nothing left but the name.
func (t *teller[O, F]) OnDelete(obj any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return
	}
	n := model.Name{Namespace: namespace, Name: name}
	delete(t.problems, n)
	t.gone(n)
}

func (t *teller[O, F]) tell(o O) {
	name := model.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
	fact, ok, problems := t.convert(o)
	t.complain(name, problems)
	if !ok && t.keeps && len(problems) > 0 {
		return
	}
	if !ok {
		t.gone(name)
		return
	}
	key := t.key(fact)
	if was, told := t.told[name]; told && was != key {
		t.gone(name)
	}
	if t.told == nil {
		t.told = map[model.Name]any{}
	}
	t.told[name] = key
	t.sink.Event(model.Event{Source: source.Kube, Put: fact})
}

// gone tells a deletion of what was told before: an object that never was ours
// is nothing to anyone.
func (t *teller[O, F]) gone(name model.Name) {
	key, told := t.told[name]
	if !told {
		return
	}
	delete(t.told, name)
	t.sink.Event(model.Event{Source: source.Kube, Delete: key})
}

// complain tells the problems that the object did not have before.
func (t *teller[O, F]) complain(name model.Name, problems []model.Problem) {
	before := t.problems[name]
	for i := range problems {
		if !slices.Contains(before, problems[i]) {
			t.sink.Event(model.Event{Source: source.Kube, Problem: &problems[i]})
		}
	}
	if len(problems) == 0 {
		delete(t.problems, name)
		return
	}
	if t.problems == nil {
		t.problems = map[model.Name][]model.Problem{}
	}
	t.problems[name] = problems
}
