//! The fields that say how a new template reaches the replicas.

use model::limits::{REPLICAS_MAX, UPDATE_SECONDS_MAX};
use model::{Canary, OnFailure, Strategy, UpdateGroup};

use super::node::{Node, Value};
use super::read::Reader;
use crate::args::parse_duration;

/// The fields of `update`.
pub(super) const UPDATE_FIELDS: [&str; 8] =
    ["surge", "unavailable", "min-healthy", "deadline", "on-failure", "strategy", "canary", "paused"];

/// The fields of `update.canary`.
pub(super) const CANARY_FIELDS: [&str; 2] = ["replicas", "promote-after"];

impl Reader {
    pub(super) fn update(&mut self, node: &Node) -> Option<UpdateGroup> {
        let before = self.problems.len();
        let fields = self.fields(node, "update", &UPDATE_FIELDS)?;
        let mut update = UpdateGroup::default();
        let count = |this: &mut Self, field: &'static str, value: &mut u32| {
            if let Some(node) = fields.get(field)
                && let Some(read) = this.whole(node, &format!("update.{field}"), 0, REPLICAS_MAX.into())
            {
                *value = u32::try_from(read).unwrap_or(REPLICAS_MAX);
            }
        };
        count(self, "surge", &mut update.surge);
        count(self, "unavailable", &mut update.unavailable);
        for (field, value, least) in
            [("min-healthy", &mut update.min_healthy_s, 0), ("deadline", &mut update.deadline_s, 1)]
        {
            if let Some(node) = fields.get(field)
                && let Some(read) = self.seconds(node, &format!("update.{field}"), least)
            {
                *value = read;
            }
        }
        let words = [("rollback", OnFailure::Rollback), ("stop", OnFailure::Stop)];
        if let Some(node) = fields.get("on-failure") {
            update.on_failure = self.word(node, "update.on-failure", &words).unwrap_or_default();
        }
        let words = [("rolling", Strategy::Rolling), ("blue-green", Strategy::BlueGreen)];
        if let Some(node) = fields.get("strategy") {
            update.strategy = self.word(node, "update.strategy", &words).unwrap_or_default();
        }
        if let Some(node) = fields.get("canary") {
            update.canary = self.canary(node);
        }
        if let Some(node) = fields.get("paused") {
            match node.value {
                Value::Bool(paused) => update.paused = paused,
                _ => self.note(
                    node.place,
                    format!("update.paused must be true or false, found {}", node.value.found()),
                ),
            }
        }
        (self.problems.len() == before).then_some(update)
    }

    /// A number of replicas, or that and when the others follow.
    fn canary(&mut self, node: &Node) -> Option<Canary> {
        let most = u64::from(REPLICAS_MAX);
        let number = |read: u64| u32::try_from(read).unwrap_or(REPLICAS_MAX);
        if let Value::Whole(_) = node.value {
            let replicas = number(self.whole(node, "update.canary", 1, most)?);
            return Some(Canary { replicas, promote_after_s: None, promoted: None });
        }
        let fields = self.fields(node, "update.canary", &CANARY_FIELDS)?;
        let replicas = match fields.get("replicas") {
            Some(node) => number(self.whole(node, "update.canary.replicas", 1, most)?),
            None => 1,
        };
        let promote_after_s = match fields.get("promote-after") {
            Some(node) => Some(self.seconds(node, "update.canary.promote-after", 1)?),
            None => None,
        };
        Some(Canary { replicas, promote_after_s, promoted: None })
    }

    /// A span of whole seconds, like `90s` or `10m`.
    pub(super) fn seconds(&mut self, node: &Node, what: &str, least: u32) -> Option<u32> {
        let text = self.text(node, what)?;
        let span = match parse_duration(text) {
            Ok(span) => span,
            Err(error) => {
                self.note(node.place, format!("{what}: {error}"));
                return None;
            }
        };
        let seconds = u32::try_from(span.as_secs()).ok().filter(|_| span.subsec_nanos() == 0);
        let fits = seconds.filter(|it| (least..=UPDATE_SECONDS_MAX).contains(it));
        if fits.is_none() {
            let message = format!(
                "{what} must be whole seconds, {least}s to {}h, found `{text}`",
                UPDATE_SECONDS_MAX / 3_600
            );
            self.note(node.place, message);
        }
        fits
    }
}
