//! Removed nodes are told so, by whom and when; and this node, when it is told, stops for good.
//!
//! A node that is removed while it is linked hears of it on that link, which is closed a second later.
//! One that was out of reach and calls again is refused at the gate. It is given the signed events that
//! its removal follows from, which it judges like all others, and nothing that it sends is read.
//!
//! Invariants: a farewell holds nothing newer than the removal; this node acts on its own removal only
//! once that is on its disk; it takes no event and makes no call after that.
//! Absent on purpose: a second part. Where the past of a removal is larger than a farewell, its newest
//! part is sent; a node that lacks what is older cannot judge it, changes nothing and calls again.

use std::sync::Arc;
use std::time::Duration;

use document::event::{self, Author, Kind};
use document::{Inserted, Outcome as Verdict};
use model::{DocId, EventId, NodeId, Sabotage, Time};

use crate::io::Effect;
use crate::state::Node;

/// How long a removed node is still told so before its link is closed. Nothing that it says is heard.
const LINK_CLOSES: Duration = Duration::from_secs(1);

/// Bytes of events in one farewell: half a frame. The whole log of a cluster of 500 nodes fits, and of
/// a larger one what changed since the node was last there.
const FAREWELL_BYTES_MAX: usize = 512 * 1024;

/// The same node gets no second farewell sooner: one that cannot take it calls twice a second.
const FAREWELL_AGAIN: Duration = Duration::from_secs(5);

/// How a node was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The event that did; the lowest of several.
    pub event: EventId,
    /// Who signed it: their name, or their short key where the roster has none.
    pub by: String,
    /// When, in milliseconds of Unix time by their clock; shown, never compared.
    pub time_ms: i64,
}

impl Removal {
    /// Who and when, for people: `by alice at 2026-11-25T10:00:00Z`.
    pub fn told(&self) -> String {
        match jiff::Timestamp::from_millisecond(self.time_ms) {
            Ok(time) => format!("by {} at {time:.0}", self.by),
            Err(_) => format!("by {} at {} ms of Unix time", self.by, self.time_ms),
        }
    }
}

impl Node {
    /// How a node was removed, if it was.
    pub fn removal_of(&self, node: &NodeId) -> Option<Removal> {
        let event = *self.documents.roster().removed.get(node)?;
        let body = self.documents.event(event)?.body();
        let by = self.documents.name_of(&body.author).map_or_else(
            || match body.author {
                Author::User(user) => user.short(),
                Author::Node(node) => node.short(),
            },
            ToOwned::to_owned,
        );
        Some(Removal { event, by, time_ms: body.time_ms })
    }

    /// Whether this node was removed by an event that is on its disk: for ever.
    pub(crate) fn is_out(&self) -> bool {
        self.removed && self.documents.roster().removed.contains_key(&self.config.me)
    }

    /// Sees whether this node is a member still. A removal counts once it is on disk: a node that stops
    /// its work and forgets why would start it again.
    pub(crate) fn removal_changed(&mut self) {
        let roster = self.documents.roster();
        // Before the genesis is here there is no roster to be missing from.
        let missing = !roster.nodes.is_empty() && !roster.nodes.contains_key(&self.config.me);
        let at_journal =
            |event: &EventId| self.at_journal.iter().any(|(_, batch)| batch.iter().any(|id| id == event));
        let on_disk = roster.removed.get(&self.config.me).is_none_or(|event| !at_journal(event));
        let removed = missing && on_disk && !self.has(Sabotage::RemovedRunsOn);
        if removed == self.removed {
            return;
        }
        self.removed = removed;
        self.changed = true;
        self.dirty = true;
        if removed {
            let told = self.removal_of(&self.config.me).map(|removal| format!(" {}", removal.told()));
            let told = told.unwrap_or_default();
            let message = format!("this node was removed from the cluster{told}; it stops its containers");
            self.notice("removed", None, message);
        }
    }

    /// A linked node was removed: it is told why before the door closes, so that it stops its containers.
    pub(crate) fn begin_farewell(&mut self, node: NodeId) {
        self.farewells.insert(node, self.now + LINK_CLOSES);
    }

    /// Closes the door behind removed nodes that have been told.
    pub(crate) fn end_farewells(&mut self) {
        let now = self.now;
        self.told.retain(|_, at| now.since(*at) < FAREWELL_AGAIN);
        let ended: Vec<NodeId> =
            self.farewells.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        if ended.is_empty() {
            return;
        }
        for node in ended {
            self.farewells.remove(&node);
            self.out.push(Effect::Disconnect(node));
        }
        self.tell_roster();
    }

    pub(crate) fn next_farewell_wake(&self) -> Option<(Time, &'static str)> {
        self.farewells.values().min().map(|at| (*at, "a removed node has been told"))
    }

    /// A removed node calls: it is given what its removal follows from.
    pub(crate) fn on_former_member(&mut self, node: NodeId) {
        let mut events = Vec::new();
        if let Some(removal) = self.documents.roster().removed.get(&node).copied()
            && !self.told.contains_key(&node)
            && !self.has(Sabotage::NoFarewell)
        {
            let cut;
            (events, cut) = self.documents.with_past(removal, FAREWELL_BYTES_MAX);
            if cut {
                tracing::warn!(
                    ?node,
                    "the past of a removal is larger than a farewell: its newest part is sent"
                );
            }
            self.told.insert(node, self.now);
        }
        self.after_sync(Effect::Farewell { to: node, events });
    }

    /// A member refused this node and gave its reason. Nothing of it is believed that is not signed, and
    /// nothing is looked at unless it ends with the removal of this node.
    pub(crate) fn on_farewell(&mut self, from: NodeId, events: &[Vec<u8>]) {
        if self.is_out() || !self.links.contains_key(&from) {
            return;
        }
        let removes_me = events.last().and_then(|last| event::decode(last).ok()).is_some_and(
            |last| matches!(last.body.kind, Kind::NodeRemove(removal) if removal.node == self.config.me),
        );
        if !removes_me {
            tracing::debug!(?from, "a farewell that does not remove this node is ignored");
            return;
        }
        let mut fresh: Vec<(EventId, Vec<u8>)> = Vec::new();
        for bytes in events {
            let judged = self.documents.check(bytes).map(|Inserted { doc, outcome, .. }| (doc, outcome));
            match judged {
                Ok((DocId::Cluster, Verdict::Known)) => {}
                Ok((DocId::Cluster, Verdict::Applied { .. })) => {
                    match Arc::make_mut(&mut self.documents).insert(bytes) {
                        Ok(Inserted { id, .. }) => fresh.push((id, bytes.clone())),
                        Err(error) => tracing::error!(%error, "an event that was sound is not taken"),
                    }
                }
                // The removal builds on all that is before it: with one of them missing it cannot hold.
                Ok((doc, outcome)) => {
                    tracing::debug!(?from, %doc, ?outcome, "a farewell does not hold");
                    break;
                }
                Err(error) => {
                    tracing::debug!(?from, error = crate::sync::chain(&error), "a farewell does not hold");
                    break;
                }
            }
        }
        if !fresh.is_empty() {
            self.take_in(fresh, from);
        }
    }
}
