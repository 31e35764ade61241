package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

var errMore = errors.New("there is more after the end of the object; begin each document with a line \"---\"")

// object is one object of a file. It is not changed once made: that it is the
// same one says that nothing about it changed.
type object struct {
	key      any // such as model.ServiceKey
	put      any // nil: it is not for us, or cannot be used
	problems []model.Problem
	// keeps: it cannot be used, and what was told of it before stays. A mistake
	// in an edit is not a wish to have nothing.
	keeps    bool
	password *passwordFile // the other file it depends on; nil: none
}

// unknownField is how the JSON library begins to say that a type lacks a field.
const unknownField = "unknown field "

// mistake is why an object cannot be decoded, and where in it.
type mistake struct {
	field  string // path of the field; "": not known
	value  string // JSON's name of what stands there; "": not known
	reason string
}

// decoder makes objects of parts. It may be used by several goroutines.
type decoder struct {
	known func(string) bool
	dir   string // where relative paths of password files begin
	log   *slog.Logger
}

// part decodes one part: the objects in it, of which most parts have one, or
// what is wrong with it.
func (d decoder) part(p part) ([]*object, []fault) {
	body := p.body()
	js, is, err := toJSON(p, body)
	if err != nil {
		return nil, []fault{syntaxFault(p.line, err)}
	}
	if string(js) == "null" {
		return nil, nil
	}
	if js[0] != '{' {
		return nil, []fault{{p.line, "is not an object"}}
	}
	objects, mistakes := d.object(p.said(is), js)
	var faults []fault
	for _, m := range mistakes {
		faults = append(faults, fault{p.line + lineOf(body, m) - 1, m.reason})
	}
	return objects, faults
}

// said is what a part is: what it says, or, in the list of a kind, that kind.
func (p part) said(is kind) kind {
	if p.item && is == (kind{}) {
		return p.of
	}
	return is
}

// toJSON finds the JSON of a part and what it says it is.
func toJSON(p part, body []byte) (js []byte, is kind, err error) {
	js = body
	if !p.json {
		if js, is, ok := plainJSON(body); ok {
			return js, is, nil
		}
		if js, err = yaml.YAMLToJSONStrict(body); err != nil {
			return nil, kind{}, err
		}
		if !alone(body) {
			return nil, kind{}, errMore
		}
	}
	if js[0] != '{' {
		return js, kind{}, nil
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(js, &is)
	if broken, _ := kjson.SyntaxErrorOffset(err); broken {
		return nil, kind{}, err
	}
	return js, is, nil // a kind that is no string is found when the object is decoded
}

// alone reports whether nothing follows a document that the library has read:
// it stops at the end of the first and does not look further. That end is a line
// of its own, which split has found, unless the document is in flow style or
// has line ends that only YAML knows.
func alone(doc []byte) bool {
	if letter(bytes.TrimLeft(doc, " \n")[0]) && !oddBreaks(doc) {
		return true
	}
	d := yamlv3.NewDecoder(bytes.NewReader(doc))
	var first, second yamlv3.Node
	return d.Decode(&first) == nil && errors.Is(d.Decode(&second), io.EOF)
}

// oddBreaks reports whether a text has ends of lines that are not \n or \r\n.
func oddBreaks(text []byte) bool {
	for _, c := range []string{"\u0085", "\u2028", "\u2029"} {
		if bytes.Contains(text, []byte(c)) {
			return true
		}
	}
	return bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n"))
}

func (d decoder) object(is kind, js []byte) ([]*object, []mistake) {
	switch is {
	case kind{"v1", convert.ServiceKind}:
		return d.service(js)
	case kind{"discovery.k8s.io/v1", convert.EndpointSliceKind}:
		return d.slice(js)
	case kind{"v1", convert.NodeKind}:
		return d.node(js)
	case kind{"v1", convert.SecretKind}:
		return d.secret(js)
	case kind{"v1", convert.NamespaceKind}:
		return d.namespace(js)
	case kind{"v1", convert.PodKind}:
		return d.pod(js)
	case kind{"networking.k8s.io/v1", convert.NetworkPolicyKind}:
		return d.policy(js)
	case kind{v1alpha1.APIVersion, convert.AddressPoolKind}:
		return d.pool(js)
	case kind{v1alpha1.APIVersion, convert.BGPPeerKind}:
		return d.peer(js)
	case kind{v1alpha1.APIVersion, convert.BGPAdvertisementKind}:
		return d.advertisement(js)
	}
	if of, isList := is.item(); isList {
		return d.list(of, js)
	}
	return nil, d.passOver(is)
}

func (d decoder) service(js []byte) ([]*object, []mistake) {
	var s corev1.Service
	if m := strictly(js, &s, &s.ObjectMeta); m != nil {
		return nil, m
	}
	namespaced(&s.ObjectMeta)
	svc, ok, problems := convert.Service(&s, d.known)
	o := &object{key: model.ServiceKey{Name: nameOf(&s.ObjectMeta)}, problems: problems}
	if ok {
		o.put = svc
	} else {
		d.log.Debug("Service is not to be proxied", "service", nameOf(&s.ObjectMeta).String())
	}
	return []*object{o}, nil
}

func (d decoder) slice(js []byte) ([]*object, []mistake) {
	var s discoveryv1.EndpointSlice
	if m := strictly(js, &s, &s.ObjectMeta); m != nil {
		return nil, m
	}
	namespaced(&s.ObjectMeta)
	slice, ok, problems := convert.EndpointSlice(&s)
	o := &object{key: model.EndpointSliceKey{Name: nameOf(&s.ObjectMeta)}, problems: problems}
	if ok {
		o.put = slice
	}
	return []*object{o}, nil
}

func (d decoder) node(js []byte) ([]*object, []mistake) {
	var n corev1.Node
	if m := strictly(js, &n, &n.ObjectMeta); m != nil {
		return nil, m
	}
	node, _, problems := convert.Node(&n)
	return []*object{{key: model.NodeKey{Name: n.Name}, put: node, problems: problems}}, nil
}

// list decodes a List that could not be cut into items.
func (d decoder) list(of kind, js []byte) (objects []*object, mistakes []mistake) {
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(js, &list); err != nil {
		return nil, []mistake{{field: "items", reason: err.Error()}}
	}
	for i, item := range list.Items {
		var is kind
		// What is no object at all is found below.
		_ = kjson.UnmarshalCaseSensitivePreserveInts(item, &is)
		of := part{item: true, of: of}.said(is)
		found, wrong := d.object(of, item)
		objects = append(objects, found...)
		for _, m := range wrong {
			m.field = fmt.Sprintf("items[%d].%s", i, m.field)
			mistakes = append(mistakes, m)
		}
	}
	return objects, mistakes
}

// passOver says what is wrong with a kind that is not read; nil: nothing, it is
// not for us. A misspelt kind must not be taken for one of those.
func (d decoder) passOver(is kind) []mistake {
	gv, err := schema.ParseGroupVersion(is.APIVersion)
	gvk := gv.WithKind(is.Kind)
	switch {
	case is.Kind == "":
		return []mistake{{reason: "kind is missing"}}
	case is.APIVersion == "":
		return []mistake{{field: "kind", reason: "apiVersion is missing"}}
	case err != nil:
		return []mistake{{field: "apiVersion", reason: err.Error()}}
	case gv.Group == discoveryv1.GroupName && is.Kind == convert.EndpointSliceKind:
		return []mistake{{field: "apiVersion", reason: fmt.Sprintf("EndpointSlices of %s are not read; write apiVersion: discovery.k8s.io/v1", is.APIVersion)}}
	case is.Kind == convert.NetworkPolicyKind && (gv.Group == networkingv1.GroupName || gv.Group == "extensions"):
		return []mistake{{field: "apiVersion", reason: fmt.Sprintf("NetworkPolicies of %s are not read; write apiVersion: networking.k8s.io/v1", is.APIVersion)}}
	case gv.Group == v1alpha1.Group && is != kind{v1alpha1.APIVersion, v1alpha1.AddressClaimKind}:
		return []mistake{{field: "kind", reason: fmt.Sprintf("%s has no kind %q that is read from files; those of %s are AddressPool, BGPPeer and BGPAdvertisement",
			is.APIVersion, is.Kind, v1alpha1.APIVersion)}}
	case scheme.Scheme.IsVersionRegistered(gv) && !scheme.Scheme.Recognizes(gvk):
		return []mistake{{field: "kind", reason: fmt.Sprintf("%s has no kind %q", is.APIVersion, is.Kind)}}
	}
	d.log.Debug("object of a kind that is not used here", "apiVersion", is.APIVersion, "kind", is.Kind)
	return nil
}

// strictly decodes an object of which every field has to be known and stand
// once, as the API server reads what kubectl sends.
func strictly(js []byte, into any, meta *metav1.ObjectMeta) []mistake {
	if mistakes := fields(js, into); len(mistakes) > 0 {
		return mistakes
	}
	return unnamed(meta)
}

// fields decodes an object, and says which fields are unknown or stand twice.
func fields(js []byte, into any) []mistake {
	strict, err := kjson.UnmarshalStrict(js, into)
	if err != nil {
		return []mistake{typeMistake(js, into, err)}
	}
	var mistakes []mistake
	for _, err := range strict {
		m := mistake{reason: err.Error()}
		if f, ok := err.(kjson.FieldError); ok { //nolint:errorlint // never wrapped
			m.field = f.FieldPath()
		}
		mistakes = append(mistakes, m)
	}
	return mistakes
}

func unnamed(meta *metav1.ObjectMeta) []mistake {
	if meta.Name == "" {
		return []mistake{{field: "metadata", reason: "metadata.name is missing"}}
	}
	return nil
}

// typeMistake asks the standard library, which tells where it met a value of
// the wrong type.
func typeMistake(js []byte, into any, err error) mistake {
	var wrong *json.UnmarshalTypeError
	if errors.As(json.Unmarshal(js, into), &wrong) && wrong.Field != "" {
		return mistake{
			field:  wrong.Field,
			value:  wrong.Value,
			reason: fmt.Sprintf("%s: cannot use a value of type %s as %s", wrong.Field, wrong.Value, wrong.Type),
		}
	}
	return mistake{reason: err.Error()}
}

func namespaced(m *metav1.ObjectMeta) {
	if m.Namespace == "" {
		m.Namespace = metav1.NamespaceDefault
	}
}

func nameOf(m *metav1.ObjectMeta) model.Name {
	return model.Name{Namespace: m.Namespace, Name: m.Name}
}
