//! A small network with a machine of its own for each replica: network namespaces, each with one cable to a switch,
//! to which the test itself and its servers are connected too.
//!
//! Only for a process that has a network of its own already, see [`crate::in_namespaces`].

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::network::{Host, ip, run};
use crate::process::Process;
use crate::{is_inside, until};

/// How a cable is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At the switch: packets are lost without an error.
    Silent,
    /// At the machine, whose calls fail at once.
    Unplugged,
}

/// The network. Dropping it ends the machines.
#[derive(Debug)]
pub struct Lan {
    number: u8,
    machines: Vec<Process>,
    dir: tempfile::TempDir,
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Another one may have the same number afterwards. The kernel removes the cables with the machines, but some
        // time after these have ended.
        let ports = (0..self.machines.len()).map(|index| self.port(index));
        for link in ports.chain([self.switch()]) {
            let _ = ip(&["link", "delete", &link]);
        }
    }
}

impl Lan {
    /// Makes it, all cables plugged in. Several can be there at once, with different numbers.
    pub async fn create(number: u8, machines: usize) -> Result<Self> {
        ensure!(is_inside(), "only in a network of one's own");
        let mut lan = Self { number, machines: Vec::new(), dir: tempfile::tempdir()? };
        let switch = lan.switch();
        ip(&["link", "add", &switch, "type", "bridge"]).context("this kernel has no bridges")?;
        ip(&["addr", "add", &format!("{}/24", lan.address(1)), "dev", &switch])?;
        ip(&["link", "set", &switch, "up"])?;
        for index in 0..machines {
            lan.add(index).await?;
        }
        Ok(lan)
    }

    async fn add(&mut self, index: usize) -> Result<()> {
        let args = ["--net", "--", "sleep", "infinity"].map(str::to_owned);
        let log = self.dir.path().join("log");
        let machine = Process::spawn("machine", Path::new("unshare"), &args, &[], &log)?;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let its = format!("/proc/{}/ns/net", machine.pid());
        until("the other network", Duration::from_mins(1), || async {
            ensure!(std::fs::read_link(&its)? != own, "not yet");
            Ok(())
        })
        .await?;
        let (here, there, pid) = (self.port(index), "cable", machine.pid().to_string());
        self.machines.push(machine);
        ip(&["link", "add", &here, "type", "veth", "peer", "name", there, "netns", &pid])?;
        ip(&["link", "set", &here, "master", &self.switch(), "up"])?;
        self.ip_at(index, &["addr", "add", &format!("{}/24", self.machine_ip(index)), "dev", there])?;
        self.ip_at(index, &["link", "set", there, "up"])?;
        self.ip_at(index, &["link", "set", "lo", "up"])
    }

    /// The test's own place in it, for servers that every machine shall reach.
    pub fn here(&self) -> Host {
        Host { network_of: None, client_ip: self.address(1), peer_ip: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    /// The n-th machine, from 0.
    pub fn machine(&self, index: usize) -> Host {
        let ip = self.machine_ip(index);
        Host { network_of: Some(self.machines[index].pid()), client_ip: ip, peer_ip: ip }
    }

    /// Cuts a machine's cable.
    pub fn cut(&self, index: usize, how: Cut) -> Result<()> {
        match how {
            Cut::Silent => ip(&["link", "set", &self.port(index), "nomaster"]),
            Cut::Unplugged => self.ip_at(index, &["link", "set", "cable", "down"]),
        }
    }

    /// Repairs it, however it was cut.
    pub fn repair(&self, index: usize) -> Result<()> {
        ip(&["link", "set", &self.port(index), "master", &self.switch()])?;
        self.ip_at(index, &["link", "set", "cable", "up"])
    }

    fn ip_at(&self, index: usize, args: &[&str]) -> Result<()> {
        let network = format!("--net=/proc/{}/ns/net", self.machines[index].pid());
        run(Command::new("nsenter").args([&network, "--", "ip"]).args(args)).map(drop)
    }

    fn switch(&self) -> String {
        format!("lan{}", self.number)
    }

    fn port(&self, index: usize) -> String {
        format!("lan{}-{index}", self.number)
    }

    fn machine_ip(&self, index: usize) -> IpAddr {
        self.address(u8::try_from(index).unwrap_or(u8::MAX).saturating_add(10))
    }

    fn address(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 79, self.number, host))
    }
}
