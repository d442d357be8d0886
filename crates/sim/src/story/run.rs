//! The steps are taken, and the world becomes calm.

use document::Documents;
use model::Time;

use super::check::{Took, calm_down};
use super::draw::{Action, Cuts, Step, Story};
use super::{Failure, Told};
use crate::author::Author;
use crate::faults::User;
use crate::host::HostState;
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
        let mut cluster = Cluster::switched_off(self.seed, self.nodes, self.settings);
        for (host, skew_ms) in self.skews_ms.iter().enumerate().filter(|(_, skew_ms)| **skew_ms != 0) {
            cluster.skew_clock(host, *skew_ms);
        }
        for host in 0..self.nodes {
            cluster.start(host);
        }
        let mut last = None;
        for Step { after, action } in &self.steps {
            cluster.run_for(*after);
            take(&mut cluster, action, &mut last);
        }
        let ended = calm_down(&mut cluster);
        let lasted = cluster.now().since(Time::ZERO);
        Told { ended, trace: std::mem::take(&mut cluster.trace), lasted }
    }

    /// Leaves out what the failure does not need: halves first, single steps last.
    #[must_use]
    pub fn shrink(&self) -> Self {
        self.shrink_while(|story| story.run().is_err())
    }

    /// The same for any kind of failure: `fails` tells whether a story still does.
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

type Last = Option<Vec<u8>>;

fn sign(
    cluster: &mut Cluster,
    last: &mut Last,
    user: User,
    host: usize,
    what: &str,
    with: impl FnOnce(&mut Author, &Documents, i64) -> Option<Vec<u8>>,
) {
    if cluster.state(host) == HostState::Up
        && let Some((_, event)) = cluster.sign_and_submit(host, user, what, with)
    {
        *last = Some(event);
    }
}

/// Does one thing, where it can be done.
fn take(cluster: &mut Cluster, action: &Action, last: &mut Last) {
    match action {
        Action::Apply(user, host, of, spec) => {
            let what = format!("apply {of} x{} at {}m", spec.replicas.count, spec.resources.cpu_m);
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.apply(documents, of, spec, time_ms)
            });
        }
        Action::Set(user, host, of, group, json) => {
            let what = format!("set {group} of {of} to {json}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.set(documents, of, group, json, time_ms)
            });
        }
        Action::Restart(user, host, of) => {
            let what = format!("restart {of}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.restart(documents, of, time_ms)
            });
        }
        Action::Delete(user, host, of) => {
            let what = format!("delete {of}");
            sign(cluster, last, *user, *host, &what, |author, documents, time_ms| {
                author.delete(documents, of, time_ms)
            });
        }
        Action::Retry(host) => {
            if cluster.state(*host) == HostState::Up
                && let Some(event) = last.clone()
            {
                cluster.tell(format!("the last event is handed in again through n{}", host + 1));
                cluster.submit(*host, event);
            }
        }
        Action::Cut(Cuts::Split(groups)) => {
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            cluster.split(&groups);
        }
        Action::Cut(Cuts::OneWay(pairs)) => {
            for (from, to) in pairs {
                cluster.cut_one_way(*from, *to);
            }
        }
        Action::Cut(Cuts::Bridge(bridge)) => {
            let others: Vec<usize> = (0..cluster.len()).filter(|host| host != bridge).collect();
            for from in &others {
                for to in others.iter().filter(|to| *to != from) {
                    cluster.cut_one_way(*from, *to);
                }
            }
        }
        Action::RemoveNode(through, gone) => {
            if cluster.state(*through) == HostState::Up {
                cluster.remove_node(*through, *gone);
            }
        }
        Action::Heal => cluster.heal(),
        Action::PowerOff(host) => {
            if cluster.state(*host) != HostState::PowerOff {
                cluster.power_off(*host);
            }
        }
        Action::KillPeer(host) => {
            if cluster.state(*host) == HostState::Up {
                cluster.stop_peer(*host);
            }
        }
        Action::Start(host) => start(cluster, *host),
        Action::Blackout => {
            for host in 0..cluster.len() {
                if cluster.state(host) != HostState::PowerOff {
                    cluster.power_off(host);
                }
            }
        }
        Action::StartAll => (0..cluster.len()).for_each(|host| start(cluster, host)),
        Action::DiskFull(host, full) => cluster.disk_full(*host, *full),
        Action::Crash(draw) => {
            let running = cluster.processes();
            if !running.is_empty() {
                let at = usize::try_from(*draw % running.len() as u64).unwrap_or(0);
                let (host, container, _) = running[at];
                cluster.crash_container(host, container, 3);
            }
        }
    }
}

pub(crate) fn start(cluster: &mut Cluster, host: usize) {
    if cluster.state(host) != HostState::Up {
        cluster.start(host);
    }
}
