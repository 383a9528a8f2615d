//! Which members there are, where they listen, and what is wrong with them. The same plan gives the same fleet.

use std::net::Ipv4Addr;

/// Members of each cluster.
pub const MEMBERS: usize = 3;
/// From this many members with a fault on, all those of one cluster are among them.
const ENOUGH_FOR_A_CLUSTER: usize = 2 * MEMBERS;

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Its process is frozen: the kernel accepts connections, nothing reads from them.
    Frozen,
    /// It defragments: `Status` and reads hang, the member list and the metrics page answer.
    Busy,
    /// Nothing listens there.
    Refusing,
}

/// A fleet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many clusters.
    pub clusters: usize,
    /// The port of every member.
    pub port: u16,
    /// Whether members ask for TLS, and for a client's certificate.
    pub tls: bool,
    faults: Vec<Fault>,
}

impl Plan {
    /// A fleet of which `hung` members do not answer and `refusing` members are not there. The hung ones are frozen and
    /// busy in turn. From six on, three of them are one whole cluster.
    pub fn new(clusters: usize, port: u16, tls: bool, hung: usize, refusing: usize) -> Self {
        let mut faults = vec![Fault::None; clusters * MEMBERS];
        scatter(&mut faults, hung, |n| if n.is_multiple_of(2) { Fault::Frozen } else { Fault::Busy });
        scatter(&mut faults, refusing, |_| Fault::Refusing);
        Self { clusters, port, tls, faults }
    }

    /// What is wrong with a member.
    pub fn fault(&self, cluster: usize, member: usize) -> Fault {
        self.faults[cluster * MEMBERS + member]
    }

    /// Whether nothing is wrong with any member of the cluster.
    pub fn is_whole(&self, cluster: usize) -> bool {
        (0..MEMBERS).all(|member| self.fault(cluster, member) == Fault::None)
    }

    /// A cluster's name.
    pub fn name(cluster: usize) -> String {
        format!("simulated-{cluster:04}")
    }

    /// Where a member listens: every address of 127.0.0.0/8 is there without being configured.
    pub fn address(cluster: usize, member: usize) -> Ipv4Addr {
        let part = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, part(member + 1), part(cluster / 250), part(cluster % 250 + 1))
    }

    /// Its client URL.
    pub fn url(&self, cluster: usize, member: usize) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", Self::address(cluster, member), self.port)
    }
}

/// Puts `count` faults on members of clusters that have none yet, evenly over the fleet.
fn scatter(faults: &mut [Fault], count: usize, fault: impl Fn(usize) -> Fault) {
    let clusters = faults.len() / MEMBERS;
    let mut placed = 0;
    let is_whole = |faults: &[Fault], cluster: usize| {
        faults[cluster * MEMBERS..][..MEMBERS].iter().all(|fault| *fault == Fault::None)
    };
    if count >= ENOUGH_FOR_A_CLUSTER
        && let Some(cluster) = (0..clusters).find(|cluster| is_whole(faults, *cluster))
    {
        faults[cluster * MEMBERS..][..MEMBERS].fill(fault(0));
        placed = MEMBERS;
    }
    for number in placed..count {
        let wanted = number * clusters / count;
        let next = (0..clusters).map(|step| (wanted + step) % clusters).find(|cluster| is_whole(faults, *cluster));
        if let Some(cluster) = next {
            faults[cluster * MEMBERS + number % MEMBERS] = fault(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_members_have_faults_as_were_asked_for_and_one_cluster_is_hung_whole() {
        let plan = Plan::new(1_000, 1, false, 30, 30);
        let count = |fault| plan.faults.iter().filter(|found| **found == fault).count();
        assert_eq!(count(Fault::Frozen) + count(Fault::Busy), 30);
        assert!(count(Fault::Busy) >= 13);
        assert_eq!(count(Fault::Refusing), 30);
        let hung_whole = |cluster| (0..MEMBERS).all(|member| plan.fault(cluster, member) == Fault::Frozen);
        assert_eq!((0..1_000).filter(|cluster| hung_whole(*cluster)).count(), 1);
        assert_eq!((0..1_000).filter(|cluster| plan.is_whole(*cluster)).count(), 1_000 - 1 - 27 - 1 - 27);
    }

    #[test]
    fn every_member_has_an_address_of_its_own() {
        let all: std::collections::BTreeSet<_> =
            (0..1_000).flat_map(|cluster| (0..MEMBERS).map(move |member| Plan::address(cluster, member))).collect();
        assert_eq!(all.len(), 3_000);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
    }
}
