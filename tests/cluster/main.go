// The programs of a real Kubernetes cluster in one binary: argv[1] chooses which.
//
// `boot` makes namespaces of the cluster's own, in which `node` is the first process and starts the others.
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

var programs = map[string]func(arguments []string) error{
	"boot":               boot,
	"node":               node,
	"image":              image,
	"fake-nodes":         fakeNodes,
	"etcd":               etcd,
	"coredns":            coredns,
	"apiserver":          apiserver,
	"controller-manager": controllerManager,
	"scheduler":          scheduler,
	"kubelet":            kubelet,
	"proxy":              proxy,
	"metrics-server":     metricsServer,
	"kubectl":            kubectl,
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		names := make([]string, 0, len(programs))
		for name := range programs {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintln(os.Stderr, "usage: cluster PROGRAM [ARGUMENT...], where PROGRAM is one of: "+strings.Join(names, ", "))
		os.Exit(2)
	}
	name := os.Args[1]
	// The components read the process's own arguments.
	os.Args = append([]string{name}, os.Args[2:]...)
	if err := programs[name](os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}
