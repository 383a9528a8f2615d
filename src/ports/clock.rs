//! The time of day. Waiting and measuring use tokio's clock, which tests can pause.

use jiff::Timestamp;

/// Tells the time of day, for records that people read. It may jump: nothing is measured with it.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
