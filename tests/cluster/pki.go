package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"
)

// lifetime of the certificates: a cluster for tests is younger.
const lifetime = 90 * 24 * time.Hour

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         string
}

// makePKI writes the keys and certificates of all programs, and a kubeconfig for each client.
func makePKI(state string, s *Settings) error {
	folder := filepath.Join(state, "pki")
	ca, err := newAuthority(folder, "ca", "slipway-cluster")
	if err != nil {
		return err
	}
	front, err := newAuthority(folder, "front-proxy-ca", "slipway-cluster-front-proxy")
	if err != nil {
		return err
	}
	if err := newServiceAccountKey(folder); err != nil {
		return err
	}
	for _, server := range []struct {
		file  string
		hosts []string
	}{
		{"apiserver", []string{
			"127.0.0.1", "localhost", s.nodeIP(), s.apiIP(),
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		}},
		{"kubelet-serving", []string{"127.0.0.1", s.nodeIP(), nodeName}},
		{"metrics-serving", []string{"metrics-server.kube-system.svc"}},
	} {
		if _, _, err := ca.issue(folder, server.file, pkix.Name{CommonName: server.file}, server.hosts); err != nil {
			return err
		}
	}
	if _, _, err := front.issue(folder, "front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, nil); err != nil {
		return err
	}
	for _, client := range []struct{ file, user, group, server string }{
		{"apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters", ""},
		{"admin", "slipway-cluster-admin", "system:masters", s.innerAPI()},
		{"controller-manager", "system:kube-controller-manager", "", s.innerAPI()},
		{"scheduler", "system:kube-scheduler", "", s.innerAPI()},
		{"kubelet", "system:node:" + nodeName, "system:nodes", s.innerAPI()},
		{"proxy", "system:kube-proxy", "", s.innerAPI()},
		{"coredns", "system:coredns", "", s.innerAPI()},
		{"metrics-server", "system:metrics-server", "", s.innerAPI()},
	} {
		name := pkix.Name{CommonName: client.user}
		if client.group != "" {
			name.Organization = []string{client.group}
		}
		certificate, key, err := ca.issue(folder, client.file, name, nil)
		if err != nil {
			return err
		}
		if client.server != "" {
			text := kubeconfig(client.server, ca.pem, certificate, key)
			if err := writeFile(filepath.Join(folder, client.file+".kubeconfig"), text, 0o600); err != nil {
				return err
			}
		}
		if client.file == "admin" {
			text := kubeconfig(s.hostAPI(), ca.pem, certificate, key)
			if err := writeFile(filepath.Join(state, "kubeconfig"), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func newAuthority(folder, file, name string) (*authority, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	certificate, certificatePEM, err := sign(template, nil, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := writePair(folder, file, certificatePEM, keyPEM); err != nil {
		return nil, err
	}
	return &authority{certificate, key, certificatePEM}, nil
}

// issue writes a certificate for a client, or for a server where hosts are given.
func (a *authority) issue(folder, file string, name pkix.Name, hosts []string) (string, string, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		Subject:     name,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	_, certificatePEM, err := sign(template, a.certificate, key.Public(), a.key)
	if err != nil {
		return "", "", err
	}
	return certificatePEM, keyPEM, writePair(folder, file, certificatePEM, keyPEM)
}

// sign makes a certificate; without a parent it signs itself.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, string, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, "", err
	}
	template.SerialNumber = serial
	// Clocks of namespaces are the same, but they may be set back.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, "", err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
}

func newKey() (*ecdsa.PrivateKey, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), nil
}

func newServiceAccountKey(folder string) error {
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(folder, "service-account.key"), keyPEM, 0o600); err != nil {
		return err
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return writeFile(filepath.Join(folder, "service-account.pub"), public, 0o644)
}

func writePair(folder, file, certificate, key string) error {
	if err := writeFile(filepath.Join(folder, file+".crt"), certificate, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(folder, file+".key"), key, 0o600)
}

// kubeconfig holds everything that a client needs, so that the file can be copied.
func kubeconfig(server, ca, certificate, key string) string {
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: slipway-cluster
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: slipway-cluster
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: slipway-cluster
  context:
    cluster: slipway-cluster
    user: slipway-cluster
current-context: slipway-cluster
`, server, encode(ca), encode(certificate), encode(key))
}
