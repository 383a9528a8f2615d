// Command users does to an API server what its users do, and measures what they notice: it holds a Lease as controllers do
// (client-go's leader election with kube-controller-manager's times), updates an object, and watches it. It ends when its
// standard input does, and prints the figures as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	namespace = "default"
	// Of the Lease and of the ConfigMap.
	name = "users"
	// Between two writes.
	pace = 100 * time.Millisecond
	// Of one write: longer than any pause that a roll should make.
	patience = 10 * time.Second
)

// figures are durations in seconds. A gap is the time between two successes.
type figures struct {
	Seconds         float64 `json:"seconds"`
	Elected         int     `json:"elected"`
	LostElections   int     `json:"lost_elections"`
	Writes          int     `json:"writes"`
	FailedWrites    int     `json:"failed_writes"`
	LongestWriteGap float64 `json:"longest_write_gap_seconds"`
	WatchEvents     int     `json:"watch_events"`
	FailedWatches   int     `json:"failed_watches"`
	LongestWatchGap float64 `json:"longest_watch_gap_seconds"`
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file with the address and the credentials")
	flag.Parse()
	if err := run(*kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "users:", err)
		os.Exit(1)
	}
}

func run(kubeconfig string) error {
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// The pace below is the limit.
	access.QPS = -1
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ConfigMaps(namespace).Create(context.Background(), object, metav1.CreateOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all figures
	var done sync.WaitGroup
	began := time.Now()
	done.Go(func() { lead(ctx, client, &all) })
	done.Go(func() { write(ctx, client, &all) })
	done.Go(func() { watch(ctx, client, &all) })
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	cancel()
	done.Wait()
	all.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(all)
}

// lead stands for the election again whenever it is lost.
func lead(ctx context.Context, client kubernetes.Interface, all *figures) {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: name, Namespace: namespace},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	for ctx.Err() == nil {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock:          lock,
			LeaseDuration: 15 * time.Second,
			RenewDeadline: 10 * time.Second,
			RetryPeriod:   2 * time.Second,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {},
				OnNewLeader:      func(string) { all.Elected++ },
				OnStoppedLeading: func() {
					if ctx.Err() == nil {
						all.LostElections++
					}
				},
			},
		})
	}
}

func write(ctx context.Context, client kubernetes.Interface, all *figures) {
	last := time.Now()
	for every := time.NewTicker(pace); ; {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Data:       map[string]string{"writes": strconv.Itoa(all.Writes)},
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		_, err := client.CoreV1().ConfigMaps(namespace).Update(limited, object, metav1.UpdateOptions{})
		cancel()
		switch {
		case err == nil:
			all.Writes++
			last = note(&all.LongestWriteGap, last)
		case ctx.Err() == nil:
			all.FailedWrites++
		}
	}
}

// watch begins again whenever the stream ends early.
func watch(ctx context.Context, client kubernetes.Interface, all *figures) {
	last := time.Now()
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	for ctx.Err() == nil {
		stream, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, options)
		if err != nil {
			if ctx.Err() == nil {
				all.FailedWatches++
				time.Sleep(pace)
			}
			continue
		}
		for range stream.ResultChan() {
			all.WatchEvents++
			last = note(&all.LongestWatchGap, last)
		}
		if ctx.Err() == nil {
			all.FailedWatches++
		}
	}
}

// note records the gap since the last success, and returns the time of this one.
func note(longest *float64, last time.Time) time.Time {
	now := time.Now()
	*longest = max(*longest, now.Sub(last).Seconds())
	return now
}
