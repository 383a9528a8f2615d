//! The world, shared by defragd's ports and the task that moves it. A [`Sim`] is one party's handle on it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::model::World;

pub struct Sim {
    world: Arc<Mutex<World>>,
    epoch: Instant,
    /// Something changed at the servers: calls that hang look again.
    pub changed: Arc<Notify>,
    /// A new event is planned, perhaps before the one that is waited for.
    pub planned: Arc<Notify>,
    /// A replica heard from the lock's store.
    pub lock_changed: Arc<Notify>,
    /// Whose handle this is. What is done through it is written down for that one.
    replica: usize,
}

impl Sim {
    /// The handle of the first replica, which is the only one in most schedules.
    pub fn new(world: World) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::new(Mutex::new(world)),
            epoch: Instant::now(),
            changed: Arc::default(),
            planned: Arc::default(),
            lock_changed: Arc::default(),
            replica: 0,
        })
    }

    /// The same world through the ports of another replica.
    pub fn of_replica(&self, replica: usize) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(&self.world),
            epoch: self.epoch,
            changed: Arc::clone(&self.changed),
            planned: Arc::clone(&self.planned),
            lock_changed: Arc::clone(&self.lock_changed),
            replica,
        })
    }

    /// The world as it is now. Never held over an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.watch.acting = self.replica;
        world.settle(self.epoch.elapsed());
        world
    }

    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub fn at(&self, time: Duration) -> Instant {
        self.epoch + time
    }

    pub fn replica(&self) -> usize {
        self.replica
    }

    /// Until when this replica's process is stopped, if it is.
    pub fn stopped_until(&self) -> Option<Duration> {
        let until = self.world().host().stopped_until;
        (until > self.now()).then_some(until)
    }

    /// Lets the servers live on, whether or not defragd does.
    pub async fn run(self: Arc<Self>) {
        loop {
            let planned = self.planned.notified();
            let next = self.world().next_event_at();
            match next {
                Some(at) if at > self.now() => {
                    tokio::select! {
                        biased;
                        () = sleep_until(self.at(at)) => {}
                        () = planned => continue,
                    }
                }
                Some(_) => {}
                None => {
                    planned.await;
                    continue;
                }
            }
            let now = self.now();
            self.world().process_due(now);
            self.changed.notify_waiters();
        }
    }
}
