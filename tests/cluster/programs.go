package main

import "fmt"

// self is this program, whatever is mounted over its path.
const self = "/proc/1/exe"

// define makes the programs of a cluster known to its supervisor.
func define(s *supervisor, settings *Settings) {
	pki := func(file string) string { return shared + "/pki/" + file }
	add := func(name string, flags ...string) {
		s.add(name, append(append([]string{self, name}, flags...), settings.Extra[name]...)...)
	}
	add("etcd", shared+"/etcd")
	s.add("registry", "docker-registry", "serve", shared+"/conf/registry.yaml")
	s.add("containerd", "containerd", "--config", shared+"/conf/containerd.toml")
	s.add("kwok", shared+"/bin/kwok", "--kubeconfig", pki("admin.kubeconfig"), "--config", shared+"/conf/kwok.yaml",
		"--manage-nodes-with-annotation-selector", fakeNodeMark+"=fake", "--node-lease-duration-seconds", "40")
	add("apiserver",
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", etcdPort),
		"--bind-address=0.0.0.0",
		fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address="+settings.nodeIP(),
		"--service-cluster-ip-range="+settings.services(),
		"--allow-privileged",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--client-ca-file="+pki("ca.crt"),
		"--tls-cert-file="+pki("apiserver.crt"),
		"--tls-private-key-file="+pki("apiserver.key"),
		"--kubelet-certificate-authority="+pki("ca.crt"),
		"--kubelet-client-certificate="+pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc."+domain,
		"--service-account-key-file="+pki("service-account.pub"),
		"--service-account-signing-key-file="+pki("service-account.key"),
		"--requestheader-client-ca-file="+pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+pki("front-proxy-client.crt"),
		"--proxy-client-key-file="+pki("front-proxy-client.key"),
		// A lost node's pods are replaced while a test still watches.
		"--default-not-ready-toleration-seconds=20",
		"--default-unreachable-toleration-seconds=20",
	)
	config := pki("controller-manager.kubeconfig")
	add("controller-manager",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--service-account-private-key-file="+pki("service-account.key"),
		"--root-ca-file="+pki("ca.crt"),
		"--cluster-signing-cert-file="+pki("ca.crt"),
		"--cluster-signing-key-file="+pki("ca.key"),
		"--service-cluster-ip-range="+settings.services(),
		"--enable-hostpath-provisioner",
		"--node-monitor-grace-period=20s",
	)
	config = pki("scheduler.kubeconfig")
	add("scheduler", "--config="+shared+"/conf/scheduler.yaml",
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config, "--bind-address=127.0.0.1")
	add("kubelet", "--config="+shared+"/conf/kubelet.yaml", "--kubeconfig="+pki("kubelet.kubeconfig"),
		"--hostname-override="+nodeName, "--node-ip="+settings.nodeIP())
	add("proxy", "--config="+shared+"/conf/proxy.yaml")
	config = pki("metrics-server.kubeconfig")
	add("metrics-server", "--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		fmt.Sprintf("--secure-port=%d", metricsPort),
		"--tls-cert-file="+pki("metrics-serving.crt"),
		"--tls-private-key-file="+pki("metrics-serving.key"),
		"--kubelet-certificate-authority="+pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		// As often as it can, so that tests do not wait for it.
		"--metric-resolution=10s", "--kubelet-request-timeout=5s")
	add("coredns", "-conf", shared+"/conf/Corefile")
}
