package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const namespace = "default"

// api is an API server: ConfigMaps are written, listed and watched, and Leases are kept.
type api struct{ client kubernetes.Interface }

// object is the name of the n-th Lease and of the n-th ConfigMap.
func object(n int) string { return fmt.Sprintf("clients-%d", n) }

func connectAPI(kubeconfig string, writers int) (target, error) {
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	// The clients' own pace is the limit.
	access.QPS = -1
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	clients := &api{client}
	for n := range writers {
		empty := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object(n)}}
		if _, err := clients.maps().Create(context.Background(), empty, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

func (a *api) maps() corev1client.ConfigMapInterface { return a.client.CoreV1().ConfigMaps(namespace) }

func (a *api) write(ctx context.Context, n int, text string) error {
	written := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object(n)}, Data: map[string]string{"written": text}}
	_, err := a.maps().Update(ctx, written, metav1.UpdateOptions{})
	return err
}

func (a *api) list(ctx context.Context) error {
	_, err := a.maps().List(ctx, metav1.ListOptions{})
	return err
}

func (a *api) watch(ctx context.Context, event func(text string)) error {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", object(0)).String()}
	stream, err := a.maps().Watch(ctx, options)
	if err != nil {
		return err
	}
	defer stream.Stop()
	for change := range stream.ResultChan() {
		if written, is := change.Object.(*corev1.ConfigMap); is {
			event(written.Data["written"])
		}
	}
	return nil
}

// renewals notes how long each renewal takes.
type renewals struct {
	resourcelock.Interface
	api *api
	out *output
}

func (r renewals) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	begin := time.Now()
	err := r.Interface.Update(ctx, record)
	failure := ""
	if err != nil {
		failure = r.api.code(err)
	}
	r.out.note("renewal", begin, failure)
	return err
}

// lead has kube-controller-manager's times, and stands for the election again whenever it is lost.
func (a *api) lead(ctx context.Context, n int, out *output) {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: object(n), Namespace: namespace},
		Client:     a.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: object(n)},
	}
	for ctx.Err() == nil {
		begin := time.Now()
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock:          renewals{lock, a, out},
			LeaseDuration: 15 * time.Second,
			RenewDeadline: 10 * time.Second,
			RetryPeriod:   2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { out.note("elected", begin, "") },
				OnStoppedLeading: func() {
					if ctx.Err() == nil {
						out.note("election_lost", time.Now(), "lost")
					}
				},
			},
		})
	}
}

func (a *api) code(err error) string {
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		return strconv.Itoa(int(status.Status().Code))
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return "connection"
	}
}
