package ipam

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// Cluster is what a Controller reads and writes. Readings are of what is, never
// of a cache. Whatever is written has the resourceVersion that it was read with,
// and is refused (a conflict, by package api/errors) when that is not the newest
// any more; claims are deleted under the same condition. Objects that are handed
// over are not changed by either side afterwards.
type Cluster interface {
	Services(context.Context) ([]corev1.Service, error)
	Service(context.Context, model.Name) (*corev1.Service, error)
	UpdateServiceStatus(context.Context, *corev1.Service) (*corev1.Service, error)

	Claims(context.Context) ([]v1alpha1.AddressClaim, error)
	Claim(ctx context.Context, name string) (*v1alpha1.AddressClaim, error)
	CreateClaim(context.Context, *v1alpha1.AddressClaim) error
	UpdateClaim(context.Context, *v1alpha1.AddressClaim) error
	DeleteClaim(context.Context, *v1alpha1.AddressClaim) error

	Pool(ctx context.Context, name string) (*v1alpha1.AddressPool, error)
	UpdatePoolStatus(context.Context, *v1alpha1.AddressPool) error
}

// page is how many objects are asked for at once.
const page = 500

// NewCluster is the Cluster behind an API server.
func NewCluster(core kubernetes.Interface, own client.Interface) Cluster {
	return cluster{core: core, own: own}
}

type cluster struct {
	core kubernetes.Interface
	own  client.Interface
}

// Services implements Cluster.
func (c cluster) Services(ctx context.Context) ([]corev1.Service, error) {
	var all []corev1.Service
	opts := metav1.ListOptions{Limit: page}
	for {
		list, err := c.core.CoreV1().Services(metav1.NamespaceAll).List(ctx, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
		if opts.Continue = list.Continue; opts.Continue == "" {
			return all, nil
		}
	}
}

// Service implements Cluster.
func (c cluster) Service(ctx context.Context, name model.Name) (*corev1.Service, error) {
	return c.core.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
}

// UpdateServiceStatus implements Cluster.
func (c cluster) UpdateServiceStatus(ctx context.Context, s *corev1.Service) (*corev1.Service, error) {
	return c.core.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
}

// Claims implements Cluster.
func (c cluster) Claims(ctx context.Context) ([]v1alpha1.AddressClaim, error) {
	var all []v1alpha1.AddressClaim
	opts := metav1.ListOptions{Limit: page}
	for {
		list, err := c.own.AddressClaims().List(ctx, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
		if opts.Continue = list.Continue; opts.Continue == "" {
			return all, nil
		}
	}
}

// Claim implements Cluster.
func (c cluster) Claim(ctx context.Context, name string) (*v1alpha1.AddressClaim, error) {
	return c.own.AddressClaims().Get(ctx, name, metav1.GetOptions{})
}

// CreateClaim implements Cluster.
func (c cluster) CreateClaim(ctx context.Context, claim *v1alpha1.AddressClaim) error {
	_, err := c.own.AddressClaims().Create(ctx, claim, metav1.CreateOptions{})
	return err
}

// UpdateClaim implements Cluster.
func (c cluster) UpdateClaim(ctx context.Context, claim *v1alpha1.AddressClaim) error {
	_, err := c.own.AddressClaims().Update(ctx, claim, metav1.UpdateOptions{})
	return err
}

// DeleteClaim implements Cluster.
func (c cluster) DeleteClaim(ctx context.Context, claim *v1alpha1.AddressClaim) error {
	return c.own.AddressClaims().Delete(ctx, claim.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &claim.UID, ResourceVersion: &claim.ResourceVersion},
	})
}

// Pool implements Cluster.
func (c cluster) Pool(ctx context.Context, name string) (*v1alpha1.AddressPool, error) {
	return c.own.AddressPools().Get(ctx, name, metav1.GetOptions{})
}

// UpdatePoolStatus implements Cluster.
func (c cluster) UpdatePoolStatus(ctx context.Context, p *v1alpha1.AddressPool) error {
	_, err := c.own.AddressPools().UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}
