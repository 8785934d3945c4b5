package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// nodeName is the name of the real node.
	nodeName = "slipway-node"
	// shared is where the state folder is mounted inside the cluster's mount namespace: sockets need short paths.
	shared = "/run/cluster"
	// domain ends the names of services.
	domain = "cluster.local"
	// Ports of the API and of etcd are the cluster's own, since its network namespace is.
	apiPort      = 6443
	etcdPort     = 2379
	etcdPeerPort = 2380
)

// Settings say how a cluster was started; they are kept in its state folder, where `cargo xtask cluster` reads them.
type Settings struct {
	// Index tells clusters of one machine apart: interface, addresses and cgroup follow from it.
	Index int `json:"index"`
	// Kubelet is whether there is a real node.
	Kubelet bool `json:"kubelet"`
	// Metrics is whether what pods use is measured.
	Metrics bool `json:"metrics"`
	// APIPort and RegistryPort are on the host's loopback interface.
	APIPort      int `json:"apiPort"`
	RegistryPort int `json:"registryPort"`
	// Extra flags by program.
	Extra map[string][]string `json:"extra,omitempty"`
	// Pid is the first process of the cluster, as the host sees it, and Started its start in clock ticks.
	Pid     int    `json:"pid"`
	Started uint64 `json:"started"`
}

func (s *Settings) prefix() string    { return fmt.Sprintf("10.%d", 213+s.Index) }
func (s *Settings) link() string      { return fmt.Sprintf("slwc%d", s.Index) }
func (s *Settings) cgroup() string    { return fmt.Sprintf("slipway-cluster-%d", s.Index) }
func (s *Settings) whole() string     { return s.prefix() + ".0.0/16" }
func (s *Settings) hostIP() string    { return s.prefix() + ".0.1" }
func (s *Settings) nodeIP() string    { return s.prefix() + ".0.2" }
func (s *Settings) services() string  { return s.prefix() + ".16.0/20" }
func (s *Settings) apiIP() string     { return s.prefix() + ".16.1" }
func (s *Settings) dnsIP() string     { return s.prefix() + ".16.10" }
func (s *Settings) pods() string      { return s.prefix() + ".128.0/17" }
func (s *Settings) hostAPI() string   { return fmt.Sprintf("https://127.0.0.1:%d", s.APIPort) }
func (s *Settings) innerAPI() string  { return fmt.Sprintf("https://127.0.0.1:%d", apiPort) }
func (s *Settings) registry() string  { return fmt.Sprintf("127.0.0.1:%d", s.RegistryPort) }
func (s *Settings) localhost() string { return fmt.Sprintf("localhost:%d", s.RegistryPort) }

func settingsFile(state string) string { return filepath.Join(state, "cluster.json") }

func (s *Settings) write(state string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(settingsFile(state), string(data)+"\n", 0o600)
}

func readSettings(state string) (*Settings, error) {
	data, err := os.ReadFile(settingsFile(state))
	if err != nil {
		return nil, err
	}
	settings := &Settings{}
	if err := json.Unmarshal(data, settings); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", settingsFile(state), err)
	}
	return settings, nil
}

// writeFile makes the folder as well, and renames into place.
func writeFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
