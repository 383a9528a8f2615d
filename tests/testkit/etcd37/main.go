// Command etcd37 is etcd 3.7 itself, for defragd's tests: no distribution packages it yet.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
