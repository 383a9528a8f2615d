// Command kube-apiserver is Kubernetes' API server itself, for defragd's tests: Debian packages none that is kept.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
