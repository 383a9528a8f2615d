// Command etcd38 is the newest pre-release of etcd 3.8, for `make test-next`. Its version is in the module api,
// which go.mod must name at the version of the server: the server's own go.mod names an older one.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
