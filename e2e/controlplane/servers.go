package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// startEtcd starts a single member on free ports of the loopback.
func startEtcd(c config) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = "lab"
	cfg.Dir = filepath.Join(c.dir, "etcd")
	cfg.LogLevel = "warn"
	cfg.LogOutputs = []string{"stderr"}
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = loopback, loopback
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = loopback, loopback
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-time.After(c.timeout):
		return nil, fmt.Errorf("etcd not ready after %v", c.timeout)
	}
}

// apiServerFlags are those of a kube-apiserver whose etcd is ours.
func apiServerFlags(c config, id identity, etcd string) []string {
	addr := c.listen.Addr().String()
	flags := []string{
		"--etcd-servers=http://" + etcd,
		"--bind-address=" + addr,
		"--advertise-address=" + addr,
		"--secure-port=" + strconv.Itoa(int(c.listen.Port())),
		"--tls-cert-file=" + id.certFile,
		"--tls-private-key-file=" + id.keyFile,
		"--token-auth-file=" + id.tokenFile,
		"--authorization-mode=" + c.authorization,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + id.saKeyFile,
		"--service-account-signing-key-file=" + id.saKeyFile,
		"--service-cluster-ip-range=" + c.serviceCIDRs,
		"--allow-privileged=true",
	}
	if c.controllers == "" {
		// It rejects Pods for want of a service account, which a controller
		// would make.
		flags = append(flags, "--disable-admission-plugins=ServiceAccount")
	}
	if c.audit {
		flags = append(flags, "--audit-policy-file="+id.auditFile, "--audit-log-path="+filepath.Join(c.dir, "audit.log"))
	}
	return append(flags, c.extra...)
}

// runAPIServer returns when the API server has ended; it does so by itself at
// the signals that end this program.
func runAPIServer(ctx context.Context, flags []string) error {
	cmd := app.NewAPIServerCommand()
	cmd.SetArgs(flags)
	if err := cmd.Execute(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// awaitAPI waits until the API is ready and has the objects every cluster has.
func awaitAPI(ctx context.Context, c config, id identity, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	client, err := id.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/readyz", "/api/v1/namespaces/default/services/kubernetes"} {
		if err := await(ctx, client, serverURL(c)+path, id.token, ended); err != nil {
			return fmt.Errorf("the API server: %w", err)
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return nil
}
