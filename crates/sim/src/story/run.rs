//! The steps are taken, the world becomes calm; what fails is made smaller.

use model::Time;

use super::check::{QUIET, Took, ends};
use super::draw::{Step, Story};
use super::take::take;
use super::{Failure, Told};
use crate::world::Cluster;

impl Story {
    /// Runs the story; how long the cluster took to come to rest, or what did not hold.
    ///
    /// # Errors
    /// What did not hold, with the steps and all that happened.
    pub fn run(&self) -> Result<Took, Box<Failure>> {
        let Told { ended, trace, .. } = self.tell();
        ended.map_err(|what| Box::new(Failure { seed: self.seed, what, steps: self.steps_in_words(), trace }))
    }

    /// Runs the story, and tells all of it however it ends.
    pub fn tell(&self) -> Told {
        let mut cluster = Cluster::switched_off(self.seed, self.nodes, self.settings.clone());
        for (host, skew_ms) in self.skews_ms.iter().enumerate().filter(|(_, skew_ms)| **skew_ms != 0) {
            cluster.skew_clock(host, *skew_ms);
        }
        for (host, offer) in self.offers.iter().enumerate() {
            cluster.set_terms(host, offer.terms, offer.extras.clone());
        }
        for host in 0..self.nodes {
            cluster.start(host);
        }
        if let Some(host) = self.rogue {
            cluster.goes_rogue(host);
        }
        let mut last = None;
        for Step { after, action } in &self.steps {
            cluster.run_for(*after);
            take(&mut cluster, action, &mut last);
        }
        let ended = ends(&mut cluster, &self.ending, QUIET);
        let looked = std::mem::take(&mut cluster.check.looked);
        let ended = ended.map(|took| Took { looked, ..took });
        let (lasted, machines) = (cluster.now().since(Time::ZERO), cluster.len());
        Told { ended, trace: std::mem::take(&mut cluster.trace), lasted, machines }
    }

    /// Leaves out what a failure of this kind does not need: halves first, single steps last.
    #[must_use]
    pub fn shrink(&self, kind: &str) -> Self {
        self.shrink_while(|story| story.run().is_err_and(|failure| failure.kind() == kind))
    }

    /// The same for any failure: `fails` tells whether a story still shows it.
    #[must_use]
    pub fn shrink_while(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut story = self.clone();
        let mut size = story.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < story.steps.len() {
                let mut shorter = story.clone();
                let end = (at + size).min(shorter.steps.len());
                // The time stays: only what was done is left out.
                let gone: Vec<Step> = shorter.steps.drain(at..end).collect();
                if let Some(next) = shorter.steps.get_mut(at) {
                    next.after += gone.iter().map(|step| step.after).sum();
                }
                if fails(&shorter) {
                    story = shorter;
                } else {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        story
    }
}
