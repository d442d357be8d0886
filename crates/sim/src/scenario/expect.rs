//! Steps are read: what is expected.

use std::ops::Range;
use std::time::Duration;

use membership::Liveness;

use super::act::{Act, Expectation};
use super::condition::Condition;
use super::raw;
use super::read::{Fault, Reader, fault, name, span_of};

impl Reader<'_> {
    /// Something that must come true: `within` some time, and `holds`.
    pub(super) fn expect(&self, raw: &raw::Expect, span: &Range<usize>) -> Result<Expectation, Fault> {
        if let Some(until) = &raw.until {
            return fault(until.span(), "`expect` has no `until`", "give `holds`, or write `watch`");
        }
        let Some(within) = &raw.within else {
            return fault(span.clone(), "it is not said how long it may take", "add `within`");
        };
        let within = span_of(within)?;
        let holds = raw.holds.as_ref().map_or(Ok(Duration::ZERO), span_of)?;
        Ok(Expectation { condition: self.condition(raw, span)?, within, holds })
    }

    /// Something that must be so from now on `until` then.
    pub(super) fn watch(&self, raw: &raw::Expect, at: Duration, span: &Range<usize>) -> Result<Act, Fault> {
        if let Some(word) = raw.within.as_ref().or(raw.holds.as_ref()) {
            let problem = "`watch` has neither `within` nor `holds`: it must be so at once";
            return fault(word.span(), problem, "give `until`, or write `expect`");
        }
        let Some(until) = &raw.until else {
            return fault(span.clone(), "it is not said how long this is watched", "add `until`");
        };
        let end = span_of(until)?;
        if end <= at {
            return fault(until.span(), "this is over before it begins", format!("later than {at:?}"));
        }
        Ok(Act::Watch(self.condition(raw, span)?, end))
    }

    /// The one condition that is named.
    fn condition(&self, raw: &raw::Expect, span: &Range<usize>) -> Result<Condition, Fault> {
        let mut conditions = Vec::new();
        self.about_what_runs(raw, &mut conditions)?;
        self.about_what_is_known(raw, &mut conditions)?;
        about_the_last_change(raw, &mut conditions);
        let count = conditions.len();
        match conditions.pop() {
            Some(condition) if count == 1 => Ok(condition),
            _ => fault(
                span.clone(),
                format!("{count} conditions are expected at once"),
                "a step expects one, like `agreed = [\"n1\", \"n2\"]`",
            ),
        }
    }

    fn about_what_runs(&self, raw: &raw::Expect, conditions: &mut Vec<Condition>) -> Result<(), Fault> {
        if let Some(it) = &raw.runs_once {
            conditions.push(Condition::RunsOnce(name(&it.name)?, it.replicas, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.at_least {
            conditions.push(Condition::AtLeast(name(&it.name)?, it.replicas, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.at_most {
            conditions.push(Condition::AtMost(name(&it.name)?, it.copies, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.gone {
            conditions.push(Condition::Gone(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.updated {
            conditions.push(Condition::Updated(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.runs_with {
            conditions.push(Condition::RunsWith(name(&it.name)?, it.env.clone(), self.on(it.on.as_ref())?));
        }
        if let Some(nodes) = &raw.undisturbed {
            conditions.push(Condition::Undisturbed(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.removed {
            conditions.push(Condition::Removed(self.some(nodes)?));
        }
        if let Some(it) = &raw.starts_at_most {
            conditions.push(Condition::StartsAtMost(name(&it.name)?, it.count));
        }
        if let Some(it) = &raw.messages_at_most {
            conditions.push(Condition::MessagesAtMost(*it.get_ref()));
        }
        Ok(())
    }

    fn about_what_is_known(&self, raw: &raw::Expect, conditions: &mut Vec<Condition>) -> Result<(), Fault> {
        if let Some(it) = &raw.conflicts {
            conditions.push(Condition::Conflicts(name(&it.name)?, it.count, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.unplaced {
            conditions.push(Condition::Unplaced(name(&it.name)?, it.count, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.waits {
            conditions.push(Condition::Waits(name(&it.name)?, it.count, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.done {
            conditions.push(Condition::Done(name(&it.name)?, it.count, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.given_up {
            conditions.push(Condition::GivenUp(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.cycle {
            conditions.push(Condition::Cycle(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.alike {
            conditions.push(Condition::Alike(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(it) = &raw.forgotten {
            conditions.push(Condition::Forgotten(name(&it.name)?, self.on(it.on.as_ref())?));
        }
        if let Some(nodes) = &raw.agreed {
            conditions.push(Condition::Agreed(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.level {
            conditions.push(Condition::Level(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.all_up {
            conditions.push(Condition::AllUp(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.known {
            conditions.push(Condition::Known(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.no_new_events {
            conditions.push(Condition::NoNewEvents(self.some(nodes)?));
        }
        if let Some(nodes) = &raw.acked_kept {
            conditions.push(Condition::AckedKept(self.some(nodes)?));
        }
        if let Some(it) = &raw.believe {
            let liveness = match it.r#as.get_ref().as_str() {
                "up" => Liveness::Up,
                "suspect" => Liveness::Suspect,
                "down" => Liveness::Down,
                other => {
                    let problem = format!("nobody is `{other}`");
                    return fault(it.r#as.span(), problem, "use `up`, `suspect` or `down`");
                }
            };
            conditions.push(Condition::Believe(self.some(&it.nodes)?, self.node(&it.of)?, liveness));
        }
        Ok(())
    }
}

fn about_the_last_change(raw: &raw::Expect, conditions: &mut Vec<Condition>) {
    if let Some(it) = &raw.accepted {
        conditions.push(Condition::Accepted(it.disks, it.known));
    }
    if let Some(it) = &raw.refused {
        conditions.push(Condition::Refused(it.get_ref().clone()));
    }
}
