// Command etcd35 is etcd 3.5 itself, for machines where no packaged etcd 3.5 runs.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
