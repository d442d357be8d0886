//! How a new template reaches the replicas.

use serde::{Deserialize, Serialize};

use crate::Revision;
use crate::deployment::{GroupError, invalid};
use crate::limits::{REPLICAS_MAX, UPDATE_SECONDS_MAX};

/// In which order replicas change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Some at a time.
    #[default]
    Rolling,
    /// All new ones are started beside the old, which stop once all new ones are well.
    BlueGreen,
}

impl Strategy {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_rolling(&self) -> bool {
        *self == Self::Rolling
    }
}

/// What happens when a new template does not come up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// All replicas go back to the template before.
    #[default]
    Rollback,
    /// What has changed stays as it is and is tried again; nothing further changes.
    Stop,
}

/// The first replicas change alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// How many, 1 to [`REPLICAS_MAX`].
    pub replicas: u32,
    /// After so many seconds in which all of them are well the others follow; never by themselves where not
    /// given. 1 to [`UPDATE_SECONDS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_after_s: Option<u32>,
    /// The template that a person has let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Revision>,
}

/// How a new template reaches the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateGroup {
    /// So many containers more than replicas may run meanwhile.
    pub surge: u32,
    /// So many replicas may be without a container that is well meanwhile.
    pub unavailable: u32,
    /// A new container counts once it was well for so many seconds. At most [`UPDATE_SECONDS_MAX`].
    pub min_healthy_s: u32,
    /// A new container that does not count after so many seconds has failed. 1 to [`UPDATE_SECONDS_MAX`].
    pub deadline_s: u32,
    /// What happens then.
    pub on_failure: OnFailure,
    /// In which order.
    #[serde(skip_serializing_if = "Strategy::is_rolling")]
    pub strategy: Strategy,
    /// Whether the first change alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Nothing changes until a person says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

impl Default for UpdateGroup {
    /// One more at a time and none less, given up after ten minutes: what a person would do who cannot be
    /// there.
    fn default() -> Self {
        Self {
            surge: 1,
            unavailable: 0,
            min_healthy_s: 0,
            deadline_s: 600,
            on_failure: OnFailure::Rollback,
            strategy: Strategy::Rolling,
            canary: None,
            paused: false,
        }
    }
}

impl UpdateGroup {
    pub(crate) fn validate(&self) -> Result<(), GroupError> {
        for (field, count) in [("update.surge", self.surge), ("update.unavailable", self.unavailable)] {
            if count > REPLICAS_MAX {
                return Err(invalid(field, format!("{count} asked, the limit is {REPLICAS_MAX}")));
            }
        }
        if self.surge == 0 && self.unavailable == 0 {
            return Err(invalid(
                "update.surge",
                "0 more and 0 less (`unavailable`) leave no way to change anything, give one of them",
            ));
        }
        let seconds =
            [("update.min-healthy", self.min_healthy_s, 0), ("update.deadline", self.deadline_s, 1)];
        for (field, asked, least) in seconds {
            if !(least..=UPDATE_SECONDS_MAX).contains(&asked) {
                return Err(invalid(field, format!("{asked} s asked, use {least} to {UPDATE_SECONDS_MAX}")));
            }
        }
        if self.min_healthy_s >= self.deadline_s {
            return Err(invalid(
                "update.deadline",
                format!(
                    "{} s are over before a container can have been well for {} s (`min-healthy`)",
                    self.deadline_s, self.min_healthy_s
                ),
            ));
        }
        if let Some(Canary { replicas, promote_after_s, promoted: _ }) = self.canary {
            if replicas == 0 || replicas > REPLICAS_MAX {
                return Err(invalid(
                    "update.canary",
                    format!("{replicas} replicas asked, use 1 to {REPLICAS_MAX}"),
                ));
            }
            if promote_after_s.is_some_and(|it| it == 0 || it > UPDATE_SECONDS_MAX) {
                return Err(invalid(
                    "update.canary",
                    format!("promote-after must be 1 s to {UPDATE_SECONDS_MAX} s"),
                ));
            }
        }
        Ok(())
    }

    /// For how many seconds a container must have been well until those that are no canaries follow by
    /// themselves; none where they do not.
    pub fn proves_after_s(&self) -> Option<u32> {
        self.canary.and_then(|canary| canary.promote_after_s).map(|it| it.max(self.min_healthy_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_could_never_come_about_is_refused_in_words() {
        let told = |change: fn(&mut UpdateGroup)| {
            let mut it = UpdateGroup::default();
            change(&mut it);
            it.validate().unwrap_err().to_string()
        };
        assert!(told(|it| it.surge = 0).contains("leave no way to change anything"));
        assert!(told(|it| it.surge = 1_000_000_000).contains("1000000000 asked, the limit is 10000"));
        assert!(told(|it| it.deadline_s = 0).contains("0 s asked, use 1 to 604800"));
        assert!(told(|it| it.min_healthy_s = 600).contains("are over before"));
        assert!(
            told(|it| it.canary = Some(Canary { replicas: 0, promote_after_s: None, promoted: None }))
                .contains("use 1 to 10000")
        );
        assert!(UpdateGroup { surge: 0, unavailable: 1, ..UpdateGroup::default() }.validate().is_ok());
    }

    #[test]
    fn what_is_left_out_has_the_default() {
        let read: UpdateGroup = serde_json::from_str(r#"{"surge":3}"#).unwrap();
        assert_eq!(read, UpdateGroup { surge: 3, ..UpdateGroup::default() });
    }
}
