//! What comes in and what goes out: two closed lists. The shell obeys effects in order and answers
//! with inputs.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Capacity, ContainerId, Deployment, Digest, EventId, ImageRecord, LeaseGrant, Limits, NodeId, Port,
    ReplicaId, RestartPolicy, Revision, Time, UserId,
};
use serde::{Deserialize, Serialize};
use wire::Message;

use crate::pressure::Pressure;

/// Names one request of a client, so that its answer finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// Numbers the batches that were handed to the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client hands in a signed event, to be durable on `durable` peers if so many can be reached.
    Submit {
        /// Where the answer goes.
        command: CommandId,
        /// The event's stored bytes.
        event: Vec<u8>,
        /// 1 or more.
        durable: u32,
    },
    /// The journal has synced this batch and all before it.
    Persisted(Seq),
    /// The journal could not take this batch; none of it, nor of those after it, is on disk.
    PersistFailed {
        /// The first batch that failed.
        seq: Seq,
        /// Why, for people.
        reason: String,
    },
    /// A message on a link.
    Received {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A datagram of the membership protocol.
    Datagram {
        /// Who sent it, by its certificate.
        from: NodeId,
        /// Opaque here.
        bytes: Vec<u8>,
    },
    /// A link is up.
    Connected(NodeId),
    /// A link could not be made.
    ConnectFailed(NodeId),
    /// A link is gone.
    Disconnected(NodeId),
    /// A node that was removed calls, and was not let in; answer with `Farewell`.
    FormerMember(NodeId),
    /// A member did not let this node in, and said these events instead: they should show why.
    Farewell {
        /// Who said it, by its certificate.
        from: NodeId,
        /// Stored bytes of events, causes before effects.
        events: Vec<Vec<u8>>,
    },
    /// A container's program runs.
    Started {
        /// Which.
        container: ContainerId,
        /// Its first process as the host sees it.
        pid: u32,
    },
    /// A container could not be started. Nothing of it runs.
    StartFailed {
        /// Which.
        container: ContainerId,
        /// Whether another node might do better: a taken port, a refused limit.
        here_only: bool,
        /// Why, for people.
        reason: String,
    },
    /// A container has ended; nothing of it runs.
    Exited {
        /// Which.
        container: ContainerId,
        /// How.
        exit: Exit,
    },
    /// Everything of a container is gone.
    Removed(ContainerId),
    /// An image is here, whole and unpacked.
    ImageReady(Digest),
    /// An image could not be had.
    ImageFailed {
        /// Which.
        digest: Digest,
        /// Why, for people.
        reason: String,
    },
    /// The images that this node can give to others.
    Images(Vec<ImageRecord>),
    /// What the machine is short of.
    Pressure(Pressure),
    /// A grant of a lease is on disk; or it may not be, where `kept` is `false`.
    LeaseKept {
        /// Of which replica.
        replica: ReplicaId,
        /// Which number.
        number: u64,
        /// To whom.
        holder: NodeId,
        /// Whether it is.
        kept: bool,
    },
    /// The time of the last `WakeAt` has come.
    Woken,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, where it exited.
    pub code: Option<i32>,
    /// Signal, where it was killed.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
    /// Why it is not known how it ended (its supervisor died, the machine was restarted).
    pub lost: Option<String>,
}

/// What must be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append to the journal and sync; answer with `Persisted` or `PersistFailed`.
    Persist {
        /// Its number.
        seq: Seq,
        /// Stored bytes of events.
        records: Vec<Vec<u8>>,
    },
    /// Send on the link, in order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Send a datagram if there is a link; it may be lost.
    Datagram {
        /// To whom.
        to: NodeId,
        /// Opaque here.
        bytes: Vec<u8>,
    },
    /// Make a link; answer with `Connected` or `ConnectFailed`.
    Connect {
        /// To whom.
        node: NodeId,
        /// Where, most wanted first.
        addresses: Vec<String>,
    },
    /// Close the link; answer with `Disconnected` if there was one.
    Disconnect(NodeId),
    /// Say this to a removed node that calls, then close; nothing that it says is read.
    Farewell {
        /// To whom.
        to: NodeId,
        /// Stored bytes of events, causes before effects; none where it was told just now.
        events: Vec<Vec<u8>>,
    },
    /// Make and start a container, or start one again that ended.
    Start {
        /// Which.
        container: ContainerId,
        /// All that is to be known of it; kept beside it and given back after a restart.
        claim: Box<Claim>,
        /// Where it may only run until then: it is killed at that time, whatever becomes of the peer, and not
        /// started after it.
        until: Option<Time>,
    },
    /// A container that was started with an end may run until this later one.
    ExtendLease {
        /// Which.
        container: ContainerId,
        /// By the clock of this node.
        until: Time,
    },
    /// Write a grant in the place of what was granted for its replica before, and sync; answer with `LeaseKept`.
    KeepLease(LeaseGrant),
    /// Forget what was granted for these, whenever it suits.
    ForgetLeases(Vec<ReplicaId>),
    /// Ask a container to end, and end it after the grace; answer with `Exited`.
    Stop(ContainerId),
    /// Remove what is left of a container; answer with `Removed`.
    Remove(ContainerId),
    /// Get an image from other nodes and unpack it; answer with `ImageReady` or `ImageFailed`.
    Fetch {
        /// Which.
        digest: Digest,
        /// The name it goes by.
        reference: String,
        /// Who has it, in the order in which to ask.
        from: Vec<NodeId>,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        command: CommandId,
        /// The answer.
        outcome: Outcome,
    },
    /// Something that a user would notice.
    Notice(Notice),
    /// Who may speak to this peer, from here on.
    Roster {
        /// Nodes of the mesh, this one included.
        nodes: BTreeSet<NodeId>,
        /// Users.
        users: BTreeSet<UserId>,
        /// Nodes that were removed: not let in, and told why.
        former: BTreeSet<NodeId>,
    },
    /// Send `Woken` then. Holds until the next input, which says it anew.
    WakeAt {
        /// When.
        time: Time,
        /// What for: a busy loop explains itself.
        reason: &'static str,
    },
}

/// The answer to a submitted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk here and on some other peers.
    Accepted {
        /// The event.
        event: EventId,
        /// Peers that have it on disk, this one included.
        durable_on: u32,
        /// Whether it was here before.
        known: bool,
    },
    /// It was not taken; nothing changed.
    Refused {
        /// A word for programs.
        code: &'static str,
        /// Why, for people.
        reason: String,
    },
}

/// Something that happened which a user would notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A word for programs, like `container-started`.
    pub kind: &'static str,
    /// What it is about, like `default/web`.
    pub about: Option<String>,
    /// A sentence.
    pub message: String,
}

/// A node's claim on a replica: all that is needed to run it again after a restart, cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The replica.
    pub replica: ReplicaId,
    /// The template.
    pub revision: Revision,
    /// The number that people see.
    pub revision_number: u64,
    /// Higher beats lower.
    pub number: u64,
    /// What to run.
    pub run: RunSpec,
    /// How often it was started again.
    pub restarts: u32,
    /// Of a job: how often a run of it failed, here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_runs: u32,
    /// Of an exclusive replica: the number of the lease that it was started under last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What one container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The image's name.
    pub reference: String,
    /// The image.
    pub image: Digest,
    /// Instead of the image's entrypoint.
    pub command: Vec<String>,
    /// Instead of the image's arguments.
    pub args: Vec<String>,
    /// Over the image's environment.
    pub env: BTreeMap<String, String>,
    /// Instead of the image's working folder.
    pub workdir: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// What is set aside for it.
    pub resources: Capacity,
    /// The most that it may use, where that is more.
    #[serde(default)]
    pub limits: Limits,
    /// Published ports.
    pub ports: Vec<Port>,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Of a job: how often a run that failed is done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Of an exclusive replica: who grants its leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<NodeId>,
}

impl RunSpec {
    /// What a container of this deployment runs.
    pub fn of(deployment: &Deployment) -> Self {
        Self {
            reference: deployment.image.reference.clone(),
            image: deployment.image.digest,
            command: deployment.image.command.clone(),
            args: deployment.image.args.clone(),
            env: deployment.env.vars.clone(),
            workdir: deployment.image.workdir.clone(),
            user: deployment.image.user.clone(),
            resources: deployment.resources.as_capacity(),
            limits: deployment.resources.limits,
            ports: deployment.ports.ports.clone(),
            restart: deployment.restart.policy,
            retries: deployment.job.map(|job| job.retries),
            voters: deployment.replicas.voters.clone(),
        }
    }
}

/// A container that the shell found when the peer started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub container: ContainerId,
    /// Its claim.
    pub claim: Claim,
    /// Its first process and when it was started (milliseconds of Unix time), where it runs; how it
    /// ended otherwise.
    pub state: Result<(u32, i64), Exit>,
    /// Whether it was told to stop, as far as the shell knows: it will end, or has.
    pub stopping: bool,
}
