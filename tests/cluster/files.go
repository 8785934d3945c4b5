package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// manifests are what a cluster has from its first moment.
//
//go:embed manifests.yaml
var manifests string

const (
	pauseImage     = "slipway.test/pause:1"
	overlayfsMagic = 0x794c7630
)

// writeFiles writes the configuration files of all programs into the state folder.
func writeFiles(state string, s *Settings) error {
	files := map[string]string{
		"conf/containerd.toml":                  containerdConfig(snapshotter(state)),
		"conf/cni/10-slipway.conflist":          cniConfig(s),
		"conf/kubelet.yaml":                     kubeletConfig(s),
		"conf/proxy.yaml":                       proxyConfig(s),
		"conf/Corefile":                         corefile(s),
		"conf/registry.yaml":                    registryConfig(s),
		"conf/resolv.conf":                      "# Pods know the names of the cluster only.\n",
		"conf/manifests.yaml":                   expand(s, manifests),
		"conf/metrics.yaml":                     expand(s, metricsManifests),
		"conf/scheduler.yaml":                   schedulerConfig,
		"conf/sysctl/vm.overcommit_memory":      "1\n",
		"conf/sysctl/vm.panic_on_oom":           "0\n",
		"conf/sysctl/kernel.panic":              "10\n",
		"conf/sysctl/kernel.panic_on_oops":      "1\n",
		"conf/sysctl/kernel.keys.root_maxkeys":  "1000000\n",
		"conf/sysctl/kernel.keys.root_maxbytes": "25000000\n",
	}
	for _, name := range []string{s.registry(), s.localhost(), fmt.Sprintf("%s:%d", s.nodeIP(), s.RegistryPort)} {
		files["conf/registries/"+name+"/hosts.toml"] = fmt.Sprintf(
			"[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", s.registry())
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(state, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// expand replaces ${NAME} by addresses of the cluster.
func expand(s *Settings, text string) string {
	return os.Expand(text, func(name string) string {
		switch name {
		case "DNS_IP":
			return s.dnsIP()
		case "NODE_IP":
			return s.nodeIP()
		case "NODE":
			return nodeName
		case "METRICS_PORT":
			return strconv.Itoa(metricsPort)
		}
		return ""
	})
}

// snapshotter is overlayfs, except where the state folder is on an overlay itself.
func snapshotter(state string) string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(state, &stat); err == nil && stat.Type == overlayfsMagic {
		return "native"
	}
	return "overlayfs"
}

// containerdConfig suits containerd 1.6. Without CAP_SYS_RESOURCE no process may lower its OOM score, which the
// restriction says to containers.
func containerdConfig(snapshotter string) string {
	return fmt.Sprintf(`version = 2
root = "%[1]s/containerd/root"
state = "%[1]s/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "%[3]s"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "%[1]s/conf/registries"
`, shared, pauseImage, snapshotter)
}

// cniConfig routes every pod by itself: a bridge would need br_netfilter for services between its pods.
func cniConfig(s *Settings) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "slipway",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "%s"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "%s/cni/addresses"
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, s.pods(), shared)
}

func kubeletConfig(s *Settings) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[1]s/pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: %[1]s/pki/kubelet-serving.crt
tlsPrivateKeyFile: %[1]s/pki/kubelet-serving.key
containerRuntimeEndpoint: unix://%[1]s/containerd.sock
# Hosts with cgroup v1 are tested as well.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%[2]s
enforceNodeAllocatable: [pods]
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [%[3]s]
clusterDomain: %[4]s
resolvConf: %[1]s/conf/resolv.conf
podLogsDir: /var/log/pods
volumePluginDir: %[1]s/volume-plugins
serializeImagePulls: false
# The machine's disk is not the cluster's to tidy up.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Tests wait for what the kubelet does.
syncFrequency: 10s
nodeStatusReportFrequency: 10s
`, shared, s.cgroup(), s.dnsIP(), domain)
}

// proxyConfig leaves the connection tracker as it is: its limits are the host's.
func proxyConfig(s *Settings) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clientConnection: {kubeconfig: %s/pki/proxy.kubeconfig}
clusterCIDR: %s
detectLocalMode: ClusterCIDR
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms}
`, nodeName, shared, s.pods())
}

// corefile has no cache: a name that was missing a moment ago must not stay missing for a gang that waits for it.
func corefile(s *Settings) string {
	return fmt.Sprintf(`.:53 {
    bind %s
    errors
    ready 127.0.0.1:8181
    kubernetes %s in-addr.arpa ip6.arpa {
        kubeconfig %s/pki/coredns.kubeconfig
        pods insecure
        ttl 1
    }
}
`, s.nodeIP(), domain, shared)
}

// registryConfig listens on all addresses of the cluster's own network, so that pods reach it as well.
func registryConfig(s *Settings) string {
	return fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s/registry}
  delete: {enabled: true}
http: {addr: ":%d"}
`, shared, s.RegistryPort)
}

const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: ` + shared + `/pki/scheduler.kubeconfig}
leaderElection: {leaderElect: false}
`
