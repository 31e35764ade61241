package ipam

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// LeaseName is the Lease that leaders hold.
const LeaseName = "sluice-controller"

// The times of the election: how long a lease holds, how long its holder tries
// to renew it before he stops leading, and how often everybody tries.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// ElectOptions are what an election needs.
type ElectOptions struct {
	Client    kubernetes.Interface
	Namespace string // of the Lease
	Identity  string // of this process among all that ever run
	Log       *slog.Logger
}

// Elect makes ControllerOptions.Elect of a Lease. Who loses the lead stays a
// candidate.
func Elect(opts ElectOptions) func(context.Context, func(context.Context)) error {
	return func(ctx context.Context, lead func(context.Context)) error {
		ctx = klog.NewContext(ctx, logr.FromSlogHandler(opts.Log.Handler()))
		config := leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: opts.Namespace, Name: LeaseName},
				Client:     opts.Client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: opts.Identity},
			},
			Name:          LeaseName,
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: lead,
				OnStoppedLeading: func() {},
			},
		}
		for ctx.Err() == nil {
			elector, err := leaderelection.NewLeaderElector(config)
			if err != nil {
				return fmt.Errorf("election by Lease %s/%s: %w", opts.Namespace, LeaseName, err)
			}
			elector.Run(ctx)
		}
		return nil
	}
}
