//! Machines that come and go: let in with a token while the cluster runs, as `skerry join` does it, or
//! removed.

use std::collections::BTreeMap;
use std::time::Duration;

use document::event::{NodeInfo, NodeSchedule, Schedule};
use model::{Capacity, DocId, LabelKey, NodeId, TokenId};
use node::{CommandId, Outcome};

use crate::author::{Author, name};
use crate::faults::User;
use crate::host::{Host, HostState, Machine};
use crate::world::{Cluster, Happening, address, seed32};

impl Cluster {
    /// A machine is let in with the token that the cluster was founded with.
    ///
    /// # Errors
    /// See [`Cluster::join_with`].
    pub(crate) fn join(&mut self, host: usize, through: usize) -> Result<CommandId, String> {
        let token = Author::new(seed32(self.seed, 0x70, 0));
        self.join_with(&token, host, through)
    }

    /// A further machine is bought, alice makes a token for it through a peer, and it is let in with that;
    /// its number. `None` where that peer answers nobody.
    pub fn join_new(&mut self, through: usize) -> Option<usize> {
        if !self.answers(through) {
            return None;
        }
        let host = self.hosts.len();
        let token = Author::new(seed32(self.seed, 0x71, host as u64));
        self.sign_and_submit(through, User::Alice, "a token", |author, documents, _| {
            Some(author.token(documents, TokenId::from_bytes(token.public()), 1))
        })?;
        let key = Author::new(seed32(self.seed, 0x0d, host as u64));
        let id = NodeId::from_bytes(key.public());
        let machine = Machine {
            name: name(&format!("n{}", host + 1)),
            capacity: self.settings.capacity.clone(),
            labels: BTreeMap::new(),
        };
        self.hosts.push(Host::new(id, crate::memory::signer(id), machine));
        self.index.insert(id, host);
        // The peer may have died of the token: then the machine stays what it is, switched off.
        self.join_with(&token, host, through).ok().map(|_| host)
    }

    /// A machine with an empty disk and a fresh key reads the cluster's log from a peer, signs its own
    /// admission with the token's key and hands it in there. Once that is accepted, it has the log and the
    /// admission on its disk and is switched on. A machine that was a member before is set up anew, and is
    /// another node.
    ///
    /// # Errors
    /// When its peer still runs, or the peer that it asks does not.
    fn join_with(&mut self, token: &Author, host: usize, through: usize) -> Result<CommandId, String> {
        if self.hosts[host].state == HostState::Up {
            return Err(format!("n{} runs; a machine that joins is set up first", host + 1));
        }
        let Some(node) = self.hosts[through].node.as_ref() else {
            return Err(format!("n{} does not run", through + 1));
        };
        let (mut log, _) = node.documents().since(&DocId::Cluster, &[], usize::MAX);
        let lives = self.hosts[host].life;
        let mut key = Author::new(seed32(self.seed, 0x0e, (host as u64) << 32 | lives));
        let id = NodeId::from_bytes(key.public());
        let info =
            NodeInfo { name: name(&format!("n{}", host + 1)), key: id, addresses: vec![address(host)] };
        let admission = key.admit(node.documents(), token, info);
        log.push(admission.clone());
        let old = &self.hosts[host];
        let mut fresh = Host::new(id, crate::memory::signer(id), old.machine.clone());
        // The machine stays: its clock, how it runs programs, what its operator says of it, its lives.
        fresh.life = old.life + 1;
        fresh.pids = old.pids;
        fresh.clock = old.clock;
        fresh.start = old.start;
        fresh.no_pids = old.no_pids;
        fresh.shortage = old.shortage;
        fresh.terms = old.terms;
        self.kernel_dies(host);
        self.index.insert(id, host);
        self.hosts[host] = fresh;
        self.asked_to_go.remove(&host);
        self.check.set_up_anew(host);
        self.check.signed(&admission);
        self.tell(format!("n{} asks n{} to be let in", host + 1, through + 1));
        self.joining.insert(CommandId(self.commands + 1), (host, log));
        Ok(self.submit(through, admission))
    }

    /// A request has its answer: if it was one to be let in, the machine begins.
    pub(crate) fn let_in(&mut self, command: CommandId, outcome: &Outcome) {
        let Some((host, log)) = self.joining.remove(&command) else { return };
        if let Outcome::Accepted { .. } = outcome {
            self.hosts[host].write(log);
            self.at(Duration::ZERO, host, Happening::Back);
        }
    }

    /// Alice removes a node through a peer, which may be its own.
    ///
    /// # Panics
    /// When the peer of that host does not run.
    pub fn remove_node(&mut self, host: usize, gone: usize) -> CommandId {
        self.asked_to_go.insert(gone);
        let what = format!("remove n{}", gone + 1);
        let gone = self.hosts[gone].id;
        let signed = self.sign_and_submit(host, User::Alice, &what, |author, documents, time_ms| {
            Some(author.node_remove(documents, gone, time_ms))
        });
        signed.expect("a removal can always be signed").0
    }

    /// Alice says through a peer whether a node takes work.
    ///
    /// # Panics
    /// When the peer of that host does not run.
    pub fn schedule(
        &mut self,
        host: usize,
        of: usize,
        schedule: Schedule,
        deadline: Option<Duration>,
    ) -> CommandId {
        let what = format!("n{} is {}", of + 1, schedule.as_str());
        let node = self.hosts[of].id;
        let deadline_s = deadline.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX).max(1));
        let signed = self.sign_and_submit(host, User::Alice, &what, |author, documents, time_ms| {
            Some(author.node_schedule(documents, NodeSchedule { node, schedule, deadline_s }, time_ms))
        });
        signed.expect("it can always be signed").0
    }

    /// Lets a machine offer so much, from the next start of its peer on.
    pub(crate) fn offer(&mut self, host: usize, capacity: Capacity) {
        self.hosts[host].machine.capacity = capacity;
    }

    /// Labels a machine, from the next start of its peer on.
    pub(crate) fn label(&mut self, host: usize, labels: BTreeMap<LabelKey, String>) {
        self.hosts[host].machine.labels = labels;
    }

    /// Whether somebody who asks this peer is answered.
    pub fn answers(&self, host: usize) -> bool {
        self.hosts[host].hears() && self.hosts[host].node.is_some()
    }

    /// Machines that these peers, which hold the same documents, count among them.
    pub(crate) fn members(&self, by: usize) -> Vec<usize> {
        let Some(node) = self.node(by) else { return Vec::new() };
        let roster = &node.documents().roster().nodes;
        (0..self.hosts.len())
            .filter(|host| roster.contains_key(&self.hosts[*host].id) && !self.is_clone(*host))
            .collect()
    }

    /// Whether this machine holds another's key.
    pub(crate) fn is_clone(&self, host: usize) -> bool {
        self.clones.iter().any(|(_, clone)| *clone == host)
    }
}
