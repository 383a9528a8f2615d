// Command clients does to an API server, or to etcd, what its clients do, until its standard input ends. For each request it
// prints a line of JSON: what it was, when it was due, how long it took from then on, and how it failed. Each writer, lister
// and watcher has one request at a time, as controllers have: those that wait behind a stalled one are late, and count as such.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sample is one request, or one event of a watch or an election.
type sample struct {
	Kind string `json:"kind"`
	// Microseconds since 1970.
	Due int64 `json:"due"`
	// Microseconds.
	Took int64 `json:"took"`
	// A status code, or `timeout`; empty where it succeeded.
	Error string `json:"error,omitempty"`
}

// target is what the requests are made of.
type target interface {
	// write stores a text in the n-th writer's own object.
	write(ctx context.Context, n int, text string) error
	// list reads many objects.
	list(ctx context.Context) error
	// watch calls back with the text of each write of the 0th writer, until the stream ends.
	watch(ctx context.Context, event func(text string)) error
	// lead keeps the n-th lease by leader election, until the context ends.
	lead(ctx context.Context, n int, out *output)
	// code says how a request failed.
	code(err error) string
}

// output is shared by all clients.
type output struct {
	mutex   sync.Mutex
	encoder *json.Encoder
}

func (o *output) note(kind string, due time.Time, failure string) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	line := sample{Kind: kind, Due: due.UnixMicro(), Took: time.Since(due).Microseconds(), Error: failure}
	if err := o.encoder.Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file with the address and the credentials of an API server")
	var etcd etcdFlags
	flag.StringVar(&etcd.endpoints, "endpoints", "", "etcd's endpoints instead, separated by commas")
	flag.StringVar(&etcd.ca, "cacert", "", "file with the authority of its certificates")
	flag.StringVar(&etcd.cert, "cert", "", "file with the client's certificate")
	flag.StringVar(&etcd.key, "key", "", "file with its key")
	flag.BoolVar(&etcd.healthChecks, "health-checks", false, "leave members out that report NOT_SERVING")
	leaders := flag.Int("leaders", 1, "candidates, each for a Lease of its own; an API server's only")
	writers := flag.Int("writers", 1, "writers, each of an object of its own")
	listers := flag.Int("listers", 0, "listers")
	watchers := flag.Int("watchers", 1, "watchers of the first writer's object")
	pace := flag.Duration("pace", 100*time.Millisecond, "time between two requests of a writer or a lister")
	patience := flag.Duration("patience", 0, "limit of a write or a list; 0: as long as the server lets it take")
	flag.Parse()
	clients, err := connect(*kubeconfig, etcd, *writers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
	out := &output{encoder: json.NewEncoder(os.Stdout)}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for n := range *leaders {
		done.Go(func() { clients.lead(ctx, n, out) })
	}
	for n := range *writers {
		done.Go(func() {
			paced(ctx, out, clients, "write", *pace, *patience, func(ctx context.Context) error {
				return clients.write(ctx, n, strconv.FormatInt(time.Now().UnixMicro(), 10))
			})
		})
	}
	for range *listers {
		done.Go(func() { paced(ctx, out, clients, "list", *pace, *patience, clients.list) })
	}
	for range *watchers {
		done.Go(func() { watch(ctx, out, clients) })
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
	cancel()
	done.Wait()
}

func connect(kubeconfig string, etcd etcdFlags, writers int) (target, error) {
	if kubeconfig != "" {
		return connectAPI(kubeconfig, writers)
	}
	if etcd.endpoints != "" {
		return connectEtcd(etcd)
	}
	return nil, errors.New("neither --kubeconfig nor --endpoints is given")
}

// paced sends one request after the other, each when it is due or as soon as the one before it has ended.
func paced(
	ctx context.Context, out *output, clients target, kind string, pace, patience time.Duration,
	send func(context.Context) error,
) {
	for due := time.Now(); ctx.Err() == nil; due = due.Add(pace) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		limited, cancel := ctx, func() {}
		if patience > 0 {
			limited, cancel = context.WithTimeout(ctx, patience)
		}
		err := send(limited)
		cancel()
		if ctx.Err() != nil {
			return
		}
		failure := ""
		if err != nil {
			failure = clients.code(err)
		}
		out.note(kind, due, failure)
	}
}

// watch begins again whenever the stream ends early.
func watch(ctx context.Context, out *output, clients target) {
	for ctx.Err() == nil {
		begin := time.Now()
		err := clients.watch(ctx, func(text string) {
			if sent, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				out.note("watch", time.UnixMicro(sent), "")
			}
		})
		if ctx.Err() != nil {
			return
		}
		failure := "closed"
		if err != nil {
			failure = clients.code(err)
			time.Sleep(100 * time.Millisecond)
		}
		out.note("watch_restart", begin, failure)
	}
}
