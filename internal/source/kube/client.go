package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/internal/api/client"
)

// A node's proxy makes a few lists at start, watches, and now and then an
// Event: it is held back only when something is wrong.
const (
	qps   = 20
	burst = 40
)

// Who writes for the whole cluster makes some requests for each Service, and
// there may be many at once.
const (
	writerQPS   = 200
	writerBurst = 400
)

// NewClient makes a client from a kubeconfig file, or, when that is "", from
// the service account of the Pod it runs in.
func NewClient(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := configOf(kubeconfig)
	if err != nil {
		return nil, err
	}
	return newClient(config)
}

// NewWriter makes clients as NewClient and NewAPI do, for the one that writes for
// the whole cluster.
func NewWriter(kubeconfig string) (*kubernetes.Clientset, *client.Client, error) {
	config, err := loadConfig(kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config.QPS, config.Burst = writerQPS, writerBurst
	own, err := client.New(config)
	if err != nil {
		return nil, nil, err
	}
	core, err := newClient(config)
	return core, own, err
}

func newClient(config *rest.Config) (*kubernetes.Clientset, error) {
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", config.Host, err)
	}
	return client, nil
}

// NewAPI makes a client of our own kinds, of the same server as NewClient's.
func NewAPI(kubeconfig string) (*client.Client, error) {
	config, err := configOf(kubeconfig)
	if err != nil {
		return nil, err
	}
	return client.New(config)
}

// NewDynamic makes a client of objects without their types, of the same server as
// NewClient's.
func NewDynamic(kubeconfig string) (*dynamic.DynamicClient, error) {
	config, err := configOf(kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", config.Host, err)
	}
	return client, nil
}

func configOf(kubeconfig string) (*rest.Config, error) {
	config, err := loadConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = qps, burst
	return config, nil
}

func loadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("configuration in the cluster (no kubeconfig was given): %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}
