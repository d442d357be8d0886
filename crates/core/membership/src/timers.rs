//! What foca asks for, collected; and its timers, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::{Notification, Timer};
use model::Time;

use crate::packet::Packet;
use crate::peer::Peer;

/// What foca wants of the world after one call.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) sends: Vec<(Peer, Packet)>,
    pub(crate) timers: Vec<(Timer<Peer>, Duration)>,
    /// Whether a member came or went.
    pub(crate) changed: bool,
    /// Whether we were called down and came back in another life.
    pub(crate) renewed: bool,
}

impl foca::Runtime<Peer> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        match notification {
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => {
                self.changed = true;
            }
            Notification::Rejoin(_) => self.renewed = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.sends.push((to, Packet::of_foca(data)));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// Names one timer that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(Time, u64);

/// Timers by time; of those set for one time the first set comes first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeMap<TimerKey, Timer<Peer>>,
    count: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Time, timer: Timer<Peer>) -> TimerKey {
        self.count += 1;
        let key = TimerKey(at, self.count);
        self.by_time.insert(key, timer);
        key
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.by_time.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the first that is due at `now`.
    pub(crate) fn due(&mut self, now: Time) -> Option<Timer<Peer>> {
        if self.next()? > now {
            return None;
        }
        self.by_time.pop_first().map(|(_, timer)| timer)
    }

    pub(crate) fn take(&mut self, key: TimerKey) -> Option<Timer<Peer>> {
        self.by_time.remove(&key)
    }

    /// Forgets the timers about a node.
    pub(crate) fn forget(&mut self, node: &model::NodeId) {
        self.by_time.retain(|_, timer| match timer {
            Timer::ChangeSuspectToDown { member_id, .. } => member_id.node != *node,
            Timer::RemoveDown(peer) => peer.node != *node,
            // foca wants to hear of the end of every probe.
            Timer::SendIndirectProbe { .. }
            | Timer::ProbeRandomMember(_)
            | Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => true,
        });
    }
}
