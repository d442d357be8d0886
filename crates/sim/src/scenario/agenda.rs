//! What goes on beside the steps: links that flap, changes one after the other, conditions that are
//! watched, answers that something waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Name, Time};
use node::{CommandId, Outcome};

use super::condition::{Condition, Looked, Past};
use super::run::{Problem, Run};
use crate::faults::User;
use crate::world::Cluster;

/// Something that is due at a time.
#[derive(Clone, Debug)]
pub(super) enum Chore {
    /// Cut these pairs, or mend them, and so on in turn until the end.
    Switch { pairs: BTreeSet<(usize, usize)>, cut: bool, down: Duration, up: Duration, end: Time },
    /// The next of so many changes of a deployment's labels.
    Edit { user: User, host: usize, of: Name, done: u32, count: u32, every: Duration },
    /// A watch is over.
    EndOfWatch(u64),
}

/// What happens once an event is acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Nothing more: a machine that was let in begins by itself. A refusal ends the scenario.
    LetIn,
    /// Machines lose power.
    PowerOff(Vec<usize>),
}

#[derive(Debug)]
struct Watch {
    looked: Looked,
    line: usize,
}

/// What is to come, in order.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    chores: BTreeMap<(Time, u64), Chore>,
    watches: BTreeMap<u64, Watch>,
    pending: Vec<(CommandId, Then)>,
    made: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Time, chore: Chore) {
        self.made += 1;
        self.chores.insert((at, self.made), chore);
    }

    /// A condition must hold until then; `line` is where that is written.
    pub(super) fn watch(&mut self, condition: Condition, until: Time, line: usize) {
        let watch = self.made;
        self.watches.insert(watch, Watch { looked: Looked::new(condition), line });
        self.add(until, Chore::EndOfWatch(watch));
    }

    pub(super) fn when_acked(&mut self, command: CommandId, then: Then) {
        self.pending.push((command, then));
    }

    fn next(&self) -> Option<Time> {
        self.chores.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether something wants to be seen to now.
    fn calls(&self, cluster: &Cluster, past: &Past) -> bool {
        self.pending.iter().any(|(command, _)| cluster.outcome(*command).is_some())
            || self.watches.values().any(|watch| !watch.looked.holds(cluster, past))
    }
}

impl Run {
    /// Lets time pass until something holds, `max` at most, and sees to the agenda meanwhile; how long
    /// that took, or `None` if it did not come to hold.
    pub(super) fn pass(
        &mut self,
        max: Duration,
        holds: impl Fn(&Cluster, &Past) -> bool,
    ) -> Result<Option<Duration>, Problem> {
        let begin = self.cluster.now();
        let end = begin + max;
        loop {
            let due = self.agenda.next().map_or(end, |at| at.min(end));
            let left = due.since(self.cluster.now());
            let (agenda, past) = (&self.agenda, &self.past);
            let called = |cluster: &Cluster| holds(cluster, past) || agenda.calls(cluster, past);
            if self.cluster.run_until(left, called).is_some() {
                self.look_at_watches()?;
                if self.see_to_answers()? {
                    continue;
                }
                return Ok(Some(self.cluster.now().since(begin)));
            }
            self.do_chores()?;
            if self.cluster.now() >= end && self.agenda.next().is_none_or(|at| at > end) {
                return Ok(holds(&self.cluster, &self.past).then_some(max));
            }
        }
    }

    /// Lets time pass until nothing is left to be done.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        while let Some(next) = self.agenda.next() {
            self.pass(next.since(self.cluster.now()), |_, _| false)?;
        }
        if self.agenda.pending.is_empty() {
            return Ok(());
        }
        Err("something still waits for the answer to a change in the end".into())
    }

    fn look_at_watches(&mut self) -> Result<(), Problem> {
        let broken = |watch: &&Watch| !watch.looked.holds(&self.cluster, &self.past);
        let Some(Watch { looked: Looked { condition, .. }, line }) =
            self.agenda.watches.values().find(broken)
        else {
            return Ok(());
        };
        let (line, text) = (*line, format!("no longer so, and watched: {condition}"));
        self.cluster.tell(format!("FAILED {text}"));
        Err(Problem { line: Some(line), text })
    }

    /// Does what waited for answers that are there; whether there was any.
    fn see_to_answers(&mut self) -> Result<bool, Problem> {
        let there = |(command, _): &mut (CommandId, Then)| self.cluster.outcome(*command).is_some();
        let answered: Vec<(CommandId, Then)> = self.agenda.pending.extract_if(.., there).collect();
        for (command, then) in &answered {
            match self.cluster.outcome(*command) {
                Some(Outcome::Accepted { .. }) => {}
                Some(Outcome::Refused { reason, .. }) => {
                    return Err(format!("something waited for a change that was refused: {reason}").into());
                }
                None => continue,
            }
            match then {
                Then::LetIn => {}
                Then::PowerOff(hosts) => hosts.iter().for_each(|host| self.cluster.power_off(*host)),
            }
        }
        Ok(!answered.is_empty())
    }

    fn do_chores(&mut self) -> Result<(), Problem> {
        while let Some(entry) = self.agenda.chores.first_entry() {
            let (at, _) = *entry.key();
            if at > self.cluster.now() {
                return Ok(());
            }
            match entry.remove() {
                Chore::Switch { pairs, cut, down, up, end } => {
                    self.cluster.switch_cuts(&pairs, cut);
                    if at >= end {
                        self.cluster.tell("the link flaps no more");
                        continue;
                    }
                    // It ends whole, however its last turn falls.
                    let next = (at + if cut { down } else { up }).min(end);
                    let cut = !cut && next < end;
                    self.agenda.add(next, Chore::Switch { pairs, cut, down, up, end });
                }
                Chore::Edit { user, host, of, done, count, every } => {
                    self.edit(user, host, &of, done)?;
                    if done + 1 < count {
                        self.agenda
                            .add(at + every, Chore::Edit { user, host, of, done: done + 1, count, every });
                    }
                }
                Chore::EndOfWatch(watch) => {
                    if let Some(Watch { looked: Looked { condition, .. }, .. }) =
                        self.agenda.watches.remove(&watch)
                    {
                        self.cluster.tell(format!("WATCHED until now: {condition}"));
                    }
                }
            }
        }
        Ok(())
    }
}
