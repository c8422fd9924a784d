// Pulls an image through the snapshotter, as the clients of containerd that know it do: with the
// labels that tell it which image a layer is of. Debian's ctr passes none.
//
// Built inside the snapshotter's own module (see prepare.sh), whose containerd client it uses.
package main

import (
	"context"
	"fmt"
	"os"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/nydus-snapshotter/pkg/label"
)

func pull(socket, reference string) error {
	client, err := containerd.New(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	hosts := docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))
	_, err = client.Pull(
		namespaces.WithNamespace(context.Background(), "default"),
		reference,
		containerd.WithPullUnpack,
		containerd.WithPullSnapshotter("nydus"),
		containerd.WithImageHandlerWrapper(label.AppendLabelsHandlerWrapper(reference)),
		containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: hosts})),
	)
	return err
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: nydus-pull SOCKET REFERENCE")
		os.Exit(2)
	}
	if err := pull(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "nydus-pull:", err)
		os.Exit(1)
	}
}
