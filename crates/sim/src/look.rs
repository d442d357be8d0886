//! What a test looks at: the kernels' word, the peers' minds, and where they agree.

use std::collections::BTreeMap;

use membership::Liveness;
use model::{Capacity, ContainerId, NodeId, ReplicaId, Revision};
use node::{CommandId, Node, Outcome};

use crate::host::{Container, HostState, Machine};
use crate::world::{Acked, Cluster};

impl Cluster {
    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Never: there is at least one machine.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// What each machine offers to containers, where they are alike.
    pub const fn capacity(&self) -> &Capacity {
        &self.settings.capacity
    }

    /// What a machine is called and what it offers.
    pub fn machine(&self, host: usize) -> &Machine {
        &self.hosts[host].machine
    }

    /// The state of a machine.
    pub fn state(&self, host: usize) -> HostState {
        self.hosts[host].state
    }

    /// The mind of a peer that runs.
    pub fn node(&self, host: usize) -> Option<&Node> {
        self.hosts[host].node.as_ref()
    }

    /// The answer to a submitted event, if it has come.
    pub fn outcome(&self, command: CommandId) -> Option<&Outcome> {
        self.outcomes.get(&command)
    }

    /// Every acknowledgement that a client has had, in order.
    pub fn acked(&self) -> &[Acked] {
        &self.acked
    }

    /// Events on a machine's disk.
    pub fn records_on_disk(&self, host: usize) -> usize {
        self.hosts[host].disk.len()
    }

    /// What the kernel of a machine runs.
    pub fn running(&self, host: usize) -> impl Iterator<Item = (&ContainerId, &Container)> {
        self.hosts[host].kernel.iter().filter(|(_, container)| container.pid.is_some())
    }

    /// Every container that a machine has something of, running or not.
    pub fn containers(&self, host: usize) -> impl Iterator<Item = (&ContainerId, &Container)> {
        self.hosts[host].kernel.iter()
    }

    /// How many copies of each replica of a deployment run on these machines, by the kernels' word.
    pub fn copies(&self, hosts: &[usize], of: &str) -> BTreeMap<ReplicaId, Vec<(usize, Revision)>> {
        let mut copies: BTreeMap<ReplicaId, Vec<(usize, Revision)>> = BTreeMap::new();
        for host in hosts {
            for (_, container) in self.running(*host) {
                if container.claim.replica.deployment.as_str() == of {
                    let of = copies.entry(container.claim.replica.clone()).or_default();
                    of.push((*host, container.claim.revision));
                }
            }
        }
        copies
    }

    /// Whether exactly `count` replicas run on these machines, each once.
    pub fn runs_once(&self, hosts: &[usize], of: &str, count: usize) -> bool {
        let copies = self.copies(hosts, of);
        copies.len() == count && copies.values().all(|copies| copies.len() == 1)
    }

    /// Whether the peers of these machines hold the same documents.
    pub fn same_heads(&self, hosts: &[usize]) -> bool {
        self.all_equal(hosts, |node, first| {
            let docs = node.documents().docs();
            docs == first.documents().docs()
                && docs.iter().all(|doc| node.documents().heads(doc) == first.documents().heads(doc))
        })
    }

    /// Whether the peers of these machines hold the same documents and plan alike.
    pub fn agreed(&self, hosts: &[usize]) -> bool {
        self.same_heads(hosts) && self.all_equal(hosts, |node, first| node.plan() == first.plan())
    }

    fn all_equal(&self, hosts: &[usize], equal: impl Fn(&Node, &Node) -> bool) -> bool {
        let nodes: Vec<&Node> = hosts.iter().filter_map(|host| self.node(*host)).collect();
        let Some(first) = nodes.first() else { return false };
        nodes.len() == hosts.len() && nodes[1..].iter().all(|node| equal(node, first))
    }

    /// Whether all these machines believe each other up.
    pub fn all_up(&self, hosts: &[usize]) -> bool {
        hosts.iter().all(|host| {
            self.node(*host).is_some_and(|node| {
                hosts.iter().all(|other| node.liveness(&self.hosts[*other].id) == Liveness::Up)
            })
        })
    }

    /// The id of a machine's node.
    pub fn id(&self, host: usize) -> NodeId {
        self.hosts[host].id
    }

    /// What happened, as a person reads it: a line each.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// Rules of the world that a peer broke: more given out than there is, two starts of one container.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Every program that runs anywhere, with its process: equal at two times if nothing was started or
    /// stopped between them.
    pub fn processes(&self) -> Vec<(usize, ContainerId, u32)> {
        let of =
            |host: usize| self.running(host).filter_map(move |(id, it)| it.pid.map(|pid| (host, *id, pid)));
        (0..self.len()).flat_map(of).collect()
    }
}
