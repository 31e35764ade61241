package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// controllerManager is this program's name when it is to be
// kube-controller-manager: a process of its own, as feature gates, logging and
// metrics are one per process, and the API server has them.
const controllerManager = "kube-controller-manager"

// beControllerManager returns when kube-controller-manager has ended.
func beControllerManager() error {
	cmd := app.NewControllerManagerCommand()
	cmd.SetArgs(os.Args[1:])
	return cmd.Execute()
}

// controllerFlags are those that kubeadm gives it, but for the election, which
// it would win alone: every controller is a ServiceAccount of its own.
func controllerFlags(c config, id identity) []string {
	names := c.controllers
	if names == "all" {
		names = "*"
	}
	return []string{
		"--kubeconfig=" + id.controllers,
		"--controllers=" + names,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + id.saKeyFile,
		"--root-ca-file=" + id.certFile,
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=10257",
	}
}

// startControllers starts kube-controller-manager, which ends with this process.
// What is sent is why it has ended.
func startControllers(c config, id identity) (ended <-chan error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{controllerManager}, controllerFlags(c, id)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", controllerManager, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, nil
}

// awaitControllers waits until the controllers run, and have made what Pods of
// the namespace default need.
func awaitControllers(ctx context.Context, c config, id identity, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// Its certificate is one that it has made for itself, in memory.
	own := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer own.CloseIdleConnections()
	if err := await(ctx, own, "https://127.0.0.1:10257/healthz", "", ended); err != nil {
		return fmt.Errorf("%s: %w", controllerManager, err)
	}
	client, err := id.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	const namespace = "/api/v1/namespaces/default/"
	for _, path := range []string{namespace + "serviceaccounts/default", namespace + "configmaps/kube-root-ca.crt"} {
		if err := await(ctx, client, serverURL(c)+path, id.token, ended); err != nil {
			return fmt.Errorf("%s: %w", controllerManager, err)
		}
	}
	return nil
}

// await asks until the answer is 200, or who is asked has ended.
func await(ctx context.Context, client *http.Client, url, token string, ended <-chan error) error {
	for {
		err := get(ctx, client, url, token)
		if err == nil {
			return nil
		}
		select {
		case end := <-ended:
			return fmt.Errorf("ended before it was ready: %w", end)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
