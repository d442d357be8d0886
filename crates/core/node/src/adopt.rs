//! Containers that the shell found when the peer began: what becomes of each.
//!
//! Invariants: what runs runs on, unless it was told to stop; what does not is started again at once, as far as the
//! node has room for it.

use std::time::Duration;

use model::{Capacity, Sabotage};

use crate::containers::{Mine, Phase, describe};
use crate::io::{Effect, Found};
use crate::reconcile::about;
use crate::state::Node;

/// For so long the words of an earlier life of this peer may still count somewhere: by then all who are linked
/// have its record of this life.
const EARLIER_WORDS: Duration = Duration::from_secs(10);

impl Node {
    /// Takes over what the shell found: what runs goes on, what does not is started at once.
    pub(crate) fn adopt(&mut self, found: Vec<Found>) {
        for Found { container, claim, state, stopping } in found {
            if self.has(Sabotage::NoAdoption) && state.is_ok() {
                continue;
            }
            let mut mine = Mine::new(container, claim, self.now);
            if stopping && !self.has(Sabotage::StopForgotten) {
                // A life of this peer that has ended decided so, and others may have relied on it.
                mine.reason = Some("was told to stop before this peer was started".to_owned());
                mine.pid = state.as_ref().ok().map(|(pid, _)| *pid);
                mine.phase = if state.is_ok() { Phase::Stopping } else { Phase::Removing };
                if mine.phase == Phase::Removing {
                    self.out.push(Effect::Remove(container));
                }
                self.mine.insert(container, mine);
                continue;
            }
            match state {
                Ok((pid, started_ms)) => {
                    mine.pid = Some(pid);
                    mine.started_ms = Some(started_ms);
                    let ran = Duration::from_millis(
                        self.wall_ms.saturating_sub(started_ms).try_into().unwrap_or(0),
                    );
                    mine.healthy = (ran >= self.config.timings.healthy).then_some(true);
                    mine.ready = mine.healthy == Some(true);
                    mine.was_ready = mine.ready;
                    mine.phase = Phase::Running { since: self.now };
                    if self.has(Sabotage::AdoptedAsWaiting) {
                        mine.phase = Phase::Waiting;
                    }
                    let about = about(&mine.claim.replica);
                    self.notice(
                        "container-adopted",
                        Some(about),
                        format!("{container} runs on as process {pid}"),
                    );
                }
                Err(exit) => {
                    mine.reason = Some(describe(&exit));
                    let forgotten = self.has(Sabotage::FinishedForgotten) && mine.claim.run.retries.is_some();
                    mine.phase = if let Some(well) = mine.ends_with(&exit).filter(|_| !forgotten) {
                        Phase::Done { well }
                    } else {
                        // Its last share, at once: a node that boots cut off waits for nobody.
                        mine.count_restart(exit.lost.is_some());
                        Phase::Waiting
                    };
                }
            }
            self.note_end(&mine);
            self.mine.insert(container, mine);
        }
        if !self.mine.is_empty() {
            self.earlier_words_until = Some(self.now + EARLIER_WORDS);
        }
        self.let_go_what_no_longer_fits();
    }

    /// The node may offer less than before: of what it ran and does not run now, it starts what fits
    /// beside what does, and leaves the rest to others.
    fn let_go_what_no_longer_fits(&mut self) {
        let waits = |mine: &&Mine| mine.phase == Phase::Waiting;
        let running = self.mine.values().filter(|mine| mine.holds() && !waits(mine));
        let mut taken = running.fold(Capacity::default(), |sum, mine| sum.plus(mine.resources()));
        let mut surplus = Vec::new();
        for mine in self.mine.values().filter(waits) {
            let with_it = taken.plus(mine.resources());
            if self.config.capacity.holds(&with_it) {
                taken = with_it;
            } else {
                surplus.push(mine.id);
            }
        }
        for id in surplus {
            self.let_go(id, "this node offers less than before: there is no room for it");
        }
    }
}
