package kube

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/internal/api/client"
)

// Connection says how an API server is reached.
type Connection struct {
	Kubeconfig string // file; "": the service account of the Pod this runs in
	// Master is the server's URL, which goes before what Kubeconfig or the Pod's
	// environment say; "": they say it.
	Master string
	// QPS and Burst are how many requests a second each client makes, and how
	// many at once; below 0: as many as it likes.
	QPS   float32
	Burst int
}

// Clients are those of one API server: of Kubernetes's kinds, of ours, and of
// objects without their types.
type Clients struct {
	Core    *kubernetes.Clientset
	API     *client.Client
	Dynamic *dynamic.DynamicClient
}

// Connect makes the clients of an agent.
func Connect(c Connection) (clients Clients, err error) {
	config, err := load(c.Kubeconfig, c.Master)
	if err != nil {
		return Clients{}, err
	}
	config.QPS, config.Burst = c.QPS, c.Burst
	if clients.API, err = client.New(config); err != nil {
		return Clients{}, err
	}
	if clients.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return Clients{}, fmt.Errorf("client of %s: %w", config.Host, err)
	}
	clients.Core, err = newClient(rest.CopyConfig(config))
	return clients, err
}

// The rate of an agent's requests. It makes a few lists at start, watches, and
// now and then an Event: it is held back only when something is wrong.
const (
	DefaultQPS   = 20
	DefaultBurst = 40
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
	config.QPS, config.Burst = DefaultQPS, DefaultBurst
	return config, nil
}

func loadConfig(kubeconfig string) (*rest.Config, error) { return load(kubeconfig, "") }

// load finds the server and the credentials for it. With a master and no
// kubeconfig they are the Pod's, if this runs in one, or none.
func load(kubeconfig, master string) (*rest.Config, error) {
	if kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags(master, kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	switch {
	case err == nil && master != "":
		config.Host = master
	case err == nil:
	case errors.Is(err, rest.ErrNotInCluster) && master != "":
		return &rest.Config{Host: master}, nil
	default:
		return nil, fmt.Errorf("configuration in the cluster (no kubeconfig was given): %w", err)
	}
	return config, nil
}
