//! The steps are taken, the world becomes calm; what fails is made smaller.

use super::Failure;
use super::check::{QUIET, Took, ends};
use super::draw::{Step, Story};
use super::take::take;
use crate::world::Cluster;

impl Story {
    /// Runs the story; how long the cluster took to come to rest, or what did not hold.
    ///
    /// # Errors
    /// What did not hold, with the steps and all that happened.
    pub fn run(&self) -> Result<Took, Box<Failure>> {
        let mut cluster = Cluster::switched_off(self.seed, self.nodes, self.settings);
        for (host, skew_ms) in self.skews_ms.iter().enumerate().filter(|(_, skew_ms)| **skew_ms != 0) {
            cluster.skew_clock(host, *skew_ms);
        }
        for host in 0..self.nodes {
            cluster.start(host);
        }
        if let Some((host, forges)) = self.hostile {
            cluster.take_over(host, forges);
        }
        let mut last = None;
        for Step { after, action } in &self.steps {
            cluster.run_for(*after);
            take(&mut cluster, action, &mut last);
        }
        let ended = ends(&mut cluster, &self.ending, QUIET);
        let looked = cluster.check.looked.clone();
        let ran = (cluster.now().since(model::Time::ZERO), cluster.len());
        ended.map(|took| Took { ran, looked, ..took }).map_err(|what| {
            let steps = self.steps.iter().map(|step| format!("{step:?}")).collect();
            let trace = cluster.trace().to_vec();
            Box::new(Failure { seed: self.seed, what, steps, trace })
        })
    }

    /// Leaves out what a failure of this kind does not need: halves first, single steps last.
    #[must_use]
    pub fn shrink(&self, kind: &str) -> Self {
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
                if shorter.run().is_err_and(|failure| failure.kind() == kind) {
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
