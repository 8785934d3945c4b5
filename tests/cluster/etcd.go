package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd serves the folder arguments[0] on loopback.
func etcd(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("etcd takes the folder of its data")
	}
	config := embed.NewConfig()
	config.Name = "cluster"
	config.Dir = arguments[0]
	config.LogLevel = "warn"
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	// The data lives as long as the cluster, which does not outlive the machine.
	config.UnsafeNoFsync = true
	config.QuotaBackendBytes = 4 << 30
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", etcdPort)}
	peer := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", etcdPeerPort)}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err = <-server.Err():
	case <-server.Server.StopNotify():
	case <-ended:
	}
	return err
}
