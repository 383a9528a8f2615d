//! The time of day. Waiting and measuring use tokio's clock, which tests can pause.

use jiff::Timestamp;

/// The time of day, for records that people read. It may jump, so nothing is measured with it.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}
