package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
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
	token     string // of the one user, who is in system:masters
	authority []byte
}

// makeIdentity writes fresh keys, a token and the kubeconfig that fits them.
func makeIdentity(c config) (identity, error) {
	dir := filepath.Join(c.dir, "pki")
	id := identity{
		certFile:  filepath.Join(dir, "apiserver.crt"),
		keyFile:   filepath.Join(dir, "apiserver.key"),
		saKeyFile: filepath.Join(dir, "service-account.key"),
		tokenFile: filepath.Join(dir, "tokens.csv"),
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
	secret := make([]byte, 16)
	rand.Read(secret) // never fails
	id.token, id.authority = hex.EncodeToString(secret), crt

	files := map[string][]byte{
		id.certFile:  crt,
		id.keyFile:   key,
		id.saKeyFile: saKey,
		id.tokenFile: []byte(id.token + ",admin,admin,system:masters\n"),
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return id, fmt.Errorf("write the server's keys: %w", err)
		}
	}
	return id, writeKubeconfig(c, id)
}

func writeKubeconfig(c config, id identity) error {
	kc := clientcmdapi.NewConfig()
	kc.Clusters["lab"] = &clientcmdapi.Cluster{Server: serverURL(c), CertificateAuthorityData: id.authority}
	kc.AuthInfos["admin"] = &clientcmdapi.AuthInfo{Token: id.token}
	kc.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "admin"}
	kc.CurrentContext = "lab"
	if err := clientcmd.WriteToFile(*kc, filepath.Join(c.dir, "kubeconfig")); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

func serverURL(c config) string { return "https://" + c.listen.String() }
