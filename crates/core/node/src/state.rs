//! The whole state of a node, and the one door to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use document::event::Schedule;
use document::{Documents, EventReader};
use membership::{Liveness, Membership, Records};
use model::{
    ContainerId, Deployment, Digest, EventId, ImageRecord, JobEnds, JobId, Name, NodeId, NodeRecord,
    RecordVersion, Revision, Sabotage, Time,
};
use planner::{Plan, Planner};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::containers::Mine;
use crate::drain::DrainDeadline;
use crate::io::{CommandId, Effect, Input, Notice, Seq};
use crate::leases::Leases;
use crate::links::Link;
use crate::pressure::Press;
use crate::rollout::RolledBack;
use crate::settings::{Boot, Config};
use crate::standing::Said;
use crate::sync::{Parked, Waiting};

/// A deployment that should run, with what is costly to work out.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The deployment.
    pub deployment: Deployment,
    /// The hash of its template.
    pub revision: Revision,
    /// The number that people see for it.
    pub number: u64,
    /// Why it is not the template that the documents want, if so.
    pub rolled_back: Option<RolledBack>,
    /// That it did not come up and nothing is there to go back to, or the update says to stop.
    pub failed: Option<model::FailedRevision>,
}

/// What a plan is made from beside the documents: equal for two nodes, and so are their plans.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Knowledge {
    /// The version of each record that is held.
    pub records: Vec<(NodeId, RecordVersion)>,
    /// Whose work counts as running.
    pub alive: BTreeSet<NodeId>,
}

/// One peer's mind.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) started: Time,
    pub(crate) now: Time,
    pub(crate) wall_ms: i64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) out: Vec<Effect>,
    /// When something is due next, unless an input comes first, and what.
    pub(crate) wakes_at: Option<(Time, &'static str)>,

    pub(crate) documents: Arc<Documents>,
    /// Deployments that validate, by namespace and name.
    pub(crate) desired: BTreeMap<(Name, Name), Desired>,
    /// Deployments whose merged groups do not validate: what runs of them is kept.
    pub(crate) invalid: BTreeSet<(Name, Name)>,
    pub(crate) issued: Seq,
    pub(crate) synced: Seq,
    /// Batches at the journal, oldest first, and the events in each.
    pub(crate) at_journal: VecDeque<(Seq, Vec<EventId>)>,
    /// What may leave once the journal has synced that batch.
    pub(crate) held: VecDeque<(Seq, Effect)>,
    pub(crate) waiting: BTreeMap<CommandId, Waiting>,
    pub(crate) parked: Parked,
    pub(crate) refusing: Option<String>,
    /// While the journal takes nothing: when others are asked again for what it lost.
    pub(crate) catch_up_at: Option<Time>,
    /// When the disk did not take events last, until it takes some.
    pub(crate) refused_at: Option<Time>,
    /// Since the journal first took nothing: the documents that are on disk.
    pub(crate) durable: Option<Arc<Documents>>,

    pub(crate) membership: Membership,
    pub(crate) links: BTreeMap<NodeId, Link>,
    /// Links that are down, by when they are dialled.
    pub(crate) dials: BTreeSet<(Time, NodeId)>,
    /// Removed nodes whose link is closed then.
    pub(crate) farewells: BTreeMap<NodeId, Time>,
    /// Removed nodes that were given a farewell at the gate, and when; forgotten soon.
    pub(crate) told: BTreeMap<NodeId, Time>,
    /// When a link last began with all that is known of everybody.
    pub(crate) introduced_at: Option<Time>,
    /// How many events of the cluster document there were when the roster was followed last.
    pub(crate) roster_of: Option<usize>,
    pub(crate) records: Records,
    /// Members that brought a record that its node has not signed, and when that was told.
    pub(crate) forgers: BTreeMap<NodeId, Time>,
    pub(crate) count: u64,
    pub(crate) published_at: Option<Time>,
    /// Nodes whose records are to be passed on, in a large cluster, and who brought them.
    pub(crate) to_pass_on: BTreeMap<NodeId, Option<NodeId>>,
    /// When some last were.
    pub(crate) passed_on_at: Option<Time>,
    /// Whether new work may be taken: somebody was caught up with, or nobody is there.
    pub(crate) settled: bool,

    pub(crate) planner: Planner,
    pub(crate) mine: BTreeMap<ContainerId, Mine>,
    pub(crate) containers_made: u64,
    pub(crate) declined: Vec<model::Declined>,
    /// Starts that failed here, and when they are tried again; oldest first.
    pub(crate) start_failures: Vec<StartFailure>,
    pub(crate) capacity_version: u64,
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    pub(crate) fetching: BTreeMap<Digest, Fetching>,
    /// Something that the plan depends on has changed.
    pub(crate) dirty: bool,
    /// When the last plan was made; `None` before the first.
    pub(crate) planned_at: Option<Time>,
    /// Something that this node's record says has changed.
    pub(crate) changed: bool,
    /// Since when its documents stand elsewhere than its record says.
    pub(crate) heads_moved: Option<Time>,
    pub(crate) removed: bool,
    /// How many nodes, users and removed nodes the shell was told last.
    pub(crate) told_roster: Option<(usize, usize, usize)>,
    /// Other nodes whose work counted as running when it was looked at last.
    pub(crate) alive: BTreeSet<NodeId>,
    /// Other nodes whose records counted as their present word then.
    pub(crate) words: BTreeSet<NodeId>,
    /// Whom each of them says it is linked to.
    pub(crate) said: Said,
    /// Something that says whose work counts, or whose word, has changed since that was looked at.
    pub(crate) stirred: bool,
    /// When that was; `None` before the first time.
    pub(crate) looked_at: Option<Time>,
    /// Until then no copy makes way: this peer stood still, and what it hears may be old.
    pub(crate) hears_old_until: Option<Time>,
    /// Until then somebody may hold words of an earlier life of this peer, where it had containers.
    pub(crate) earlier_words_until: Option<Time>,
    /// When time alone will change it next, and why: a grace ends, or the word of a node that is not
    /// linked begins to count, and with it whom that one says it is linked to.
    pub(crate) stirs_at: Option<(Time, &'static str)>,
    /// Until then nothing makes room here, since others know of events that this node lacks.
    pub(crate) behind_until: Option<Time>,
    /// This node's ordinal in deployments of mode `global`; none while it is no member.
    pub(crate) own_ordinal: Option<u32>,
    /// Templates that are wanted and did not come up.
    pub(crate) failed: Vec<model::FailedRevision>,
    /// What this node says has ended for good of jobs that are wanted.
    pub(crate) job_records: BTreeMap<JobId, JobEnds>,
    /// The same, joined with what all others say.
    pub(crate) ends: BTreeMap<JobId, JobEnds>,
    /// Those of them whose time is over by this node's clock.
    pub(crate) jobs_over: BTreeSet<JobId>,
    /// Since when this node wants the jobs that must be done by some time, and are not.
    pub(crate) job_since: BTreeMap<JobId, Time>,
    /// It was said that no more of them are remembered.
    pub(crate) failures_full: bool,
    /// What is said of this node's own work.
    pub(crate) schedule: Schedule,
    /// By when it must be drained, if it must.
    pub(crate) drain_deadline: Option<DrainDeadline>,
    /// What the machine is short of.
    pub(crate) press: Press,
    /// As a voter and as a holder.
    pub(crate) leases: Leases,
    /// Nodes that were down once, with [`Sabotage::NoResolutionAfterPartition`].
    pub(crate) parted: BTreeSet<NodeId>,
}

/// An image on its way.
#[derive(Clone, Debug)]
pub(crate) enum Fetching {
    /// The shell was told to fetch it.
    Asked,
    /// It could not be had; asked again then.
    Failed { until: Time, reason: String },
}

/// A replica that could not be started here for a reason of this node's: a port that is taken, say.
#[derive(Clone, Debug)]
pub(crate) struct StartFailure {
    pub(crate) replica: model::ReplicaId,
    pub(crate) revision: Revision,
    /// How often in a row.
    pub(crate) failures: u32,
    /// Declined until then.
    pub(crate) until: Time,
}

impl StartFailure {
    /// Whether it is about this replica in this revision.
    pub(crate) fn is_of(&self, replica: &model::ReplicaId, revision: Revision) -> bool {
        self.replica == *replica && self.revision == revision
    }
}

/// How often one input may make the plan change; more is a loop in the rules.
const REPLANS_MAX: usize = 8;

impl Node {
    /// Wakes up with what is on disk. The effects of the start come with the first `handle`.
    ///
    /// # Errors
    /// When the journal holds an event that the documents do not take: it was put together by hand,
    /// or by a newer release.
    pub fn new(config: Config, boot: Boot, now: Time, wall_ms: i64) -> Result<Self, document::InsertError> {
        let mut documents = Documents::new(config.cluster);
        let reader = Arc::clone(&config.reader);
        documents.read_by(EventReader::new(move |stored| reader.event(stored)));
        documents.sabotage(config.sabotage);
        let mut events = boot.events;
        if config.sabotage.has(Sabotage::LastOfJournalUnread) && events.len() > 1 {
            events.pop();
        }
        let mut documents = Arc::new(documents);
        let all: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        if let Some((found, _)) = config.reader.documents_after(&documents, &all) {
            documents = found;
        } else {
            let inserted = Arc::make_mut(&mut documents).insert_all(&events);
            let inserted = inserted.into_iter().collect::<Result<Vec<_>, _>>()?;
            config.reader.keep_documents(&documents, &inserted);
        }
        let mut config = config;
        if config.sabotage.has(Sabotage::StartsUncounted) {
            config.generation = 1;
        }
        let mut membership =
            Membership::new(config.me, config.generation, config.seed, config.timings.liveness);
        membership.sabotage(config.sabotage);
        let mut records = Records::new(config.me);
        records.sabotage(config.sabotage);
        let mut planner = Planner::new();
        planner.sabotage(config.sabotage);
        let mut node = Self {
            rng: ChaCha8Rng::from_seed(config.seed),
            out: Vec::new(),
            wakes_at: None,
            documents,
            desired: BTreeMap::new(),
            invalid: BTreeSet::new(),
            issued: Seq(0),
            synced: Seq(0),
            at_journal: VecDeque::new(),
            held: VecDeque::new(),
            waiting: BTreeMap::new(),
            parked: Parked::default(),
            refusing: None,
            catch_up_at: None,
            refused_at: None,
            durable: None,
            membership,
            links: BTreeMap::new(),
            dials: BTreeSet::new(),
            farewells: BTreeMap::new(),
            told: BTreeMap::new(),
            introduced_at: None,
            roster_of: None,
            records,
            forgers: BTreeMap::new(),
            count: 0,
            published_at: None,
            to_pass_on: BTreeMap::new(),
            passed_on_at: None,
            settled: false,
            planner,
            mine: BTreeMap::new(),
            containers_made: 0,
            declined: Vec::new(),
            start_failures: Vec::new(),
            capacity_version: 1,
            images: boot.images.into_iter().map(|image| (image.digest, image)).collect(),
            fetching: BTreeMap::new(),
            dirty: true,
            planned_at: None,
            changed: true,
            heads_moved: None,
            removed: false,
            told_roster: None,
            behind_until: None,
            own_ordinal: None,
            failed: Vec::new(),
            failures_full: false,
            job_records: BTreeMap::new(),
            ends: BTreeMap::new(),
            jobs_over: BTreeSet::new(),
            job_since: BTreeMap::new(),
            schedule: Schedule::Normal,
            drain_deadline: None,
            press: Press::default(),
            leases: Leases::new(boot.leases, now, config.sabotage.has(Sabotage::GrantsForgotten)),
            parted: BTreeSet::new(),
            alive: BTreeSet::new(),
            words: BTreeSet::new(),
            said: Said::default(),
            stirred: true,
            looked_at: None,
            hears_old_until: None,
            earlier_words_until: None,
            stirs_at: None,
            config,
            started: now,
            now,
            wall_ms,
        };
        node.adopt(boot.containers);
        node.adopt_leases();
        node.roster_changed();
        node.desired_changed();
        Ok(node)
    }

    /// Takes one input and says what must be done.
    ///
    /// # Panics
    /// When time runs backwards, or an invariant of the core is broken.
    pub fn handle(&mut self, now: Time, wall_ms: i64, input: Input) -> Vec<Effect> {
        assert!(self.now <= now, "time ran backwards: {:?} after {:?}", now, self.now);
        self.notice_a_standstill(now);
        self.now = now;
        self.wall_ms = wall_ms;
        // Who counts follows from links, from records (whom those that are up say they are linked to),
        // from the roster and from who is believed alive. Links change by these inputs; what changes one of
        // the others says so itself. Most inputs change nobody's mind.
        self.stirred |= matches!(input, Input::Connected(_) | Input::Disconnected(_));
        let in_time = self.wakes_at.is_some_and(|(at, _)| now < at) && self.hears_old_until.is_none();
        let before = (self.stirred, self.dirty, self.changed);
        let told_again =
            matches!(&input, Input::Received { from, message } if self.is_told_again(*from, message));
        let mostly_nothing = told_again || matches!(input, Input::Datagram { .. });
        match input {
            Input::Submit { command, event, durable } => self.on_submit(command, event, durable),
            Input::Persisted(seq) => self.on_persisted(seq),
            Input::PersistFailed { seq, reason } => self.on_persist_failed(seq, &reason),
            Input::Received { from, .. } if told_again => self.heard(from),
            Input::Received { from, message } => self.on_received(from, message),
            Input::Datagram { from, bytes } => {
                self.on_datagram(from, &bytes);
                self.on_membership();
            }
            Input::Connected(peer) => {
                self.on_connected(peer);
                self.leases_on_connected(peer);
            }
            Input::ConnectFailed(peer) => self.on_connect_failed(peer),
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::FormerMember(node) => self.on_former_member(node),
            Input::Farewell { from, events } => self.on_farewell(from, &events),
            Input::Started { container, pid } => self.on_started(container, pid),
            Input::StartFailed { container, here_only, reason } => {
                self.on_start_failed(container, here_only, reason);
            }
            Input::Exited { container, exit } => self.on_exited(container, &exit),
            Input::Removed(container) => self.on_removed(container),
            Input::ImageReady(digest) => self.on_image_ready(digest),
            Input::ImageFailed { digest, reason } => self.on_image_failed(digest, reason),
            Input::Images(images) => self.on_images(images),
            Input::Pressure(pressure) => self.on_pressure(pressure),
            Input::LeaseKept { replica, number, holder, kept } => {
                self.on_lease_kept(&replica, number, holder, kept);
            }
            Input::Woken => {}
        }
        let nothing_came_of_it = before == (self.stirred, self.dirty, self.changed)
            && self.out.iter().all(|it| matches!(it, Effect::Datagram { .. }));
        if mostly_nothing && in_time && nothing_came_of_it {
            // By far the most inputs: what else may be due is not looked at.
            self.wake_for_membership();
        } else {
            self.pass_time();
            self.settle();
            self.wake();
        }
        std::mem::take(&mut self.out)
    }

    /// Whether this fault was put in.
    #[inline]
    pub(crate) const fn has(&self, fault: Sabotage) -> bool {
        self.config.sabotage.has(fault)
    }

    /// Everything whose time has come.
    fn pass_time(&mut self) {
        self.membership.tick(self.now);
        self.on_membership();
        self.tick_links();
        self.tick_sync();
        self.tick_pressure();
        self.tick_containers();
        self.tick_leases();
    }

    /// Plans and reconciles until nothing changes any more, then says what has changed.
    fn settle(&mut self) {
        if self.next_plan().is_some_and(|at| at > self.now) {
            return self.publish_if_due();
        }
        for _ in 0..REPLANS_MAX {
            if !std::mem::take(&mut self.dirty) {
                break;
            }
            self.reconcile();
            if self.is_large() {
                break; // What follows from its own claims waits like all other news: one plan for all.
            }
        }
        self.publish_if_due();
    }

    fn wake(&mut self) {
        let mut next: Option<(Time, &'static str)> = None;
        let mut consider = |at: Option<(Time, &'static str)>| {
            if let Some((time, reason)) = at
                && next.is_none_or(|(earliest, _)| time < earliest)
            {
                next = Some((time, reason));
            }
        };
        consider(self.membership.next_wake());
        consider(self.next_link_wake());
        consider(self.next_farewell_wake());
        consider(self.next_sync_wake());
        consider(self.next_container_wake());
        consider(self.press.next_wake());
        consider(self.next_publish_wake());
        consider(self.next_lease_wake());
        let plan = self.next_plan().filter(|at| *at > self.now);
        consider(plan.map(|at| (at, "plan for what has changed")));
        self.wakes_at = next;
        self.say_when_to_wake();
    }

    /// With each input: an alarm that is not set anew is forgotten.
    fn say_when_to_wake(&mut self) {
        if let Some((time, reason)) = self.wakes_at {
            self.out.push(Effect::WakeAt { time: time.max(self.now), reason });
        }
    }

    /// The same where nothing but the membership can have come by something to do.
    fn wake_for_membership(&mut self) {
        if let Some(next) = self.membership.next_wake()
            && self.wakes_at.is_none_or(|(at, _)| next.0 < at)
        {
            self.wakes_at = Some(next);
        }
        self.say_when_to_wake();
    }

    pub(crate) fn notice(&mut self, kind: &'static str, about: Option<String>, message: impl Into<String>) {
        self.out.push(Effect::Notice(Notice { kind, about, message: message.into() }));
    }

    /// The name of a node, for people: from its record, else from the roster, else its short id.
    pub fn name_of(&self, node: &NodeId) -> String {
        if *node == self.config.me {
            return self.config.name.to_string();
        }
        if let Some(record) = self.records.get(node) {
            return record.name.to_string();
        }
        self.documents.roster().nodes.get(node).map_or_else(|| node.short(), |member| member.name.to_string())
    }

    /// This node's settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The same, to be held on to.
    pub fn shared_documents(&self) -> Arc<Documents> {
        Arc::clone(&self.documents)
    }

    /// Deployments that validate.
    pub const fn desired(&self) -> &BTreeMap<(Name, Name), Desired> {
        &self.desired
    }

    /// The last plan.
    pub fn plan(&self) -> &Plan {
        self.planner.last()
    }

    /// Explains the last plan for one deployment; `None` where none of that name is wanted.
    pub fn explain(&self, namespace: &Name, name: &Name) -> Option<planner::Explanation> {
        self.planner.explain(namespace, name)
    }

    /// Containers of this node.
    pub const fn mine(&self) -> &BTreeMap<ContainerId, Mine> {
        &self.mine
    }

    /// Observed records, this node's own included.
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Whether a node is believed alive; this one always is.
    pub fn liveness(&self, node: &NodeId) -> Liveness {
        if *node == self.config.me { Liveness::Up } else { self.membership.liveness(node) }
    }

    /// Whether what a node runs counts in this one's plans.
    pub fn counts(&self, node: &NodeId) -> bool {
        *node == self.config.me || self.alive.contains(node)
    }

    /// When the belief about a node last changed.
    pub fn liveness_changed_at(&self, node: &NodeId) -> Option<Time> {
        self.membership.changed_at(node)
    }

    /// Peers with a live link.
    pub fn linked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.iter().filter(|(_, link)| link.is_up()).map(|(node, _)| *node)
    }

    /// When a node was last heard from on a link; `None` if never.
    pub fn heard_at(&self, node: &NodeId) -> Option<Time> {
        self.links.get(node).and_then(|link| link.heard_at)
    }

    /// Why events are not accepted, if so.
    pub fn refusing(&self) -> Option<&str> {
        self.refusing.as_deref()
    }

    /// Time of the last input.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// What its plan is made from beside the documents. `None` while it knows more than it has said or
    /// written: its plan is then ahead of what another can know.
    ///
    /// # Panics
    /// In a debug build, when who counts was not looked at although it has changed.
    pub fn knowledge(&self) -> Option<Knowledge> {
        if self.changed || self.dirty || self.stirred || !self.at_journal.is_empty() {
            return None;
        }
        debug_assert_eq!(
            self.who_counts(),
            (self.words.clone(), self.alive.clone()),
            "who counts has changed, and nothing said so"
        );
        let mut alive = self.alive.clone();
        alive.insert(self.config.me);
        Some(Knowledge { records: self.records.digest(), alive })
    }

    /// Events that wait for what they depend on.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether this node was removed from its cluster.
    pub const fn is_removed(&self) -> bool {
        self.removed
    }

    /// This node's record, as it is now.
    pub fn own_record(&self) -> NodeRecord {
        self.make_record(RecordVersion { generation: self.config.generation, count: self.count })
    }
}
