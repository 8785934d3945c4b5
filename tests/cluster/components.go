package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	managerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
)

func apiserver([]string) error         { return run(apiserverapp.NewAPIServerCommand()) }
func controllerManager([]string) error { return run(managerapp.NewControllerManagerCommand()) }
func scheduler([]string) error         { return run(schedulerapp.NewSchedulerCommand()) }
func kubelet([]string) error           { return run(kubeletapp.NewKubeletCommand(context.Background())) }
func proxy([]string) error             { return run(proxyapp.NewProxyCommand()) }

func kubectl([]string) error {
	return cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand())
}

func run(command *cobra.Command) error {
	os.Exit(cli.Run(command))
	return nil
}
