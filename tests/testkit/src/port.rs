//! Free loopback ports that no other process takes between their choice and their use.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Below Linux's ephemeral range (32768 and up): a port from `bind(0)` can be taken by any outgoing
/// connection while a stopped server of ours waits to be restarted on it.
const RANGE: std::ops::Range<u16> = 10_240..32_768;

/// A port of 127.0.0.1, held until it is released to the server that is to listen on it. As long as this lives, no
/// other test process takes it, not even between the release and the server's bind or while the server is down.
#[derive(Debug)]
pub struct Port {
    held: Option<TcpListener>,
    number: u16,
    _claim: File,
}

impl Port {
    /// Takes a port that is free now and keeps it taken.
    pub fn reserve() -> Result<Self> {
        let span = u64::from(RANGE.end - RANGE.start);
        // Random rather than counted, so that test processes running side by side rarely meet.
        let start = RandomState::new().build_hasher().finish() % span;
        for step in 0..span {
            let offset = u16::try_from((start + step) % span)?;
            let number = RANGE.start + offset;
            let Some(claim) = claim(number)? else { continue };
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, number)) {
                return Ok(Self { held: Some(listener), number, _claim: claim });
            }
        }
        bail!("no free port on 127.0.0.1 in {RANGE:?}")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    /// Lets go of the port, just before its server binds it.
    pub fn release(&mut self) {
        self.held = None;
    }
}

/// The file whose lock says that a port is taken, unless another process, or this one, has it. It is empty, and stays.
fn claim(number: u16) -> Result<Option<File>> {
    let user = rustix::process::getuid().as_raw();
    let dir = std::env::temp_dir().join(format!("defragd-test-ports-{user}"));
    fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let path = dir.join(number.to_string());
    let file = File::create(&path).with_context(|| format!("failed to open {}", path.display()))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_taken_until_it_is_released() {
        let mut port = Port::reserve().unwrap();
        assert!(TcpListener::bind(port.address()).is_err());
        port.release();
        assert!(TcpListener::bind(port.address()).is_ok());
        assert!(claim(port.number()).unwrap().is_none(), "no other process takes it meanwhile");
        let number = port.number();
        drop(port);
        assert!(claim(number).unwrap().is_some());
    }

    #[test]
    fn two_reserved_ports_differ() {
        let (one, two) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        assert_ne!(one.number(), two.number());
    }
}
