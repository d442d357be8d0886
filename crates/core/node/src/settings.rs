//! What a node is told at its start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Capacity, ClusterId, ImageRecord, LabelKey, LeaseGrant, Name, NodeId, Sabotages, Terms};

use crate::io::Found;
use crate::signed::{Reader, Signer};

/// Who this node is and what it offers.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: Name,
    /// Its cluster.
    pub cluster: ClusterId,
    /// How often the peer has started on this data folder, this start included.
    pub generation: u64,
    /// Where its mesh port can be reached.
    pub addresses: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<LabelKey, String>,
    /// What it offers to containers.
    pub capacity: Capacity,
    /// How much of what the machine has that is; told to people.
    pub terms: Terms,
    /// Signs what this node says of itself.
    pub signer: Signer,
    /// Reads what others have signed: [`crate::Plainly`] but in a simulator.
    pub reader: Arc<dyn Reader>,
    /// All chance that the core will ever have.
    pub seed: [u8; 32],
    /// Its timings.
    pub timings: Timings,
    /// Faults put in on purpose; empty but in tests.
    pub sabotage: Sabotages,
}

/// The leases that this node had granted, or why that is not known any more: then it grants none.
pub type FoundLeases = Result<Vec<LeaseGrant>, String>;

/// What the shell found on disk.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The journal: stored bytes of events, oldest first.
    pub events: Vec<Vec<u8>>,
    /// Containers, running or not.
    pub containers: Vec<Found>,
    /// Images held whole.
    pub images: Vec<ImageRecord>,
    /// What it had granted as a voter.
    pub leases: FoundLeases,
}

impl Default for Boot {
    fn default() -> Self {
        Self { events: Vec::new(), containers: Vec::new(), images: Vec::new(), leases: Ok(Vec::new()) }
    }
}

/// How long things take. The defaults are for a LAN of small boxes.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// After a node was declared down, how long its work still counts as running: a peer that is
    /// restarted within this loses nothing. Shorter replaces sooner, and duplicates more.
    pub grace: Duration,
    /// How long a node that starts waits for somebody to catch up with before it takes new work.
    /// What it ran before starts at once. Shorter duplicates more after a power cut of a site.
    pub alone: Duration,
    /// How long a failed dial waits in a cluster of up to ten; grows with the roster.
    pub redial: Duration,
    /// How long the greater of two nodes lets the lesser dial first.
    pub dial_second: Duration,
    /// How dead nodes are looked for.
    pub liveness: membership::Settings,
    /// How long a client waits for further disks.
    pub durable: Duration,
    /// How long a container must have run to count as healthy.
    pub healthy: Duration,
    /// After how long a run the back-off starts from its first step again.
    pub backoff_reset: Duration,
    /// The longest back-off. Each failure doubles it from one second.
    pub backoff_max: Duration,
    /// Records of this node are at least so far apart.
    pub publish: Duration,
    /// In a cluster of more than a dozen, plans are at least so far apart for each member, and so are looks at
    /// who counts: news of many come in bursts, and one plan serves a burst. Longer answers later; the first
    /// is made at once.
    pub replan: Duration,
    /// The same of what is said of nodes: their records, and all records to those that link anew. On its way
    /// to the last member a record waits so long some three times.
    pub pass_on: Duration,
    /// How long a failed image transfer waits.
    pub refetch: Duration,
    /// The term of a lease of an exclusive replica. Shorter takes over sooner from a node that is lost, and has a
    /// busy machine lose what it runs. Each lease goes by the term that its holder asked with.
    pub lease: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(1),
            alone: Duration::from_secs(2),
            redial: Duration::from_millis(500),
            dial_second: Duration::from_millis(200),
            liveness: membership::Settings::lan(),
            durable: Duration::from_secs(1),
            healthy: Duration::from_secs(1),
            backoff_reset: Duration::from_secs(60),
            backoff_max: Duration::from_secs(300),
            publish: Duration::from_millis(10),
            replan: Duration::from_millis(1),
            pass_on: Duration::from_micros(500),
            refetch: Duration::from_secs(2),
            lease: Duration::from_secs(10),
        }
    }
}
