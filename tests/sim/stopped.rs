//! SIGSTOP to a replica: it does not run, while time, the network and the servers continue. What it had sent arrives, and
//! what it had not sent is sent when it wakes.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    task::JoinHandle,
    time::{Sleep, sleep_until},
};

use crate::sim::Sim;

/// A process: everything in it is polled through here, and not while it is stopped.
pub struct Process<F> {
    sim: Arc<Sim>,
    inside: Pin<Box<F>>,
    wakes: Pin<Box<Sleep>>,
}

impl<F: Future> Process<F> {
    pub fn of(sim: &Arc<Sim>, inside: F) -> Self {
        let wakes = Box::pin(sleep_until(sim.at(std::time::Duration::ZERO)));
        Self { sim: Arc::clone(sim), inside: Box::pin(inside), wakes }
    }
}

impl<F: Future> Future for Process<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        while let Some(until) = self.sim.stopped_until() {
            let at = self.sim.at(until);
            self.wakes.as_mut().reset(at);
            std::task::ready!(self.wakes.as_mut().poll(cx));
        }
        self.inside.as_mut().poll(cx)
    }
}

/// For what runs in a task of its own, and so not through [`Process`].
pub async fn while_stopped(sim: &Sim) {
    while let Some(until) = sim.stopped_until() {
        sleep_until(sim.at(until)).await;
    }
}

/// What continues outside the process, as an RPC does once it is sent; it ends when no caller waits for it any more.
pub struct Outside<T>(JoinHandle<T>);

impl<T: Send + 'static> Outside<T> {
    pub fn of(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub async fn answer(mut self) -> T {
        (&mut self.0).await.expect("the model does not panic")
    }
}

impl<T> Drop for Outside<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
