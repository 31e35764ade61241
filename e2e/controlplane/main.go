// Command controlplane runs a real etcd and kube-apiserver in one process and,
// where -controllers names some, kube-controller-manager in another. There is
// no scheduler and no kubelet: whoever uses it writes Nodes and what becomes of
// Pods itself, and without controllers EndpointSlices too. Called as kube-proxy
// it is that.
//
//	controlplane -dir DIR -listen 192.0.2.1:6443 [-- apiserver flags...]
//	controlplane -authorization RBAC -audit -controllers all
//
// When the API answers, its default objects are there and the controllers run,
// DIR/kubeconfig has been written and the file `ready` appears: in
// $SLUICE_LAB_SHARED if that is set, so that it can be a companion of lab, else
// in DIR. A directory that was used before is used again, with the objects it
// has.
//
// It is not for production: writes are not synced to disk, and one token may
// do everything.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// config is the command line.
type config struct {
	dir           string
	listen        netip.AddrPort
	authorization string
	serviceCIDRs  string
	controllers   string // of kube-controller-manager; "": it does not run
	audit         bool
	timeout       time.Duration
	ready         string
	extra         []string // flags for kube-apiserver
}

func main() {
	serve := run
	switch filepath.Base(os.Args[0]) {
	case controllerManager:
		serve = beControllerManager
	case kubeProxy:
		serve = beKubeProxy
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func parse() (config, error) {
	shared := os.Getenv("SLUICE_LAB_SHARED")
	var c config
	flag.StringVar(&c.dir, "dir", shared, "`directory` for everything it writes; as a companion: $SLUICE_LAB_SHARED")
	listen := flag.String("listen", "192.0.2.1:6443", "`address` of the API server")
	flag.StringVar(&c.authorization, "authorization", "AlwaysAllow", "AlwaysAllow, RBAC, or what else kube-apiserver knows as authorization `mode`")
	flag.StringVar(&c.serviceCIDRs, "service-cidrs", "10.96.0.0/12,fd00:10:96::/112", "`networks` of ClusterIPs")
	flag.StringVar(&c.controllers, "controllers", "", "all: run kube-controller-manager, with the controllers that it runs by default; or `names` of some with commas between, of which serviceaccount-controller and root-ca-certificate-publisher-controller must be two")
	flag.BoolVar(&c.audit, "audit", false, "write down every request of a ServiceAccount in DIR/audit.log")
	flag.DurationVar(&c.timeout, "timeout", 2*time.Minute, "give up when not ready after this `time`")
	flag.Parse()
	c.extra = flag.Args()
	if c.dir == "" {
		return c, fmt.Errorf("-dir is missing")
	}
	var err error
	if c.listen, err = netip.ParseAddrPort(*listen); err != nil {
		return c, fmt.Errorf("-listen: %w", err)
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return c, fmt.Errorf("-dir: %w", err)
	}
	c.ready = filepath.Join(c.dir, "ready")
	if shared != "" {
		c.ready = filepath.Join(shared, "ready")
	}
	return c, nil
}

func run() error {
	c, err := parse()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("make -dir: %w", err)
	}
	// Of an earlier run in this directory.
	if err := os.RemoveAll(c.ready); err != nil {
		return fmt.Errorf("remove old ready file: %w", err)
	}
	id, err := makeIdentity(c)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(c)
	if err != nil {
		return err
	}
	// Neither server is shut down in the end: etcd would wait for the API
	// server's watches, the API server for its clients'. What was written is in
	// etcd's log, which a process that just ends does not harm.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- runAPIServer(ctx, apiServerFlags(c, id, etcd.Clients[0].Addr().String())) }()
	if err := awaitAPI(ctx, c, id, ended); err != nil {
		return err
	}
	var managerEnded <-chan error // nil: never
	if c.controllers != "" {
		if managerEnded, err = startControllers(c, id); err != nil {
			return err
		}
		if err := awaitControllers(ctx, c, id, managerEnded); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.ready, nil, 0o644); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	fmt.Fprintf(os.Stderr, "controlplane: ready after %.1f s\n", time.Since(begin).Seconds())
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return fmt.Errorf("the API server ended: %w", err)
	case err := <-managerEnded:
		return fmt.Errorf("%s ended: %w", controllerManager, err)
	}
}
