//! Free loopback ports that nobody else takes between their choice and their use.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// Below Linux's ephemeral range (32768 and up): a port from `bind(0)` can be taken by any outgoing
/// connection while a stopped server of ours waits to be restarted on it.
const RANGE: std::ops::Range<u16> = 10_240..32_768;

/// A port of 127.0.0.1, held until it is released to the server that is to listen on it.
#[derive(Debug)]
pub struct Port {
    held: Option<TcpListener>,
    number: u16,
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
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, number)) {
                return Ok(Self { held: Some(listener), number });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_taken_until_it_is_released() {
        let mut port = Port::reserve().unwrap();
        assert!(TcpListener::bind(port.address()).is_err());
        port.release();
        assert!(TcpListener::bind(port.address()).is_ok());
    }

    #[test]
    fn two_reserved_ports_differ() {
        let (one, two) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        assert_ne!(one.number(), two.number());
    }
}
