//! Machines that come and go: joining with a token, leaving, being removed.

use std::time::Duration;

use document::event::NodeInfo;
use model::NodeId;
use node::{CommandId, Outcome};

use crate::author::{Author, name};
use crate::faults::User;
use crate::host::{Host, HostState};
use crate::world::{Cluster, Happening, address, seed32};

impl Cluster {
    /// A new machine joins through a peer, as `skerry join` does: it is given the log, signs its own
    /// admission with a token, and starts once that is accepted. `None` where the peer answers nobody.
    pub fn join(&mut self, via: usize) -> Option<usize> {
        if !self.answers(via) {
            return None;
        }
        let host = self.hosts.len();
        let token = Author::new(seed32(self.seed, 0x71, host as u64));
        let mut key = Author::new(seed32(self.seed, 0x0d, host as u64));
        let id = NodeId::from_bytes(key.public());
        self.sign_and_submit(via, User::Alice, "a token", |author, documents, _| {
            Some(author.token(documents, model::TokenId::from_bytes(token.public()), 1))
        })?;
        self.tell(format!("n{} joins through n{}", host + 1, via + 1));
        let info =
            NodeInfo { name: name(&format!("n{}", host + 1)), key: id, addresses: vec![address(host)] };
        let admission = key.admit(self.hosts[via].node.as_ref()?.documents(), &token, info);
        self.check.signed(&admission);
        self.hosts.push(Host::new(id));
        self.index.insert(id, host);
        let command = CommandId(self.commands + 1);
        self.joining.insert(command, (host, admission.clone()));
        self.submit(via, admission);
        Some(host)
    }

    /// The peer that was asked has answered: the machine begins with what that one has on disk.
    pub(crate) fn joined(&mut self, via: usize, command: CommandId, outcome: &Outcome) {
        let Some((host, admission)) = self.joining.remove(&command) else { return };
        if let Outcome::Accepted { .. } = outcome {
            let mut log = self.hosts[via].disk.clone();
            if !log.contains(&admission) {
                log.push(admission);
            }
            self.hosts[host].write(log);
            self.at(Duration::from_millis(50), host, Happening::Back);
        }
    }

    /// Whether somebody who asks this peer is answered.
    pub fn answers(&self, host: usize) -> bool {
        self.hosts[host].state == HostState::Up && self.hosts[host].node.is_some() && !self.hosts[host].paused
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
