//! L11: no peer speaks on and on. Messages that beget messages are a storm as fast as the network, and a story
//! with one in it would never end.

use std::time::Duration;

use model::Time;

use crate::world::Cluster;

/// What is counted together.
const WINDOW: Duration = Duration::from_millis(100);

/// Messages of one peer in a window: with a burst for each link, ten times what any cluster of the tests sends.
const SENT_MAX: u32 = 1_000;

/// More of them for each other machine.
const SENT_MAX_EACH: u32 = 100;

/// What the peer of one machine has sent in a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    since: Time,
    count: u32,
}

impl Cluster {
    /// Counts a message; whether it is one too many, which then is not sent.
    pub(crate) fn is_a_storm(&mut self, host: usize) -> bool {
        let machines = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let max = SENT_MAX.saturating_add(SENT_MAX_EACH.saturating_mul(machines));
        let now = self.now;
        if self.check.sent.len() <= host {
            self.check.sent.resize(host + 1, Sent::default());
        }
        let sent = &mut self.check.sent[host];
        if now.since(sent.since) >= WINDOW {
            *sent = Sent { since: now, count: 0 };
        }
        sent.count += 1;
        if sent.count == max && self.hosts[host].rogue.is_none() {
            self.violation(&format!("L11: n{} sends {max} messages in {WINDOW:?} and goes on", host + 1));
        }
        self.check.sent[host].count >= max
    }
}
