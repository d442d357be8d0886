//! What happened, for people: who changed what, from which value to which.
//!
//! Items are sorted by (`start_op`, event id): causes before effects, and the same on every peer
//! with the same events. The clock of the author is shown and orders nothing.

use model::{DocId, EventId, Name};

use crate::event::{Author, Edit, Kind};
use crate::log::{Entry, Log};
use crate::namespace::key;
use crate::roster::Roster;

/// What an event did to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChange {
    /// The group.
    pub group: String,
    /// Its JSON text where the author stood; none if it had none.
    pub before: Option<String>,
    /// Its JSON text after.
    pub after: String,
}

/// What an event did to one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It was created.
    Create,
    /// Groups of it were set.
    Set,
    /// It was deleted.
    Delete,
}

/// One edit of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditSummary {
    /// The deployment.
    pub name: Name,
    /// Which incarnation of it.
    pub incarnation: EventId,
    /// What was done.
    pub action: Action,
    /// The groups, by name. Those that were set to the value that they had are among them.
    pub groups: Vec<GroupChange>,
}

/// One event of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// The event.
    pub id: EventId,
    /// The document.
    pub doc: DocId,
    /// Who signed it.
    pub author: Author,
    /// The author's name in the roster.
    pub author_name: Option<String>,
    /// When, by the author's clock: shown, never compared.
    pub time_ms: i64,
    /// The kind, or for a change its verb.
    pub verb: &'static str,
    /// What a change did, in the order of its edits; empty in the cluster document.
    pub summary: Vec<EditSummary>,
    /// What the event says.
    pub kind: Kind,
}

/// Describes the event at `index`; of a change only the edits of `name`, if one is given.
pub(crate) fn item(
    log: &Log,
    doc: &DocId,
    roster: &Roster,
    (index, entry): (u32, &Entry),
    name: Option<&Name>,
) -> HistoryItem {
    let kind = entry.event.body().kind;
    let edits = match &kind {
        Kind::Change(change) => change.edits.as_slice(),
        _ => &[],
    };
    let summary = edits
        .iter()
        .filter(|edit| name.is_none_or(|name| name == edit.name()))
        .map(|edit| {
            let (action, incarnation) = match edit {
                Edit::Create(_) => (Action::Create, entry.id),
                Edit::Set(set) => (Action::Set, set.incarnation),
                Edit::Delete(delete) => (Action::Delete, delete.incarnation),
            };
            let groups = edit.groups().into_iter().flatten().map(|(group, json)| {
                let found = log.before_and_after(&key(edit.name(), incarnation, group), index);
                let before = found.and_then(|(before, _)| before).map(|value| value.as_str().to_owned());
                GroupChange { group: group.clone(), before, after: json.clone() }
            });
            EditSummary { name: edit.name().clone(), incarnation, action, groups: groups.collect() }
        })
        .collect();
    HistoryItem {
        id: entry.id,
        doc: doc.clone(),
        author: entry.author,
        author_name: roster.name_of(&entry.author).map(str::to_owned),
        time_ms: entry.time_ms,
        verb: kind.verb(),
        summary,
        kind,
    }
}
