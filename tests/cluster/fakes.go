package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// fakeNodeMark is on nodes that kwok plays.
const fakeNodeMark = "kwok.x-k8s.io/node"

// fakeNodes starts kwok and makes nodes that it plays. Beside a real node they are tainted: ordinary pods shall run.
func fakeNodes(arguments []string) error {
	flags := flag.NewFlagSet("fake-nodes", flag.ContinueOnError)
	state := flags.String("state", "", "folder of the cluster")
	count := flags.Int("count", 1, "how many")
	taint := flags.Bool("taint", true, "only pods that tolerate "+fakeNodeMark+" come here")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if _, err := ask(*state, "start kwok"); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(*state, "kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	numbers := make(chan int)
	failures := make(chan error, *count)
	var workers sync.WaitGroup
	for range 8 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := range numbers {
				_, err := client.CoreV1().Nodes().Create(context.Background(), fakeNode(number, *taint), metav1.CreateOptions{})
				if err != nil && !apierrors.IsAlreadyExists(err) {
					failures <- fmt.Errorf("cannot make fake node %d: %w", number, err)
				}
			}
		}()
	}
	for number := range *count {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
	close(failures)
	return <-failures
}

func fakeNode(number int, taint bool) *corev1.Node {
	name := fmt.Sprintf("kwok-%04d", number)
	resources := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("32"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("250"),
		"nvidia.com/gpu":                resource.MustParse("8"),
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{fakeNodeMark: "fake", "node.alpha.kubernetes.io/ttl": "0"},
			Labels: map[string]string{
				"type": "kwok", corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			},
		},
		Status: corev1.NodeStatus{Allocatable: resources, Capacity: resources},
	}
	if taint {
		node.Spec.Taints = []corev1.Taint{{Key: fakeNodeMark, Value: "fake", Effect: corev1.TaintEffectNoSchedule}}
	}
	return node
}
