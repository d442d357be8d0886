//! How often is probed, and what follows from that.

use std::num::{NonZeroU8, NonZeroUsize};
use std::ops::Range;
use std::time::Duration;

/// Below this, the round trips of an ordinary network look like silence.
pub const PROBE_PERIOD_MIN: Duration = Duration::from_millis(20);

/// Above this a dead node is found after minutes: the unit was mistaken.
pub const PROBE_PERIOD_MAX: Duration = Duration::from_secs(60);

/// Members asked to probe one that does not answer. Three of them all fail to reach a living node
/// one time in 25 where one packet in ten is lost; more cost packets just when the network is bad.
const INDIRECT_PROBES: usize = 3;

/// What foca may put into one datagram in its own form, in bytes: 39 members, which in ours stay under
/// what QUIC carries before it has found the path's MTU.
pub(crate) const FOCA_PACKET_BYTES_MAX: usize = 2_000;

/// Milliseconds between two push-pulls: without them a large cluster never finishes joining, and more
/// often they would be most of what an idle node sends.
pub(crate) const PUSH_PULL_MILLIS: Range<u64> = 10_000..15_000;

/// Why settings were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The probe period is out of range.
    #[error("a probe period of {0:?} is out of range: use {PROBE_PERIOD_MIN:?} to {PROBE_PERIOD_MAX:?}")]
    ProbePeriod(Duration),
}

/// How one node looks for dead members. Everything follows from the probe period, so that no two
/// settings contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    probe_period: Duration,
}

impl Settings {
    /// For nodes in one place: a silent node is down after some 2 s, for about seven small packets a
    /// second and node.
    pub const fn lan() -> Self {
        Self { probe_period: Duration::from_millis(300) }
    }

    /// For links with round trips of some hundred milliseconds: a silent node is down after some 7 s.
    pub const fn wan() -> Self {
        Self { probe_period: Duration::from_secs(1) }
    }

    /// One random member is probed in each `period`. Shorter finds a dead node sooner and costs
    /// packets; half of it must be enough for a round trip.
    pub fn with_probe_period(period: Duration) -> Result<Self, SettingsError> {
        if (PROBE_PERIOD_MIN..=PROBE_PERIOD_MAX).contains(&period) {
            Ok(Self { probe_period: period })
        } else {
            Err(SettingsError::ProbePeriod(period))
        }
    }

    /// How often one random member is probed.
    pub const fn probe_period(&self) -> Duration {
        self.probe_period
    }

    /// How long a suspected member has to say that it lives: three and a half probe periods. It is
    /// asked some ten times in that time, so one packet in ten may be lost and no living member is
    /// called dead (measured: none in 1,000 node-hours).
    pub fn suspect_to_down(&self) -> Duration {
        self.probe_period * 7 / 2
    }

    /// How often news are passed on while there are any, and a suspected member is asked again.
    pub(crate) fn gossip_period(&self) -> Duration {
        self.probe_period / 3
    }

    /// The shortest time between two rounds of gossip, however urgent the news.
    pub(crate) fn gossip_pause(&self) -> Duration {
        self.probe_period / 15
    }

    /// A node takes another life no more often than this, and tells a member that it is down no more often: each
    /// new life has others speak, and what they say to the last one must not ask for the next.
    pub(crate) fn renewal_pause(&self) -> Duration {
        self.gossip_period()
    }

    /// The first wait before an announcement that was not answered is made again; doubled each time.
    pub(crate) fn announce_first(&self) -> Duration {
        self.probe_period / 3
    }

    /// The longest wait between announcements to a member that is not heard. It grows with the
    /// roster, so that half of a large cluster cut off is not flooded by the other half.
    pub(crate) fn announce_max(&self, members: usize) -> Duration {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.probe_period.saturating_mul(16).max(self.probe_period.saturating_mul(members) / 3)
    }

    /// foca's configuration for a roster of `members`.
    pub(crate) fn foca(&self, members: usize) -> foca::Config {
        // Each news is passed on some two times the logarithm of the cluster's size.
        let transmissions = 2 * (members.max(2).ilog2() + 1);
        let at_least_one = |count| NonZeroUsize::new(count).expect("the constant is not zero");
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_period / 2,
            num_indirect_probes: at_least_one(INDIRECT_PROBES),
            max_transmissions: u8::try_from(transmissions.max(5))
                .ok()
                .and_then(NonZeroU8::new)
                .expect("twice a logarithm of a count fits a byte"),
            suspect_to_down_after: self.suspect_to_down(),
            // A roster is bounded, and a member that is down may come back after months.
            remove_down_after: None,
            max_packet_size: at_least_one(FOCA_PACKET_BYTES_MAX),
            // Ours does, less often and with the life that is down: see `trial`.
            notify_down_members: false,
            // Ours know the roster, the links and when there is news: an idle node then sleeps.
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: None,
        }
    }
}
