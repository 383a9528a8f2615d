//! systemd, where it started us: the sockets that it hands over, and what we tell it.
//!
//! Whatever goes wrong in telling is logged and no more: the work does not depend on who watches it. Without
//! `NOTIFY_SOCKET` nothing is told.

use std::{io, net::TcpListener, time::Duration};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use thiserror::Error;
use tracing::warn;

/// How often the status is told where no watchdog wants to hear from us more often.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// systemd shows one line.
const MAX_STATUS_CHARS: usize = 200;

#[derive(Debug, Error)]
pub enum SocketError {
    #[error(
        "--web.systemd-socket: no socket was handed over (LISTEN_FDS, LISTEN_PID): start it by its .socket unit, or leave the flag out"
    )]
    None,
    /// One cannot be used.
    #[error(
        "--web.systemd-socket: socket {number} cannot be used: {source}; defragd takes TCP sockets, as ListenStream=ADDRESS:PORT makes them"
    )]
    Unusable {
        /// From 0 on.
        number: usize,
        source: io::Error,
    },
}

/// The sockets that systemd handed over, all of which must be listening TCP sockets. A second call finds none.
pub fn sockets() -> Result<Vec<TcpListener>, SocketError> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..handed.len() {
        let socket = handed.take_tcp_listener(number).map_err(|source| SocketError::Unusable { number, source })?;
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
    /// As the environment has it.
    pub fn from_env() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        Self { listens, watchdog: sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) }
    }

    /// How often [`Self::alive`] is to be told: twice within the watchdog's limit, as systemd asks. Never, without it.
    pub fn interval(&self) -> Option<Duration> {
        let alive = self.watchdog.map(|limit| limit / 2);
        self.listens.then(|| alive.unwrap_or(STATUS_EVERY).min(STATUS_EVERY))
    }

    /// Everything is set up, or set up again.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
    }

    /// The configuration is being read again. [`Self::ready`] ends it.
    pub fn reloading(&self) {
        // systemd compares it with the time of its own signal, so that it does not take an old answer for the new one.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]);
            }
            Err(error) => warn!(%error, "cannot tell systemd of the reload"),
        }
    }

    /// The loop that does the work goes round.
    pub fn alive(&self, status: &str) {
        let status = line(status);
        let all = [NotifyState::Status(&status), NotifyState::Watchdog];
        self.tell(if self.watchdog.is_some() { &all } else { &all[..1] });
    }

    pub fn stopping(&self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
    }

    /// What it is busy with before it is ready.
    pub fn starting(&self, status: &str) {
        self.tell(&[NotifyState::Status(&line(status))]);
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if !self.listens {
            return;
        }
        if let Err(error) = sd_notify::notify(what) {
            warn!(%error, "cannot tell systemd how it goes");
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
    fn a_watchdog_hears_twice_within_its_limit_and_nobody_hears_where_nobody_listens() {
        let seconds = Duration::from_secs;
        let every = |listens, limit: Option<u64>| Manager { listens, watchdog: limit.map(seconds) }.interval();
        assert_eq!(every(true, Some(4)), Some(seconds(2)));
        assert_eq!(every(true, Some(120)), Some(seconds(10)), "the status is told more often");
        assert_eq!(every(true, None), Some(seconds(10)));
        assert_eq!(every(false, Some(4)), None);
    }
}
