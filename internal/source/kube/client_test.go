package kube

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestNewClient(t *testing.T) {
	var accept string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept = r.Header.Get("Accept")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"ServiceList","apiVersion":"v1","items":[]}`))
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "config")
	config := `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "` + server.URL + `"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(accept, "application/vnd.kubernetes.protobuf,") {
		t.Errorf("asks for %q", accept)
	}
	if got := serverOf(client); !strings.HasSuffix(server.URL, got) || got == "" {
		t.Errorf("server %q, want %s", got, server.URL)
	}
	if got := serverOf(fake.NewClientset()); got != "" {
		t.Errorf("server of a fake: %q", got)
	}
}

func TestNewClientErrors(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := NewClient(""); err == nil || !strings.Contains(err.Error(), "no kubeconfig was given") {
		t.Errorf("outside a cluster: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := NewClient(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
}

// TestConnect: the server is the master's, before the kubeconfig's; every client
// has the rate that was asked for.
func TestConnect(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	path := filepath.Join(t.TempDir(), "config")
	config := `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://192.0.2.1:1"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kubeconfig, master, want string }{
		{path, "", "192.0.2.1:1"},
		{path, "http://192.0.2.2:2", "192.0.2.2:2"},
		{"", "http://192.0.2.2:2", "192.0.2.2:2"},
	} {
		clients, err := Connect(Connection{Kubeconfig: c.kubeconfig, Master: c.master, QPS: 7, Burst: 9})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		rest := clients.Core.CoreV1().RESTClient()
		if got := rest.Get().URL().Host; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
		if qps := rest.GetRateLimiter().QPS(); qps != 7 || clients.API == nil || clients.Dynamic == nil {
			t.Errorf("%+v: %v requests a second, %+v", c, qps, clients)
		}
	}
	if _, err := Connect(Connection{QPS: 7, Burst: 9}); err == nil || !strings.Contains(err.Error(), "no kubeconfig was given") {
		t.Errorf("nowhere: %v", err)
	}
}
