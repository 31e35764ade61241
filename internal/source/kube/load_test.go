package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"

	"sluice.dev/sluice/internal/api/clienttest"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// TestLoad: a command sees what a source tells, problems included, and no more.
func TestLoad(t *testing.T) {
	done := podNamed("web-1", "b", "10.1.0.2")
	done.Status.Phase = corev1.PodSucceeded
	opts := Options{
		Client: fake.NewClientset(service("a", "10.96.0.1"), service("headless", "None"), slice("a-1", "a"), node("n1"),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, podNamed("web-0", "a", "10.1.0.1"), done, secret("kube-system")),
		API:     clienttest.New(t, pool("192.0.2.0/24")),
		Dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme, policy(t, "{ingress: [{form: []}]}")),
		Kinds:   Proxy | Routing | Policing,
	}
	newRefusal(opts.API.(*clienttest.Client), map[string]error{"bgppeers": unknown("bgppeers")})
	events, err := Load(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	known, problems := sourcetest.NewPicture(t, source.Kube), []string(nil)
	for _, e := range events {
		known.Event(e)
		if e.Problem != nil {
			problems = append(problems, e.Problem.Reason)
		}
	}
	known.Expect(t, "loaded", []string{
		"service shop/a : [10.96.0.1], 80/TCP", "slice shop/a-1 of a: 10.0.0.1", "node n1: []", "namespace shop: map[kubernetes.io/metadata.name:shop]",
		"pod shop/web-0 a: [10.1.0.1], on n1, labels map[app:web], http 8080/TCP", "policy shop/web: pods *, Ingress",
		"pool blue : 192.0.2.0-192.0.2.255", "secret tor: pass",
	})
	if !slices.Equal(problems, []string{"UnknownField"}) || known.Synced() {
		t.Errorf("problems %q, synced %v", problems, known.Synced())
	}
}

// TestLoadFails: a command is not to answer from half of what there is.
func TestLoadFails(t *testing.T) {
	for name, row := range map[string]struct {
		resource string
		err      error
		want     []string
	}{
		"pods refused":        {"pods", forbidden("pods"), []string{"pods of the API server", "allow them to be listed"}},
		"policies refused":    {"networkpolicies", forbidden("networkpolicies"), []string{"networkpolicies of the API server", "allow them to be listed"}},
		"policies not there":  {"networkpolicies", unknown("networkpolicies"), []string{"networkpolicies of the API server"}},
		"a secret refused":    {"secrets", forbidden("secrets"), []string{"secrets of the API server", "allow them to be listed"}},
		"nobody answers":      {"namespaces", refused(), []string{"namespaces of the API server", "connection refused"}},
		"the answer is wrong": {"pods", errors.New("nonsense"), []string{"pods of the API server", "nonsense"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := Options{Client: fake.NewClientset(), API: clienttest.New(t), Dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme), Kinds: Policing | Routing}
				newRefusal(opts.Client.(*fake.Clientset), map[string]error{row.resource: row.err})
				newRefusal(opts.Dynamic.(*dynamicfake.FakeDynamicClient), map[string]error{row.resource: row.err})
				events, err := Load(t.Context(), opts)
				if err == nil || events != nil {
					t.Fatalf("events %v, error %v", events, err)
				}
				for _, want := range row.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q does not say %q", err, want)
					}
				}
			})
		})
	}
}

// page is a list of objects, a few at a time as a server gives them.
func page(w http.ResponseWriter, r *http.Request, list runtime.Object, items []any) {
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
	end, next := min(from+2, len(items)), ""
	if r.URL.Query().Get("limit") == "" {
		end = len(items)
	}
	if end < len(items) {
		next = fmt.Sprint(end)
	}
	gvk := list.GetObjectKind().GroupVersionKind()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": gvk.GroupVersion().String(), "kind": gvk.Kind,
		"metadata": map[string]any{"resourceVersion": "7", "continue": next}, "items": items[from:end],
	})
}

// TestLoadFromServer: by way of real clients, page by page.
func TestLoadFromServer(t *testing.T) {
	var pods []any
	for i := range 5 {
		pods = append(pods, podNamed(fmt.Sprintf("web-%d", i), fmt.Sprint(i), fmt.Sprintf("10.1.0.%d", i+1)))
	}
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		switch r.URL.Path {
		case "/api/v1/pods":
			list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
			page(w, r, list, pods)
		case "/apis/networking.k8s.io/v1/networkpolicies":
			list := policy(t, "{}")
			list.SetKind("NetworkPolicyList")
			page(w, r, list, []any{policy(t, "{egress: [{namespaceSelector: {}}]}").Object})
		default:
			http.Error(w, "no", http.StatusForbidden)
		}
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "config")
	config := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: '" + server.URL + "'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(path)
	if err != nil {
		t.Fatal(err)
	}
	dynamic, err := NewDynamic(path)
	if err != nil {
		t.Fatal(err)
	}
	events, err := Load(t.Context(), Options{Client: client, Dynamic: dynamic, Kinds: Pods | NetworkPolicies})
	if err != nil {
		t.Fatal(err)
	}
	known := sourcetest.NewPicture(t, source.Kube)
	for _, e := range events {
		known.Event(e)
	}
	lines := known.Lines()
	if len(lines) != 6 || lines[5] != "policy shop/web: pods *, Ingress, Egress" || len(asked) != 4 {
		t.Errorf("known %q, asked %q", lines, asked)
	}
	if !slices.ContainsFunc(events, func(e model.Event) bool { return e.Problem != nil && e.Problem.Reason == "UnknownField" }) {
		t.Error("no word of the unknown field")
	}
	_, err = Load(t.Context(), Options{Client: client, Dynamic: dynamic, Kinds: Namespaces})
	if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(server.URL, "http://")) || !strings.Contains(err.Error(), "namespaces") {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, Options{Client: client, Dynamic: dynamic, Kinds: Pods}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
