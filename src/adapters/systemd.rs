//! systemd, if it started us: the sockets that it passes, and notifications to it.
//!
//! Errors of notifications are only logged: the work does not depend on them. Without `NOTIFY_SOCKET` nothing is sent.

use std::{io, net::TcpListener, time::Duration};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use thiserror::Error;
use tracing::warn;

/// How often the status is sent if no watchdog needs it more often.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// systemd shows one line.
const MAX_STATUS_CHARS: usize = 200;

#[derive(Debug, Error)]
pub enum SocketError {
    #[error(
        "--web.systemd-socket: systemd passed no socket (LISTEN_FDS, LISTEN_PID): start defragd by its .socket unit, or remove the flag"
    )]
    None,
    /// One is unusable.
    #[error(
        "--web.systemd-socket: socket {number} is unusable: {cause}; defragd needs TCP sockets, as ListenStream=ADDRESS:PORT creates them"
    )]
    Unusable {
        /// From 0 on.
        number: usize,
        cause: io::Error,
    },
}

/// The sockets that systemd passed, all of which must be listening TCP sockets. A second call finds none.
pub fn sockets() -> Result<Vec<TcpListener>, SocketError> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..handed.len() {
        let socket = handed.take_tcp_listener(number).map_err(|cause| SocketError::Unusable { number, cause })?;
        sockets.extend(socket);
    }
    if sockets.is_empty() { Err(SocketError::None) } else { Ok(sockets) }
}

#[derive(Clone, Copy, Debug)]
pub struct Manager {
    listens: bool,
    watchdog: Option<Duration>,
}

impl Manager {
    /// From the environment.
    pub fn from_env() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        Self { listens, watchdog: sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) }
    }

    /// How often [`Self::alive`] is to be called: twice within the watchdog's limit, as systemd recommends. Never,
    /// without it.
    pub fn interval(&self) -> Option<Duration> {
        let alive = self.watchdog.map(|limit| limit / 2);
        self.listens.then(|| alive.unwrap_or(STATUS_EVERY).min(STATUS_EVERY))
    }

    /// Everything is set up, or reloaded.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
    }

    /// A reload of the configuration begins. [`Self::ready`] ends it.
    pub fn reloading(&self) {
        // systemd compares it with the time of its own signal, so that it does not mistake an old answer for the new
        // one.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]);
            }
            Err(error) => warn!(%error, "cannot notify systemd of the reload"),
        }
    }

    /// The main loop is alive.
    pub fn alive(&self, status: &str) {
        let status = line(status);
        let all = [NotifyState::Status(&status), NotifyState::Watchdog];
        self.tell(if self.watchdog.is_some() { &all } else { &all[..1] });
    }

    /// No new work is started.
    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
    }

    /// What the start is busy with.
    pub fn starting(&self, status: &str) {
        self.tell(&[NotifyState::Status(&line(status))]);
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if !self.listens {
            return;
        }
        if let Err(error) = sd_notify::notify(what) {
            warn!(%error, "cannot notify systemd");
        }
    }
}

/// A line break would begin another message.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_STATUS_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_say_anything_else() {
        assert_eq!(line("a\nREADY=1"), "a READY=1");
        assert_eq!(line(&"x".repeat(1_000)).len(), MAX_STATUS_CHARS);
    }

    #[test]
    fn a_watchdog_is_notified_twice_within_its_limit_and_nothing_is_sent_without_a_socket() {
        let seconds = Duration::from_secs;
        let every = |listens, limit: Option<u64>| Manager { listens, watchdog: limit.map(seconds) }.interval();
        assert_eq!(every(true, Some(4)), Some(seconds(2)));
        assert_eq!(every(true, Some(120)), Some(seconds(10)), "the status is sent more often");
        assert_eq!(every(true, None), Some(seconds(10)));
        assert_eq!(every(false, Some(4)), None);
    }
}
