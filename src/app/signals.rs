//! The signals for a process that must not end in the middle of something.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From here on, signals no longer end the process by themselves.
pub struct Signals {
    pub interrupt: Signal,
    pub terminate: Signal,
    /// A server reloads.
    pub hangup: Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            // A dropped terminal connection must not stop the observation in the middle of a member.
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ctrl-C or SIGTERM. Cancel-safe, as its parts are.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The same, or a dropped terminal connection.
    pub async fn end_or_hangup(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
