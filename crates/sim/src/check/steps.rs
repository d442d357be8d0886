//! Checks at each input and each effect.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{ContainerId, EventId, NodeId, RecordVersion, ReplicaId};
use node::{Claim, Effect, Input, Phase, Reader as _};
use wire::Message;

use super::samples::FRESH;
use super::{Booted, Made};
use crate::host::{Container, HostState};
use crate::world::Cluster;

/// For so long after a copy was lost to a fault the word of it may still be about: it can let another
/// one stop. Past the time in which a silent node is found dead, by far.
const EXCUSED_FOR: Duration = Duration::from_secs(30);

impl Cluster {
    /// The world was disturbed: what is asked of a quiet one is asked later.
    pub(crate) fn disturb(&mut self) {
        self.check.disturbed = self.now;
    }

    /// In front of an input that brings records: the versions of those that are held.
    pub(crate) fn held_before(&self, host: usize, input: &Input) -> Vec<(NodeId, RecordVersion)> {
        let brings = matches!(input, Input::Received { message: Message::Records { .. }, .. });
        let node = self.hosts[host].node.as_ref().filter(|_| brings && self.check.thorough);
        node.map(|node| node.records().digest()).unwrap_or_default()
    }

    /// Behind each input: S14, of what a peer says of itself and of what it holds of others.
    pub(crate) fn after_step(&mut self, host: usize, held: &[(NodeId, RecordVersion)]) {
        self.remembers_jobs(host);
        let it = &self.hosts[host];
        if let Some(node) = &it.node {
            // Both are by node.
            let mut records = node.records().iter().peekable();
            let mut back = None;
            for (of, version) in held {
                while records.next_if(|it| it.node < *of).is_some() {}
                let now = records.next_if(|it| it.node == *of).map(|it| it.version);
                back = back.or(now.filter(|now| now < version).map(|now| (*of, *version, now)));
            }
            drop(records);
            if let Some((of, version, now)) = back {
                let of = self.name_of_node(&of);
                self.violation(&format!("S14: n{} holds {now:?} of {of} after {version:?}", host + 1));
            }
        }
        let it = &self.hosts[host];
        let Some(version) =
            it.node.as_ref().and_then(|node| node.records().get(&it.id)).map(|record| record.version)
        else {
            return;
        };
        let last = self.check.versions.get(&host).copied().unwrap_or_default();
        if version == last {
            return;
        }
        if version < last && !self.check.repeats.contains(&host) {
            self.violation(&format!("S14: n{} says {version:?} of itself after {last:?}", host + 1));
        }
        self.check.versions.insert(host, version);
    }

    /// In front of each effect: S2, S3, S5, and nothing is told that is not on disk.
    pub(crate) fn before_effect(&mut self, host: usize, effect: &Effect) {
        match effect {
            Effect::Persist { records, .. } => self.may_be_written(host, records),
            Effect::Send { message, .. } if self.check.thorough => self.may_be_said(host, message),
            Effect::Farewell { events, .. } if self.check.thorough => self.may_be_told(host, events),
            Effect::Start { container, claim, .. } => self.may_start(host, *container, claim),
            Effect::Send { .. }
            | Effect::Farewell { .. }
            | Effect::Datagram { .. }
            | Effect::Connect { .. }
            | Effect::Disconnect(_)
            | Effect::Stop(_)
            | Effect::Remove(_)
            | Effect::Fetch { .. }
            | Effect::Reply { .. }
            | Effect::Notice(_)
            | Effect::ExtendLease { .. }
            | Effect::KeepLease(_)
            | Effect::ForgetLeases(_)
            | Effect::Roster { .. }
            | Effect::WakeAt { .. } => {}
        }
    }

    /// S3 and S16: what is written was signed by somebody, and is written once.
    fn may_be_written(&mut self, host: usize, records: &[Vec<u8>]) {
        for record in records {
            let id = document::event::id_of(record);
            if !self.check.signed.contains(&id) {
                self.violation(&format!("S3: n{} writes {}, which nobody signed", host + 1, id.short()));
            }
            if self.hosts[host].on_disk.contains(&id) {
                self.violation(&format!("S16: n{} writes {} twice", host + 1, id.short()));
            }
        }
        self.check.looks("S3 S16");
    }

    /// S1: nothing that tells of an event leaves before the event is on disk.
    fn may_be_said(&mut self, host: usize, message: &Message) {
        let it = &self.hosts[host];
        let found = match message {
            Message::Events { events, .. } => return self.may_be_told(host, events),
            Message::Stored { ids } => missing(&it.on_disk, ids.iter().copied()),
            Message::Positions { positions, .. } => {
                let told = positions.iter().flat_map(|it| it.heads.iter().chain(&it.samples));
                missing(&it.on_disk, told.copied())
            }
            Message::Records { records } => {
                // What a peer says of itself goes to each other in turn.
                if let [one] = &records[..] {
                    let said = (host, self.now, one.signature);
                    if self.check.said == Some(said) {
                        return;
                    }
                    self.check.said = Some(said);
                }
                let own = records.iter().filter_map(|it| self.reader.record(it).ok());
                let own: Vec<_> = own.filter(|record| record.node == it.id).collect();
                missing(&it.on_disk, own.iter().flat_map(|record| record.heads.values().flatten()).copied())
            }
            Message::Hello { .. }
            | Message::Want { .. }
            | Message::LeaseAsk(_)
            | Message::LeaseAnswer(_)
            | Message::LeaseEnd(_)
            | Message::RecordDigest { .. }
            | Message::Liveness { .. } => return,
        };
        self.tells_of(host, found);
    }

    fn may_be_told(&mut self, host: usize, events: &[Vec<u8>]) {
        let told = events.iter().map(|it| document::event::id_of(it));
        let found = missing(&self.hosts[host].on_disk, told);
        self.tells_of(host, found);
    }

    fn tells_of(&mut self, host: usize, missing: Option<EventId>) {
        self.check.looks("S1 said");
        if let Some(id) = missing {
            self.violation(&format!("S1: n{} tells of {}, which is not on its disk", host + 1, id.short()));
        }
    }

    fn name_of_node(&self, id: &NodeId) -> String {
        self.index.get(id).map_or_else(|| id.short(), |host| format!("n{}", host + 1))
    }

    /// S2: one container id is one container. S5: nothing of what is deleted here is started here. L8: what
    /// ended for good by its policy is not started again.
    fn may_start(&mut self, host: usize, container: ContainerId, claim: &Claim) {
        if self.hosts[host].kernel.get(&container).is_some_and(Container::has_ended_for_good) {
            let name = self.name_of_container(container);
            self.violation(&format!("L8: n{} starts {name} again, which ended for good", host + 1));
        }
        let made = Made { host, replica: claim.replica.clone(), revision: claim.revision };
        let known = self.check.made.entry(container).or_insert_with(|| made.clone());
        if *known != made && !self.check.repeats.contains(&host) {
            let what = format!("S2: container {container} is {known:?} and {made:?}");
            self.violation(&what);
        }
        let Some(node) = &self.hosts[host].node else { return };
        let replica = &claim.replica;
        let key = (replica.namespace.clone(), replica.deployment.clone());
        let synced =
            node.desired().get(&key).is_some_and(|it| it.deployment.incarnation == replica.incarnation);
        let known =
            node.documents().get(&key.0, &key.1).is_some_and(|it| it.incarnation == replica.incarnation);
        self.check.looks("S2 S5");
        if !synced && !known {
            self.violation(&format!("S5: n{} starts {replica:?}, which is deleted", host + 1));
        }
        self.may_start_work(host, container, claim);
    }

    /// S1: an event that was acknowledged on so many disks is on so many. A rogue is one.
    pub(crate) fn acknowledged(&mut self, host: usize, event: EventId, durable_on: u32) {
        let on = self.hosts.iter().filter(|it| it.on_disk.contains(&event)).count();
        let rogues = self.hosts.iter().filter(|it| it.rogue.is_some()).count();
        self.check.looks("S1 acked");
        if !self.hosts[host].on_disk.contains(&event) || on + rogues < durable_on as usize {
            let what = format!(
                "S1: n{} acknowledged {} on {durable_on} disks, and it is on {on}",
                host + 1,
                event.short()
            );
            self.violation(&what);
        }
    }

    /// S8: a copy that is wanted and stopped as one too many is not the last.
    pub(crate) fn may_stop(&mut self, host: usize, container: ContainerId) {
        let Some(entry) = self.hosts[host].kernel.get(&container) else { return };
        let (replica, surplus) = (entry.claim.replica.clone(), entry.surplus);
        let removed = self.hosts[host].node.as_ref().is_some_and(node::Node::is_removed);
        if entry.pid.is_none() {
            return;
        }
        if !surplus || removed {
            return self.excuse(replica);
        }
        // One that has ended for good stands for its replica: there is nothing more to run.
        let stands = |it: &Container| {
            !it.stop_asked && (it.pid.is_some() || it.has_ended_for_good() || it.may_be_given_up())
        };
        let stays = self.hosts.iter().filter(|it| it.state != HostState::PowerOff).any(|it| {
            it.kernel.iter().any(|(id, it)| *id != container && it.claim.replica == replica && stands(it))
        });
        let excused = self.check.excused.get(&replica).is_some_and(|at| self.now.since(*at) < EXCUSED_FOR);
        self.check.looks("S8");
        if !stays && !excused && !self.check.lied_to && !self.check.has_repeats() {
            self.violation(&format!("S8: n{} stops the last copy of {replica:?}", host + 1));
        }
    }

    /// Whether a copy of it was stopped for another reason, or lost, since copies are guarded; or so shortly before
    /// that the word of it may still be about, by S9: whoever lets its own copy go on the word of a machine that
    /// lost power a moment ago cannot know better.
    pub(crate) fn excused_since_guard(&self, replica: &ReplicaId) -> bool {
        let about = FRESH + self.settings.slack();
        self.check.excused.get(replica).is_some_and(|at| *at + about >= self.guarded_at)
    }

    /// A copy went for a reason that is nobody's fault.
    pub(crate) fn excuse(&mut self, replica: ReplicaId) {
        self.check.excused.insert(replica, self.now);
    }

    /// A peer starts: what ran is adopted (L7), what should run again is looked at later (L6).
    pub(crate) fn started(&mut self, host: usize) {
        self.disturb();
        let it = &self.hosts[host];
        let Some(node) = &it.node else { return };
        let (mut lost, mut waits) = (Vec::new(), Vec::new());
        for (id, container) in &it.kernel {
            let phase = node.mine().get(id).map(|mine| &mine.phase);
            match (container.pid, phase) {
                (Some(_), Some(Phase::Running { .. })) | (None, Some(Phase::Done { .. })) => {}
                (_, Some(Phase::Stopping | Phase::Removing)) if container.stop_asked => {}
                // Without a lease it is not to run.
                (None, Some(_)) if !container.claim.run.voters.is_empty() => {}
                (None, Some(_)) => waits.push(*id),
                (_, _) => lost.push(*id),
            }
        }
        // S14: what was on disk is known.
        let forgotten = it.on_disk.iter().find(|id| !node.documents().contains(**id)).copied();
        let life = it.life;
        self.check.work.begins_anew(host);
        for id in lost {
            let name = self.name_of_container(id);
            self.violation(&format!("L7: n{} does not take over {name}", host + 1));
        }
        if let Some(id) = forgotten {
            self.violation(&format!("S14: n{} does not know {}, which is on its disk", host + 1, id.short()));
        }
        if self.check.thorough {
            let at = self.now + self.settings.timings.alone;
            self.check.boots.push(Booted { at, host, life, containers: waits });
        }
        self.check.looks("L7");
    }
}

/// The first of these events that is not on a disk.
fn missing(on_disk: &BTreeSet<EventId>, mut told: impl Iterator<Item = EventId>) -> Option<EventId> {
    told.find(|id| !on_disk.contains(id))
}
