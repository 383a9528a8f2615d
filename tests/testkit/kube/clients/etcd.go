package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // clients check health only where this is linked
	"google.golang.org/grpc/status"
)

type etcdFlags struct {
	endpoints, ca, cert, key string
	healthChecks             bool
}

// etcd is a cluster: keys are written, read and watched by etcd's own client, balanced over all members.
type etcd struct{ client *clientv3.Client }

const prefix = "clients/"

func connectEtcd(flags etcdFlags) (target, error) {
	files := transport.TLSInfo{TrustedCAFile: flags.ca, CertFile: flags.cert, KeyFile: flags.key}
	tls, err := files.ClientConfig()
	if err != nil {
		return nil, err
	}
	config := clientv3.Config{
		Endpoints:   strings.Split(flags.endpoints, ","),
		DialTimeout: 10 * time.Second,
		TLS:         tls,
	}
	if flags.healthChecks {
		// In place of the client's own service config, which asks for the same balancer and no health checks.
		config.DialOptions = []grpc.DialOption{
			grpc.WithDisableServiceConfig(),
			grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "round_robin", "healthCheckConfig": {"serviceName": ""}}`),
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	return &etcd{client}, nil
}

func (e *etcd) write(ctx context.Context, n int, text string) error {
	_, err := e.client.Put(ctx, fmt.Sprintf("%s%d", prefix, n), text)
	return err
}

func (e *etcd) list(ctx context.Context) error {
	_, err := e.client.Get(ctx, prefix, clientv3.WithPrefix())
	return err
}

func (e *etcd) watch(ctx context.Context, event func(text string)) error {
	stream := e.client.Watch(ctx, prefix+"0")
	for answer := range stream {
		for _, change := range answer.Events {
			event(string(change.Kv.Value))
		}
	}
	return nil
}

// lead does nothing: leases are the benchmark's own clients' business.
func (e *etcd) lead(context.Context, int, *output) {}

func (e *etcd) code(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	var own rpctypes.EtcdError
	if errors.As(err, &own) {
		return own.Code().String()
	}
	return status.Code(err).String()
}
