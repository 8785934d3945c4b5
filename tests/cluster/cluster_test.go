package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestCertificatesAreSignedForTheirUse(t *testing.T) {
	state := t.TempDir()
	settings := &Settings{Index: 3, APIPort: 1234}
	if err := makePKI(state, settings); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, filepath.Join(state, "pki/ca.crt")))
	server := certificate(t, filepath.Join(state, "pki/apiserver.crt"))
	for _, name := range []string{"127.0.0.1", "10.216.0.2", "10.216.16.1", "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: "example.org"}); err == nil {
		t.Error("the server's certificate is good for any name")
	}
	kubelet := certificate(t, filepath.Join(state, "pki/kubelet.crt"))
	use := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := kubelet.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: use}); err != nil {
		t.Error(err)
	}
	if kubelet.Subject.CommonName != "system:node:slipway-node" || kubelet.Subject.Organization[0] != "system:nodes" {
		t.Errorf("the kubelet is %s", kubelet.Subject)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "kubeconfig"))
	if err != nil || config.Host != "https://127.0.0.1:1234" {
		t.Errorf("the administrator's kubeconfig: %v, %v", config, err)
	}
}

func TestAddressesOfClustersDoNotOverlap(t *testing.T) {
	seen := map[string]bool{}
	for index := range 16 {
		s := &Settings{Index: index}
		for _, address := range []string{s.whole(), s.link(), s.cgroup(), s.dnsIP()} {
			if seen[address] {
				t.Errorf("%s is taken twice", address)
			}
			seen[address] = true
		}
	}
}

func TestAnImageHasWhatItNames(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "program")
	if err := os.WriteFile(program, []byte("text"), 0o700); err != nil {
		t.Fatal(err)
	}
	spec := &imageSpec{name: "a/b:1", files: []imageFile{{"/bin/x", program}}, links: []imageFile{{"/bin/y", "x"}}}
	archive := filepath.Join(folder, "image.tar")
	if err := spec.save(archive); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	outer := entriesOf(t, data)
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal([]byte(outer["index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	if index.Manifests[0].Annotations["io.containerd.image.name"] != "a/b:1" {
		t.Errorf("its name is missing: %v", index)
	}
	layer, _, manifest, err := spec.blobs()
	if err != nil || manifest.digest() != index.Manifests[0].Digest {
		t.Errorf("the index names another manifest: %v", err)
	}
	inner := entriesOf(t, layer.data)
	if inner["bin/x"] != "text" || inner["bin/y"] != "-> x" {
		t.Errorf("the layer has %v", inner)
	}
}

func entriesOf(t *testing.T, data []byte) map[string]string {
	t.Helper()
	entries := map[string]string{}
	reader := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = string(text)
		if header.Linkname != "" {
			entries[header.Name] = "-> " + header.Linkname
		}
	}
}

func TestFlagsOfProgramsNameTheProgram(t *testing.T) {
	extra := extraFlags{}
	if err := extra.Set("apiserver=--v=4"); err != nil || extra["apiserver"][0] != "--v=4" {
		t.Errorf("%v, %v", extra, err)
	}
	for _, text := range []string{"--v=4", "nothing=--v=4"} {
		if extra.Set(text) == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestAProcessHasAStartTime(t *testing.T) {
	first, err := startTime(os.Getpid())
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("a process that does not exist has a start")
	}
}

func TestTheSupervisorObeys(t *testing.T) {
	s := &supervisor{programs: map[string]*program{}, waiters: map[int]chan syscall.WaitStatus{}}
	s.add("a", "/bin/true")
	for _, line := range []string{"", "start", "start b", "dance a"} {
		if _, err := s.obey(strings.Fields(line)); err == nil {
			t.Errorf("%q is obeyed", line)
		}
	}
	if text, err := s.obey([]string{"status"}); err != nil || !strings.HasPrefix(text, "a ") {
		t.Errorf("%q, %v", text, err)
	}
	// Stopping what does not run is done at once.
	start := time.Now()
	if _, err := s.obey([]string{"stop", "a"}); err != nil || time.Since(start) > time.Second {
		t.Error(err)
	}
}
