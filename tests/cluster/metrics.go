package main

import (
	_ "embed"

	"github.com/spf13/cobra"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/generated/openapi"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
)

// metricsManifests make it known to the API server. Without a metrics server they would only be in the way: a group that
// nobody serves keeps namespaces from ending.
//
//go:embed metrics.yaml
var metricsManifests string

// metricsPort is the metrics server's on the node.
const metricsPort = 10251

// metricsServer is what its own command does, but with this Kubernetes' definitions of the types: those that it brings
// bear the names of an older one, by which they are found no more.
func metricsServer([]string) error {
	settings := options.NewOptions()
	command := &cobra.Command{
		Use:  "metrics-server",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if problems := settings.Validate(); len(problems) > 0 {
				return problems[0]
			}
			config, err := settings.ServerConfig()
			if err != nil {
				return err
			}
			namer := openapinamer.NewDefinitionNamer(metricsapi.Scheme)
			config.Apiserver.OpenAPIConfig = genericserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
			config.Apiserver.OpenAPIV3Config = genericserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
			config.Apiserver.OpenAPIConfig.Info.Title = "metrics-server"
			config.Apiserver.OpenAPIV3Config.Info.Title = "metrics-server"
			server, err := config.Complete()
			if err != nil {
				return err
			}
			return server.RunUntil(genericserver.SetupSignalHandler())
		},
	}
	flags := settings.Flags()
	for _, set := range flags.FlagSets {
		command.Flags().AddFlagSet(set)
	}
	return run(command)
}
