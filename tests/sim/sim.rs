//! The world, shared by defragd's ports and the task that moves it.

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
    world: Mutex<World>,
    epoch: Instant,
    /// Something changed at the servers: calls that hang look again.
    pub changed: Notify,
    /// A new event is planned, perhaps before the one that is waited for.
    pub planned: Notify,
}

impl Sim {
    pub fn new(world: World) -> Arc<Self> {
        let (changed, planned) = (Notify::new(), Notify::new());
        Arc::new(Self { world: Mutex::new(world), epoch: Instant::now(), changed, planned })
    }

    /// The world as it is now. Never held over an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.settle(self.epoch.elapsed());
        world
    }

    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub fn at(&self, time: Duration) -> Instant {
        self.epoch + time
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
