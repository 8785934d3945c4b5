package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Files that `boot` hands to the first process.
const (
	goFile = 3 + iota
	reportFile
	apiListener
	registryListener
)

// node is the first process in the cluster's namespaces. It reports lines to `boot`: what it does, then "ready".
func node(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("node takes the folder of the cluster")
	}
	report := os.NewFile(reportFile, "report")
	if err := bringUp(arguments[0], report); err != nil {
		fmt.Fprintf(report, "failed %v\n", err)
		return err
	}
	_, _ = io.WriteString(report, "ready\n")
	_ = report.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	// Everything in the namespace ends with its first process.
	<-ended
	return nil
}

func bringUp(state string, report io.Writer) error {
	// The interface exists and the cgroup is joined once `boot` says so.
	if _, err := io.ReadAll(os.NewFile(goFile, "go")); err != nil {
		return err
	}
	if err := mounts(state); err != nil {
		return err
	}
	settings, err := readSettings(shared)
	if err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("cannot set the host name: %w", err)
	}
	s := newSupervisor()
	for _, command := range []string{
		"ip link set lo up",
		"ip address add " + settings.nodeIP() + "/30 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + settings.hostIP(),
	} {
		if err := s.run("network", strings.Fields(command)...); err != nil {
			return err
		}
	}
	for name, file := range map[string]uintptr{"api": apiListener, "registry": registryListener} {
		listener, err := net.FileListener(os.NewFile(file, name))
		if err != nil {
			return fmt.Errorf("cannot listen for the %s: %w", name, err)
		}
		to := map[string]string{"api": fmt.Sprintf("127.0.0.1:%d", apiPort), "registry": settings.registry()}[name]
		go forward(listener, to)
	}
	socket, err := net.Listen("unix", shared+"/control.sock")
	if err != nil {
		return err
	}
	go s.control(socket)

	define(s, settings)
	if err := s.start("etcd", "registry", "apiserver"); err != nil {
		return err
	}
	if settings.Kubelet {
		fmt.Fprintln(report, "starting containerd")
		if err := s.start("containerd"); err != nil {
			return err
		}
		if err := importPause(s); err != nil {
			return err
		}
	}
	fmt.Fprintln(report, "waiting for the API server")
	if err := waitForAPI(s); err != nil {
		return err
	}
	if err := s.start("controller-manager", "scheduler"); err != nil {
		return err
	}
	if settings.Kubelet {
		if err := s.start("kubelet", "proxy"); err != nil {
			return err
		}
	}
	manifests := []string{shared + "/conf/manifests.yaml"}
	if settings.Metrics {
		manifests = append(manifests, shared+"/conf/metrics.yaml")
	}
	for _, file := range manifests {
		if err := s.run("manifests", self, "kubectl", "--kubeconfig", shared+"/pki/admin.kubeconfig",
			"apply", "--server-side", "-f", file); err != nil {
			return err
		}
	}
	if settings.Metrics {
		if err := s.start("metrics-server"); err != nil {
			return err
		}
	}
	return s.start("coredns")
}

// mounts makes the mount namespace the cluster's own: what the programs write by fixed names lands in the state folder.
func mounts(state string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	// Pods share mounts with the node where they ask for it.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot make mounts shared: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	// Opened in this namespace, and before something is mounted over its path.
	folder, err := os.Open(state)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount /run: %w", err)
	}
	if err := bind(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), shared, true); err != nil {
		return err
	}
	for _, folder := range []string{"kubelet", "cni", "log", "volumes", "tmp", "logs", "etcd", "registry", "containerd"} {
		if err := os.MkdirAll(filepath.Join(shared, folder), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(shared+"/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	// etcd warns about a folder that others may read.
	if err := os.Chmod(shared+"/etcd", 0o700); err != nil {
		return err
	}
	// Nothing is made on the host's own file systems: another cluster may run there, and each would have to know whether
	// it is the last.
	if err := syscall.Mount("tmpfs", "/var/lib", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount /var/lib: %w", err)
	}
	for _, mount := range []struct{ from, to string }{
		{"tmp", "/tmp"}, {"volumes", "/tmp/hostpath_pv"}, {"log", "/var/log"}, {"kubelet", "/var/lib/kubelet"}, {"cni", "/var/lib/cni"},
	} {
		if err := bind(filepath.Join(shared, mount.from), mount.to, true); err != nil {
			return err
		}
	}
	return kernelFiles()
}

// kernelFiles hides settings of the whole machine behind files that say what the kubelet wants to read.
func kernelFiles() error {
	entries, err := os.ReadDir(shared + "/conf/sysctl")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		to := "/proc/sys/" + strings.ReplaceAll(entry.Name(), ".", "/")
		if _, err := os.Stat(to); err != nil {
			continue
		}
		if err := bind(shared+"/conf/sysctl/"+entry.Name(), to, false); err != nil {
			return err
		}
	}
	// The kubelet watches the kernel's log for processes that ran out of memory; some machines have none.
	if _, err := os.Stat("/dev/kmsg"); os.IsNotExist(err) {
		return os.Symlink("/dev/null", "/dev/kmsg")
	}
	return nil
}

func bind(from, to string, make bool) error {
	if make {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s on %s: %w", from, to, err)
	}
	return nil
}

// importPause gives containerd the image of every pod's first process.
func importPause(s *supervisor) error {
	var err error
	for tries := 0; tries < 100; tries++ {
		if _, err = os.Stat(shared + "/containerd.sock"); err == nil {
			err = s.run("pause", "ctr", "--address", shared+"/containerd.sock", "--namespace", "k8s.io",
				"images", "import", "--snapshotter", snapshotter(shared), shared+"/pause.tar")
			if err == nil {
				return nil
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("containerd does not take the pause image: %w; see logs/containerd.log", err)
}

func waitForAPI(s *supervisor) error {
	client := http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		answer, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/readyz", apiPort))
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the API server is not ready after two minutes; see logs/apiserver.log and logs/etcd.log\n%s", s.status())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// forward joins connections of a listener in the host's network namespace with an address in this one.
func forward(listener net.Listener, to string) {
	for {
		outer, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outer.Close()
			inner, err := net.DialTimeout("tcp", to, 5*time.Second)
			if err != nil {
				return
			}
			defer inner.Close()
			done := make(chan struct{}, 2)
			half := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				if tcp, ok := to.(*net.TCPConn); ok {
					_ = tcp.CloseWrite()
				}
				done <- struct{}{}
			}
			go half(inner, outer)
			go half(outer, inner)
			<-done
			<-done
		}()
	}
}
