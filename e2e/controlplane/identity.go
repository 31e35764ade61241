package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// identity is what the API server proves who it is with, and its clients.
type identity struct {
	certFile  string // the server's certificate, and the authority that signed it
	keyFile   string
	saKeyFile string // signs service account tokens
	tokenFile string
	auditFile string // which requests are written down
	token     string // of the user who is in system:masters
	authority []byte
	// controllers is kube-controller-manager's kubeconfig, as whom RBAC knows it.
	controllers string
}

// auditPolicy has every request of a ServiceAccount written down, without what
// it says.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
 "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}`

// makeIdentity writes fresh keys, a token and the kubeconfig that fits them.
func makeIdentity(c config) (identity, error) {
	dir := filepath.Join(c.dir, "pki")
	id := identity{
		certFile:  filepath.Join(dir, "apiserver.crt"),
		keyFile:   filepath.Join(dir, "apiserver.key"),
		saKeyFile: filepath.Join(dir, "service-account.key"),
		tokenFile: filepath.Join(dir, "tokens.csv"),
		auditFile: filepath.Join(dir, "audit.json"),

		controllers: filepath.Join(dir, controllerManager+".conf"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return id, fmt.Errorf("make %s: %w", dir, err)
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	addrs := []net.IP{net.IPv4(10, 96, 0, 1), net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	crt, key, err := cert.GenerateSelfSignedCertKey(c.listen.Addr().String(), addrs, names)
	if err != nil {
		return id, fmt.Errorf("make the server's certificate: %w", err)
	}
	saKey, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return id, fmt.Errorf("make the service account key: %w", err)
	}
	id.token, id.authority = secret(), crt
	managerToken := secret()

	files := map[string][]byte{
		id.certFile:  crt,
		id.keyFile:   key,
		id.saKeyFile: saKey,
		id.auditFile: []byte(auditPolicy),
		id.tokenFile: []byte(id.token + ",admin,admin,system:masters\n" +
			managerToken + ",system:" + controllerManager + "," + controllerManager + "\n"),
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return id, fmt.Errorf("write the server's keys: %w", err)
		}
	}
	return id, errors.Join(
		writeKubeconfig(c, id, filepath.Join(c.dir, "kubeconfig"), id.token),
		writeKubeconfig(c, id, id.controllers, managerToken),
	)
}

func secret() string {
	text := make([]byte, 16)
	rand.Read(text) // never fails
	return hex.EncodeToString(text)
}

func writeKubeconfig(c config, id identity, path, token string) error {
	kc := clientcmdapi.NewConfig()
	kc.Clusters["lab"] = &clientcmdapi.Cluster{Server: serverURL(c), CertificateAuthorityData: id.authority}
	kc.AuthInfos["user"] = &clientcmdapi.AuthInfo{Token: token}
	kc.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "user"}
	kc.CurrentContext = "lab"
	if err := clientcmd.WriteToFile(*kc, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// client makes requests of the API server.
func (id identity) client() (*http.Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(id.authority) {
		return nil, errors.New("the server's certificate cannot be read back")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}

func serverURL(c config) string { return "https://" + c.listen.String() }
