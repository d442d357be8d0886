//! Machines that are let in while the cluster runs, as `skerry join` does it.

use std::collections::BTreeMap;

use document::event::NodeInfo;
use model::{Capacity, DocId, LabelKey, NodeId};
use node::CommandId;

use crate::author::{Author, name};
use crate::host::{Host, HostState};
use crate::world::{Cluster, address, seed32};

impl Cluster {
    /// A machine with an empty disk and a fresh key reads the cluster's log from a peer, signs its own
    /// admission with the token's key and hands it in there. Its peer is not started: that is for when
    /// the answer has come. A machine that was a member before is set up anew, and is another node.
    ///
    /// # Errors
    /// When its peer still runs, or the peer that it asks does not.
    pub(crate) fn join(&mut self, host: usize, through: usize) -> Result<CommandId, String> {
        if self.hosts[host].state == HostState::Up {
            return Err(format!("n{} runs; a machine that joins is set up first", host + 1));
        }
        let Some(node) = self.hosts[through].node.as_ref() else {
            return Err(format!("n{} does not run", through + 1));
        };
        let (log, _) = node.documents().since(&DocId::Cluster, &[], usize::MAX);
        let lives = self.hosts[host].life;
        let mut key = Author::new(seed32(self.seed, 0x0e, (host as u64) << 32 | lives));
        let token = Author::new(seed32(self.seed, 0x70, 0));
        let id = NodeId::from_bytes(key.public());
        let info =
            NodeInfo { name: name(&format!("n{}", host + 1)), key: id, addresses: vec![address(host)] };
        let admission = key.admit(node.documents(), &token, info);
        let old = &self.hosts[host];
        let mut fresh = Host::new(id, key.signer(), old.machine.clone());
        // The machine stays: its clock, what it offers, what its operator says of it, its lives.
        fresh.life = old.life + 1;
        fresh.pids = old.pids;
        fresh.skew_ms = old.skew_ms;
        fresh.disk = log;
        fresh.disk.push(admission.clone());
        self.kernel_dies(host);
        self.index.insert(id, host);
        self.hosts[host] = fresh;
        self.tell(format!("n{} asks n{} to be let in", host + 1, through + 1));
        Ok(self.submit(through, admission))
    }

    /// Lets a machine offer so much, from the next start of its peer on.
    pub(crate) fn offer(&mut self, host: usize, capacity: Capacity) {
        self.hosts[host].machine.capacity = capacity;
    }

    /// Labels a machine, from the next start of its peer on.
    pub(crate) fn label(&mut self, host: usize, labels: BTreeMap<LabelKey, String>) {
        self.hosts[host].machine.labels = labels;
    }
}
