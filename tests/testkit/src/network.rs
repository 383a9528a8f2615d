//! A machine of its own for one member: a network namespace that two cables join to the test's.
//!
//! Only for a process that has a network of its own already, see [`crate::in_namespaces`].

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::{is_inside, until};

/// One of the two cables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// Between clients and the member.
    Clients,
    /// Between the member and the others.
    Peers,
}

impl Cable {
    /// Name at our end, name at its end, and the third byte of both addresses.
    fn plan(self) -> (&'static str, &'static str, u8) {
        match self {
            Self::Clients => ("clients-here", "clients-there", 1),
            Self::Peers => ("peers-here", "peers-there", 2),
        }
    }
}

/// Where a member runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// A process whose network it shares; none for the test's own.
    pub(crate) network_of: Option<u32>,
    pub(crate) client_ip: IpAddr,
    pub(crate) peer_ip: IpAddr,
}

impl Host {
    /// Where clients reach what runs there.
    pub fn ip(&self) -> IpAddr {
        self.client_ip
    }

    /// The test's own network, on loopback.
    pub(crate) const LOOPBACK: Self =
        Self { network_of: None, client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST), peer_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
}

/// The other machine. Dropping it unplugs it for good.
#[derive(Debug)]
pub struct Island {
    holder: Process,
    _dir: tempfile::TempDir,
}

impl Island {
    /// Makes it, with both cables plugged in.
    pub async fn create() -> Result<Self> {
        ensure!(is_inside(), "only in a network of one's own");
        let dir = tempfile::tempdir()?;
        let args = ["--net", "--", "sleep", "600"].map(str::to_owned);
        let holder = Process::spawn("island", Path::new("unshare"), &args, &[], &dir.path().join("log"))?;
        let island = Self { holder, _dir: dir };
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let there = format!("/proc/{}/ns/net", island.holder.pid());
        until("the other network", Duration::from_mins(1), || async {
            ensure!(std::fs::read_link(&there)? != own, "not yet");
            Ok(())
        })
        .await?;
        for cable in [Cable::Clients, Cable::Peers] {
            let (here, there, net) = cable.plan();
            let pid = island.holder.pid().to_string();
            ip(&["link", "add", here, "type", "veth", "peer", "name", there])?;
            ip(&["link", "set", there, "netns", &pid])?;
            ip(&["addr", "add", &format!("10.77.{net}.1/24"), "dev", here])?;
            ip(&["link", "set", here, "up"])?;
            island.ip(&["addr", "add", &format!("10.77.{net}.2/24"), "dev", there])?;
            island.ip(&["link", "set", there, "up"])?;
        }
        island.ip(&["link", "set", "lo", "up"])?;
        Ok(island)
    }

    /// The place of a member on the island.
    pub fn there(&self) -> Host {
        Host { network_of: Some(self.holder.pid()), client_ip: address(1, 2), peer_ip: address(2, 2) }
    }

    /// The place of a member that can talk to it.
    pub fn here(&self) -> Host {
        Host { network_of: None, client_ip: address(1, 1), peer_ip: address(2, 1) }
    }

    /// Pulls a cable.
    pub fn cut(&self, cable: Cable) -> Result<()> {
        self.ip(&["link", "set", cable.plan().1, "down"])
    }

    /// Plugs it in again.
    pub fn repair(&self, cable: Cable) -> Result<()> {
        self.ip(&["link", "set", cable.plan().1, "up"])
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        let network = format!("--net=/proc/{}/ns/net", self.holder.pid());
        run(Command::new("nsenter").args([&network, "--", "ip"]).args(args)).map(drop)
    }
}

fn address(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, net, host))
}

pub(crate) fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

/// Gives what it prints.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
