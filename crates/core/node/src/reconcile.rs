//! From the plan to one next step for each container of this node.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use model::limits::{CLAIM_NUMBER_MAX, CONTAINERS_PER_NODE_MAX};
use model::{
    Capacity, ContainerId, ContainerRecord, ContainerState, Declined, Digest, DocId, ImageRecord, Name,
    NodeId, ReplicaId, Revision, Sabotage, Time,
};
use planner::{Placement, Rank};
use rand::RngExt;
use sha2::{Digest as _, Sha256};

use crate::containers::{Mine, Phase, describe, short};
use crate::finished::is_left_over;
use crate::io::{Claim, Effect, Exit, RunSpec};
use crate::state::{Desired, Fetching, Node, StartFailure};

/// Declines that one node remembers: a full one forgets the oldest and is asked again.
const DECLINED_MAX: usize = 256;

/// Doublings of the back-off after which it no longer grows: past the longest one by far.
const BACKOFF_DOUBLINGS_MAX: u32 = 16;

impl Node {
    /// Plans, takes this node's share, lets go of what is not of it, and moves each container on.
    pub(crate) fn reconcile(&mut self) {
        self.settle_if_level();
        self.hear_failures();
        self.hear_of_jobs();
        self.make_plan();
        self.look_whether_behind();
        if self.settled && !self.removed {
            self.take_share();
        }
        self.confirm_and_let_go();
        self.advance();
    }

    /// Claims what the plan gives to this node and it does not have yet.
    fn take_share(&mut self) {
        let me = self.config.me;
        let share: Vec<ReplicaId> = self
            .planner
            .last()
            .placements
            .of(|placement| match placement {
                Placement::Start { node } => *node == me,
                Placement::Replace { new, .. } => *new == me,
                Placement::Keep { .. }
                | Placement::KeepOld { .. }
                | Placement::StopFirst { .. }
                | Placement::Awaits { .. }
                | Placement::Waits
                | Placement::Ended
                | Placement::Queued
                | Placement::GivenUp
                | Placement::Unplaced { .. } => false,
            })
            .map(|(replica, _)| replica)
            .collect();
        for replica in share {
            let key = (replica.namespace.clone(), replica.deployment.clone());
            let Some(desired) = self.desired.get(&key) else { continue };
            let (revision, number) = (desired.revision, desired.number);
            let run = RunSpec::of(&desired.deployment);
            let here = self.mine.values().any(|mine| {
                mine.is_claim() && mine.claim.replica == replica && mine.claim.revision == revision
            });
            if here {
                continue;
            }
            if let Err(reason) = self.has_room(&run.resources) {
                self.decline(replica, revision, &reason);
                continue;
            }
            let highest = self.claims_of(&replica).map(|(_, record)| record.claim).max().unwrap_or(0);
            let next = highest.saturating_add(1).min(CLAIM_NUMBER_MAX);
            let claim = Claim {
                replica,
                revision,
                revision_number: number,
                number: next,
                run,
                restarts: 0,
                failed_runs: 0,
                fence: None,
            };
            let id = self.next_container();
            self.mine.insert(id, Mine { is_new: true, ..Mine::new(id, claim, self.now) });
            self.changed = true;
            self.dirty = true;
        }
    }

    /// The node is the last judge of its own room.
    fn has_room(&self, asked: &Capacity) -> Result<(), String> {
        let holding: Vec<&Mine> = self.mine.values().filter(|mine| mine.holds()).collect();
        if holding.len() >= CONTAINERS_PER_NODE_MAX {
            return Err(format!("containers: {} run, the limit is {CONTAINERS_PER_NODE_MAX}", holding.len()));
        }
        let taken = holding.iter().fold(Capacity::default(), |sum, mine| sum.plus(mine.resources()));
        let free = self.config.capacity.less(&taken);
        let uncounted = self.has(Sabotage::ExtrasUncounted);
        if free.holds(asked)
            || uncounted && free.holds(&Capacity { extras: free.extras.clone(), ..asked.clone() })
        {
            return Ok(());
        }
        if let Some((name, free, asked)) = free.extras.lacking(&asked.extras) {
            return Err(format!("{free} of {name} are free, {asked} asked"));
        }
        Err(format!(
            "{}m cpu, {} bytes of memory and {} processes are free, {}m, {} and {} asked",
            free.cpu_m, free.memory_b, free.pids, asked.cpu_m, asked.memory_b, asked.pids
        ))
    }

    fn decline(&mut self, replica: ReplicaId, revision: Revision, reason: &str) {
        let capacity_version = self.capacity_version;
        self.notice(
            "declined",
            Some(about(&replica)),
            format!("cannot run replica {}: {reason}", replica.ordinal),
        );
        self.declined.retain(|declined| declined.replica != replica || declined.revision != revision);
        if self.declined.len() >= DECLINED_MAX {
            self.declined.remove(0);
        }
        self.declined.push(Declined { replica, revision, capacity_version, reason: short(reason) });
        self.changed = true;
        self.dirty = true;
    }

    /// Declines a replica that could not be started here, each time for longer: room that comes free
    /// (that of the failed container, first of all) does not make it start. Returns how often in a row now.
    fn decline_for_a_while(&mut self, replica: ReplicaId, revision: Revision, reason: &str) -> u32 {
        let known = self.start_failures.iter().position(|it| it.is_of(&replica, revision));
        let failures = known.map_or(0, |at| self.start_failures.remove(at).failures);
        if self.start_failures.len() >= DECLINED_MAX {
            self.start_failures.remove(0);
        }
        let until = self.now + self.backoff(failures);
        let failures = failures.saturating_add(1);
        self.start_failures.push(StartFailure { replica: replica.clone(), revision, failures, until });
        self.decline(replica, revision, reason);
        failures
    }

    /// Room has come free: what was declined for want of it may be asked again.
    fn capacity_changed(&mut self) {
        if self.has(Sabotage::DeclinedForEver) {
            return;
        }
        let (now, failures) = (self.now, &self.start_failures);
        let count = self.declined.len();
        self.declined.retain(|declined| {
            failures.iter().any(|it| it.until > now && it.is_of(&declined.replica, declined.revision))
        });
        if self.declined.len() == count {
            return;
        }
        self.capacity_version += 1;
        for declined in &mut self.declined {
            declined.capacity_version = self.capacity_version;
        }
    }

    /// Starts that failed are tried again when their time has come, and forgotten some time later.
    fn tick_start_failures(&mut self) {
        let now = self.now;
        let due = self.declined.iter().any(|declined| {
            let of_it = |it: &&StartFailure| it.is_of(&declined.replica, declined.revision);
            self.start_failures.iter().find(of_it).is_some_and(|it| it.until <= now)
        });
        if due {
            self.capacity_changed();
            self.changed = true;
            self.dirty = true;
        }
        let reset = self.config.timings.backoff_reset;
        self.start_failures.retain(|it| now < it.until + reset);
    }

    /// How long to wait after so many failures in a row. Up to a quarter either way, so that replicas
    /// that fail together do not return together.
    fn backoff(&mut self, failures: u32) -> Duration {
        let wait = Duration::from_secs(1 << failures.min(BACKOFF_DOUBLINGS_MAX));
        wait.min(self.config.timings.backoff_max) * self.rng.random_range(75..125) / 100
    }

    fn next_container(&mut self) -> ContainerId {
        self.containers_made += 1;
        let mut hash = Sha256::new();
        hash.update(b"skerry-container-v1\0");
        hash.update(self.config.me.as_bytes());
        hash.update(self.config.generation.to_be_bytes());
        hash.update(self.containers_made.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        ContainerId::from_bytes(id)
    }

    /// Every container known for a replica: this node's own as they are now, the others' as told.
    pub(crate) fn claims_of<'a>(
        &'a self,
        replica: &'a ReplicaId,
    ) -> impl Iterator<Item = (NodeId, Cow<'a, ContainerRecord>)> + 'a {
        let me = self.config.me;
        let own = self.mine.values().filter(move |mine| mine.claim.replica == *replica);
        let others = self.records.containers_of(replica).filter(move |(node, _)| *node != me);
        let others = others.map(|(node, container)| (node, Cow::Borrowed(container)));
        own.map(move |mine| (me, Cow::Owned(mine.record()))).chain(others)
    }

    /// Winners confirm the containers that may go; losers that were confirmed go.
    fn confirm_and_let_go(&mut self) {
        let ids: Vec<ContainerId> = self.mine.keys().copied().collect();
        for id in ids {
            let Some(mine) = self.mine.get(&id) else { continue };
            if matches!(mine.phase, Phase::Stopping | Phase::Removing) {
                continue;
            }
            let (confirms, go) = self.judge(mine);
            let told: BTreeSet<ContainerId> =
                self.claims_of(&mine.claim.replica).map(|(_, record)| record.id).collect();
            let why_else = go.as_ref().map(|_| (self.yields_to(id), self.stops_first_by_plan(mine)));
            let Some(mine) = self.mine.get_mut(&id) else { continue };
            if let Some((yields_to, stops_first)) = why_else {
                mine.yields_to = yields_to;
                mine.stopped_first = stops_first;
            }
            if mine.confirms != confirms {
                mine.confirmed.retain(|id| told.contains(id));
                mine.confirmed.extend(&confirms);
                mine.confirms = confirms;
                self.changed = true;
            }
            if let Some(why) = go {
                self.let_go(id, &why);
            }
        }
    }

    /// Which containers may go on this one's word, and whether it must go itself and why.
    fn judge(&self, mine: &Mine) -> (Vec<ContainerId>, Option<String>) {
        let replica = &mine.claim.replica;
        if self.removed {
            return (Vec::new(), Some("this node was removed from the cluster".to_owned()));
        }
        if self.is_drain_overdue() {
            return (Vec::new(), Some("this node is drained, and the time for moving is over".to_owned()));
        }
        let key = (replica.namespace.clone(), replica.deployment.clone());
        if self.invalid.contains(&key) {
            let now = self.documents.get(&key.0, &key.1).map(|view| view.incarnation);
            if now.is_some_and(|incarnation| incarnation != replica.incarnation) {
                return (Vec::new(), Some("its deployment was deleted and made again".to_owned()));
            }
            // What runs is kept, whatever it is: one copy of it.
            return self.judge_copies(mine, None);
        }
        let Some(desired) = self.desired.get(&key) else {
            let why = "its deployment was deleted".to_owned();
            return (Vec::new(), (!self.has(Sabotage::DeletionIgnored)).then_some(why));
        };
        if desired.deployment.incarnation != replica.incarnation && !self.has(Sabotage::EarlierCreationKept) {
            return (Vec::new(), Some("its deployment was deleted and made again".to_owned()));
        }
        if let Some(other) = self.yields_to(mine.id) {
            let why = format!(
                "makes room for {}/{}.{}, which has a higher priority",
                other.namespace, other.deployment, other.ordinal
            );
            return (Vec::new(), Some(why));
        }
        if let Some(why) = self.is_surplus(replica.ordinal, desired)
            && !self.has(Sabotage::ScaleInIgnored)
        {
            return (Vec::new(), Some(why.to_owned()));
        }
        if let Some(why) = self.job_is_over(mine, desired) {
            return (Vec::new(), Some(why));
        }
        if self.stops_first(mine, desired) {
            return (Vec::new(), Some("stopped first: its next revision is started then".to_owned()));
        }
        self.judge_copies(mine, Some(desired))
    }

    /// The same among the copies of one replica. Where it is not known what its deployment wants, each
    /// copy fits.
    fn judge_copies(&self, mine: &Mine, desired: Option<&Desired>) -> (Vec<ContainerId>, Option<String>) {
        if self.has(Sabotage::NoDuplicateResolution) {
            return (Vec::new(), None);
        }
        if let Some(why) = desired.and_then(|desired| is_left_over(mine, desired)) {
            return (Vec::new(), Some(why));
        }
        if mine.is_exclusive() {
            return (Vec::new(), self.judge_exclusive(mine, desired));
        }
        let replica = &mine.claim.replica;
        let me = self.config.me;
        let rank_of = |node: NodeId, record: &ContainerRecord| {
            let mut rank = match desired {
                Some(desired) => self.rank_of(node, record, desired),
                None => planner::rank(node, record, true),
            };
            if node != me && self.has(Sabotage::OwnCopyWins) {
                rank.claim = 0;
            }
            if node != me && self.has(Sabotage::OtherCopyWins) {
                rank.claim = u64::MAX;
            }
            rank
        };
        let own = rank_of(me, &mine.record());
        let mut confirms = Vec::new();
        let mut go = None;
        for (node, record) in self.claims_of(replica) {
            if record.id == mine.id {
                continue;
            }
            if self.parted.contains(&node) {
                continue;
            }
            let rank = rank_of(node, &record);
            if rank < own {
                if mine.is_healthy() && planner::holds_capacity(record.state) {
                    confirms.push(record.id);
                }
                continue;
            }
            // The other one stays, once it says itself that it is well and saw this one.
            let other_is_well = record.state == ContainerState::Running
                && record.healthy == Some(true)
                && self.may_be_followed_by(mine, &record, desired)
                && (node == me
                    || (self.has_word_of(&node)
                        && (record.confirms.contains(&mine.id) || self.has(Sabotage::GoesUnconfirmed))
                        && (!self.may_have_confirmed(mine) || self.stands_with(node, replica))));
            if (other_is_well && self.hears_old_until.is_none()) || self.has(Sabotage::GoesBeforeWell) {
                let revision =
                    if record.revision == mine.claim.revision { "a duplicate" } else { "replaced" };
                go = Some(format!("{revision}: {} on {} stays", record.id, self.name_of(&node)));
            } else if desired.is_some_and(|desired| self.makes_obsolete(mine, desired, node, &record)) {
                go = Some(format!("no more to do: {} on {} has ended", record.id, self.name_of(&node)));
            }
        }
        if go.is_none() && desired.is_some_and(|desired| self.should_withdraw(mine, desired, own)) {
            go = Some("withdrawn: another copy is well and this one is not".to_owned());
        }
        confirms.sort_unstable();
        (confirms, go)
    }

    /// Whether somebody may hold a word of this node that another copy may stop, since this one stays. Whose does not
    /// matter: of three copies the first may go for the second, the second for the third, and that one for the first.
    fn may_have_confirmed(&self, mine: &Mine) -> bool {
        let earlier = !mine.is_new && self.earlier_words_until.is_some();
        earlier || self.claims_of(&mine.claim.replica).any(|(_, other)| mine.confirmed.contains(&other.id))
    }

    /// Whether another node said what it says knowing of the same changes to the deployment. Where each of two
    /// copies was told that the other stays (an update was undone on one side just now), it is the word that
    /// was given under the same documents that counts: else each would go on the other's, or all of a ring of three.
    pub(crate) fn stands_with(&self, node: NodeId, replica: &ReplicaId) -> bool {
        let doc = DocId::Namespace(replica.namespace.clone());
        let said = self.records.get(&node).and_then(|record| record.heads.get(&doc));
        said.is_some_and(|heads| *heads == self.some_heads(&doc))
    }

    /// A winner that fails again and again makes way for a copy that is well.
    fn should_withdraw(&self, mine: &Mine, desired: &Desired, own: Rank) -> bool {
        if !matches!(mine.phase, Phase::BackOff { .. } | Phase::Waiting) || mine.failures == 0 {
            return false;
        }
        self.claims_of(&mine.claim.replica).any(|(node, record)| {
            let rank = self.rank_of(node, &record, desired);
            record.id != mine.id
                && rank < own
                && rank.fits == own.fits
                && record.state == ContainerState::Running
                && record.healthy == Some(true)
                && self.has_word_of(&node)
        })
    }

    /// Stops a container, or removes it where nothing of it runs.
    pub(crate) fn let_go(&mut self, id: ContainerId, why: &str) {
        let Some(mine) = self.mine.get_mut(&id) else { return };
        let about = about(&mine.claim.replica);
        let ordinal = mine.claim.replica.ordinal;
        let sabotage = self.config.sabotage;
        let stops = mine.may_run() && !sabotage.has(Sabotage::RemovedRunning);
        if stops {
            let missed = mine.phase == Phase::Starting && sabotage.has(Sabotage::StopMissesStarts);
            mine.phase = Phase::Stopping;
            if !missed {
                self.out.push(Effect::Stop(id));
            }
        } else {
            mine.phase = Phase::Removing;
            self.out.push(Effect::Remove(id));
        }
        mine.healthy = None;
        mine.ready = false;
        mine.proven = false;
        mine.confirms.clear();
        mine.reason = Some(why.to_owned());
        self.notice("container-stopping", Some(about), format!("replica {ordinal}, {id}: {why}"));
        self.changed = true;
        self.dirty = true;
    }

    /// One next step for every container that can take one.
    fn advance(&mut self) {
        let now = self.now;
        let ids: Vec<ContainerId> = self.mine.keys().copied().collect();
        for id in ids {
            let Some(mine) = self.mine.get(&id) else { continue };
            let due = match mine.phase {
                Phase::Waiting => true,
                Phase::BackOff { until } => until <= now,
                Phase::Starting
                | Phase::Running { .. }
                | Phase::Stopping
                | Phase::Done { .. }
                | Phase::Removing => false,
            };
            if due {
                self.start(id);
            }
        }
    }

    fn start(&mut self, id: ContainerId) {
        if self.has(Sabotage::StartWaitsForCompany)
            && self.linked().next().is_none()
            && !self.links.is_empty()
        {
            return;
        }
        let Some(mine) = self.mine.get(&id) else { return };
        let (image, reference) = (mine.claim.run.image, mine.claim.run.reference.clone());
        if !self.images.contains_key(&image) {
            let reason = self.fetch(image, &reference);
            let Some(mine) = self.mine.get_mut(&id) else { return };
            let waiting = mine.phase == Phase::Waiting && mine.reason.as_deref() == Some(&reason);
            if !waiting {
                mine.phase = Phase::Waiting;
                mine.reason = Some(reason);
                self.changed = true;
            }
            return;
        }
        if let Some(why) = self.must_wait_now(id) {
            self.let_go(id, &why);
            return;
        }
        if !self.may_be_started(id) {
            return;
        }
        let until = self.lease_until(id);
        let Some(mine) = self.mine.get_mut(&id) else { return };
        mine.phase = Phase::Starting;
        mine.reason = None;
        self.changed = true;
        self.out.push(Effect::Start { container: id, claim: Box::new(mine.claim.clone()), until });
    }

    /// Why a container that has never run is given up: while it waited for its image or its lease, the machine came
    /// to be short of something, or its deployment to wait for another. The plan says where it goes, and when.
    fn must_wait_now(&self, id: ContainerId) -> Option<String> {
        let mine = self.mine.get(&id)?;
        if !mine.is_new || mine.phase != Phase::Waiting || mine.claim.restarts > 0 {
            return None;
        }
        if let Some(reason) = self.press.reason().filter(|_| !self.has(Sabotage::PressureIgnored)) {
            return Some(format!("it has not run yet, and this node takes nothing new: {reason}"));
        }
        let replica = &mine.claim.replica;
        let waits =
            self.planner.last().waits.get(&(replica.namespace.clone(), replica.deployment.clone()))?;
        let replaces = self
            .claims_of(replica)
            .any(|(_, other)| other.revision != mine.claim.revision && planner::is_claim(other.state));
        let holds = if replaces { waits.holds_updates() } else { waits.holds_starts() };
        let unmet = waits.unmet.first().filter(|_| holds)?;
        Some(format!("it has not run yet, and waits for {unmet}"))
    }

    /// Sees to it that an image comes, and says how that goes.
    fn fetch(&mut self, digest: Digest, reference: &str) -> String {
        match self.fetching.get(&digest) {
            Some(Fetching::Asked) => return format!("image {reference} is on its way"),
            Some(Fetching::Failed { until, reason }) if *until > self.now => {
                return format!("image {reference} could not be had: {reason}; trying again");
            }
            Some(Fetching::Failed { .. }) | None => {}
        }
        let mut from: Vec<NodeId> = self
            .records
            .iter()
            .filter(|record| self.alive.contains(&record.node))
            .filter(|record| record.images.iter().any(|image| image.digest == digest))
            .map(|record| record.node)
            .collect();
        if from.is_empty() {
            return format!("no node in reach has image {reference}");
        }
        // Spread the load: each node begins with another holder.
        let first = self.rng.random_range(0..from.len());
        from.rotate_left(first);
        let names: Vec<String> = from.iter().map(|node| self.name_of(node)).collect();
        self.fetching.insert(digest, Fetching::Asked);
        self.notice(
            "image-fetching",
            None,
            format!("image {reference} is fetched from {}", names.join(", ")),
        );
        self.out.push(Effect::Fetch { digest, reference: reference.to_owned(), from });
        format!("image {reference} is on its way")
    }

    pub(crate) fn on_image_ready(&mut self, digest: Digest) {
        self.fetching.remove(&digest);
        self.dirty = true;
    }

    pub(crate) fn on_image_failed(&mut self, digest: Digest, reason: String) {
        let until = self.now + self.config.timings.refetch;
        self.notice("image-failed", None, format!("image {digest} could not be had: {reason}"));
        self.fetching.insert(digest, Fetching::Failed { until, reason });
        self.dirty = true;
    }

    pub(crate) fn on_images(&mut self, images: Vec<ImageRecord>) {
        self.images = images.into_iter().map(|image| (image.digest, image)).collect();
        self.changed = true;
        self.dirty = true;
    }

    pub(crate) fn on_started(&mut self, id: ContainerId, pid: u32) {
        let (now, wall_ms) = (self.now, self.wall_ms);
        let Some(mine) = self.mine.get_mut(&id) else { return };
        mine.pid = Some(pid);
        mine.started_ms = Some(wall_ms);
        // It was asked to stop while it started: the stop reaches it all the same.
        if mine.phase == Phase::Starting {
            mine.phase = Phase::Running { since: now };
        }
        let about = about(&mine.claim.replica);
        let ordinal = mine.claim.replica.ordinal;
        let (replica, revision) = (&mine.claim.replica, mine.claim.revision);
        self.start_failures.retain(|it| !it.is_of(replica, revision));
        self.notice(
            "container-started",
            Some(about),
            format!("replica {ordinal}, {id}: runs as process {pid}"),
        );
        self.changed = true;
        self.dirty = true;
    }

    pub(crate) fn on_start_failed(&mut self, id: ContainerId, here_only: bool, reason: String) {
        let Some(mine) = self.mine.get(&id) else { return };
        let (replica, revision) = (mine.claim.replica.clone(), mine.claim.revision);
        let stopping = mine.phase == Phase::Stopping;
        let mine_of_job = mine.claim.run.retries.is_some();
        self.notice(
            "container-failed",
            Some(about(&replica)),
            format!("replica {}, {id}: could not be started: {reason}", replica.ordinal),
        );
        if stopping || here_only {
            if here_only && !stopping {
                let failures = self.decline_for_a_while(replica, revision, &reason);
                // A template that no node can start comes back here again and again, as a new container.
                if let Some(mine) = self.mine.get_mut(&id) {
                    mine.failures = (mine.failures + 1).max(failures);
                    mine.reason = Some(reason);
                }
                self.look_for_failure(id);
            }
            let Some(mine) = self.mine.get_mut(&id) else { return };
            mine.phase = Phase::Removing;
            self.out.push(Effect::Remove(id));
            self.changed = true;
            self.dirty = true;
            return;
        }
        // A job that cannot be started has failed like one that ended badly.
        let is_last = mine_of_job && !self.mine.get(&id).is_some_and(Mine::may_be_tried_again);
        self.fail(id, reason, is_last.then_some(false), false);
    }

    pub(crate) fn on_exited(&mut self, id: ContainerId, exit: &Exit) {
        let unnoticed = self.has(Sabotage::EndUnnoticed);
        if unnoticed && self.mine.get(&id).is_some_and(|mine| matches!(mine.phase, Phase::Running { .. })) {
            return;
        }
        let Some(mine) = self.mine.get_mut(&id) else { return };
        mine.pid = None;
        let reason = describe(exit);
        let replica = mine.claim.replica.clone();
        if mine.phase == Phase::Stopping {
            mine.phase = Phase::Removing;
            self.out.push(Effect::Remove(id));
            self.notice(
                "container-stopped",
                Some(about(&replica)),
                format!("replica {}, {id}: {reason}", replica.ordinal),
            );
            self.changed = true;
            self.dirty = true;
            return;
        }
        let lost = exit.lost.is_some();
        let end = mine.ends_with(exit).filter(|_| !self.config.sabotage.has(Sabotage::PolicyIgnored));
        self.notice(
            "container-exited",
            Some(about(&replica)),
            format!("replica {}, {id}: {reason}", replica.ordinal),
        );
        self.fail(id, reason, end, lost);
    }

    /// It ended against its will (or for good, where `end` says so): back-off, or done. `lost` with its machine.
    fn fail(&mut self, id: ContainerId, reason: String, end: Option<bool>, lost: bool) {
        let reset = self.config.timings.backoff_reset;
        let uncounted = self.has(Sabotage::RetriesUncounted);
        let Some(mine) = self.mine.get_mut(&id) else { return };
        let ran = match mine.phase {
            Phase::Running { since } => self.now.since(since),
            Phase::Waiting
            | Phase::Starting
            | Phase::BackOff { .. }
            | Phase::Stopping
            | Phase::Done { .. }
            | Phase::Removing => Duration::ZERO,
        };
        if ran >= reset {
            mine.failures = 0;
        }
        mine.healthy = Some(false);
        mine.ready = false;
        mine.proven = false;
        mine.confirms.clear();
        mine.pid = None;
        mine.reason = Some(reason);
        if let Some(well) = end {
            mine.phase = Phase::Done { well };
            let ended = mine.clone();
            self.note_end(&ended);
            self.capacity_changed();
        } else {
            let failures = mine.failures;
            mine.failures += 1;
            mine.count_restart(lost || uncounted);
            let mut until = self.now + self.backoff(failures);
            if self.has(Sabotage::NoSecondStart) {
                until = until + Duration::from_secs(100_000_000);
            }
            if let Some(mine) = self.mine.get_mut(&id) {
                mine.phase = Phase::BackOff { until };
            }
            self.look_for_failure(id);
        }
        self.changed = true;
        self.dirty = true;
    }

    pub(crate) fn on_removed(&mut self, id: ContainerId) {
        if self.mine.remove(&id).is_some() {
            self.capacity_changed();
            self.changed = true;
            self.dirty = true;
        }
    }

    /// Health by having run for a while, back-offs that are over, nodes whose grace is over.
    pub(crate) fn tick_containers(&mut self) {
        let (now, healthy) = (self.now, self.config.timings.healthy);
        for mine in self.mine.values_mut() {
            match mine.phase {
                Phase::Running { since } if mine.healthy != Some(true) && now.since(since) >= healthy => {
                    mine.healthy = Some(true);
                    self.changed = true;
                    self.dirty = true;
                }
                Phase::BackOff { until } if until <= now => self.dirty = true,
                Phase::Waiting
                | Phase::Starting
                | Phase::Running { .. }
                | Phase::BackOff { .. }
                | Phase::Stopping
                | Phase::Done { .. }
                | Phase::Removing => {}
            }
        }
        self.tick_rollouts();
        let refetch =
            self.fetching.values().any(|it| matches!(it, Fetching::Failed { until, .. } if *until <= now));
        if refetch {
            self.fetching.retain(|_, it| !matches!(it, Fetching::Failed { until, .. } if *until <= now));
            self.dirty = true;
        }
        if (self.stirred && self.next_look() <= now) || self.stirs_at.is_some_and(|(at, _)| at <= now) {
            self.look_who_counts();
        }
        self.tick_start_failures();
        if self.earlier_words_until.is_some_and(|until| until <= now) {
            self.earlier_words_until = None;
            self.dirty = true;
        }
        self.dirty |= self.is_a_job_overdue();
        self.dirty |= self.is_done_waiting();
        self.dirty |= self.is_drain_overdue() && self.mine.values().any(Mine::may_run);
        if !self.settled {
            self.settle_if_level();
        }
    }

    pub(crate) fn next_container_wake(&self) -> Option<(Time, &'static str)> {
        let healthy = self.config.timings.healthy;
        let steps = self.mine.values().filter_map(|mine| match mine.phase {
            Phase::Running { since } if mine.healthy != Some(true) => {
                Some((since + healthy, "a container turns healthy"))
            }
            // One that is over waits for the plan, which has a time of its own.
            Phase::BackOff { until } => (until > self.now).then_some((until, "a back-off ends")),
            Phase::Waiting
            | Phase::Starting
            | Phase::Running { .. }
            | Phase::Stopping
            | Phase::Done { .. }
            | Phase::Removing => None,
        });
        let fetches = self.fetching.values().filter_map(|it| match it {
            Fetching::Failed { until, .. } => Some((*until, "an image is tried again")),
            Fetching::Asked => None,
        });
        let failed = self.start_failures.iter().filter(|it| it.until > self.now);
        let failed = failed.map(|it| (it.until, "a start that failed is tried again"));
        let alone = (!self.settled)
            .then(|| (self.started + self.config.timings.alone, "nobody is in reach: work alone"));
        let look = self.stirred.then(|| (self.next_look(), "it is looked at who counts"));
        let old = self.hears_old_until.map(|at| (at, "what is heard is new again"));
        let earlier =
            self.earlier_words_until.map(|at| (at, "nobody holds a word of this peer's earlier life"));
        let more = self.next_drain_wake().into_iter().chain(self.next_behind_wake());
        let more =
            more.chain(self.next_rollout_wake()).chain(self.next_job_wake().filter(|(at, _)| *at > self.now));
        let waits = self.stirs_at.into_iter().chain(look).chain(alone).chain(old).chain(earlier).chain(more);
        steps.chain(fetches).chain(failed).chain(waits).min()
    }
}

/// The deployment that a replica is of, for people.
pub(crate) fn about(replica: &ReplicaId) -> String {
    let (namespace, name): (&Name, &Name) = (&replica.namespace, &replica.deployment);
    format!("{namespace}/{name}")
}
