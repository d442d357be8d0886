//! One namespace: its deployments as its valid events left them.
//!
//! In the document a group lies under `<name>/<create event>/<group>`, as JSON text, and
//! `<name>/<create event>/deleted` is `true` once any delete is known. So different groups merge,
//! two creations never blend, and a delete beats whatever is concurrent to it.
//!
//! Of several incarnations of one name that live, the one with the greatest (`start_op`, event id)
//! of its create is run; the others are sides of a conflict. Of several values of one group,
//! automerge's winner is used; they are a conflict if they differ.
//!
//! Invariant: the views are a function of the set of valid events.
//! Absent on purpose: what a group means; `model` reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::limits::DEPLOYMENTS_PER_NAMESPACE_MAX;
use model::{ClusterId, Deployment, DocId, EventId, Group, GroupError, Name, Sabotage};

use crate::bits::Bits;
use crate::event::{Author, Change, Create, DELETED_KEY, Delete, Edit, Groups, Set};
use crate::log::{Log, Put, Value};
use crate::promise;
use crate::verdict::VoidReason;

/// What a conflict is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Two creations of one name.
    Whole,
    /// Two values of this group.
    Group(String),
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The event that wrote it.
    pub event: EventId,
    /// Who did.
    pub author: Author,
    /// When, by the author's clock: shown, never compared.
    pub time_ms: i64,
    /// The incarnation that this side belongs to.
    pub incarnation: EventId,
    /// The group's JSON text; for a whole deployment a JSON object of all its groups' texts.
    pub value: String,
}

/// Two islands wanted different things. It is settled by a further event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The document.
    pub doc: DocId,
    /// The deployment's name.
    pub name: Name,
    /// The incarnation that is run.
    pub incarnation: EventId,
    /// What it is about.
    pub scope: Scope,
    /// The sides, the winner first.
    pub sides: Vec<Side>,
    /// The event whose side is used until somebody decides.
    pub winner: EventId,
}

/// A deployment as merged.
#[derive(Clone, Debug)]
pub struct View {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// The event that created it.
    pub incarnation: EventId,
    /// Its groups' JSON texts: of each the winner.
    pub groups: BTreeMap<String, String>,
    /// Which event wrote each of them.
    pub written_by: BTreeMap<String, EventId>,
    /// What islands disagree on: the whole first, then groups by name.
    pub conflicts: Vec<Conflict>,
    /// Read and checked; an error means that nothing new may be started.
    pub deployment: Result<Deployment, Arc<GroupError>>,
}

/// One creation of a name, and what became of it.
#[derive(Clone, Debug)]
struct Incarnation {
    created: u32,
    id: EventId,
    groups: BTreeSet<String>,
    deletes: Vec<u32>,
    /// Events that changed the template, the create included.
    template: Vec<u32>,
    /// Every event about it.
    events: Vec<u32>,
}

impl Incarnation {
    fn lives_in(&self, past: &Bits) -> bool {
        past.contains(self.created) && !self.deletes.iter().any(|delete| past.contains(*delete))
    }
}

/// The key of a group.
pub(crate) fn key(name: &Name, incarnation: EventId, group: &str) -> String {
    format!("{name}/{incarnation}/{group}")
}

/// What a change writes into the document.
pub(crate) fn puts(id: EventId, change: &Change) -> Vec<Put> {
    let mut puts = Vec::new();
    let mut put = |name: &Name, incarnation, group: &str, value| {
        puts.push(Put::new(name.as_str(), key(name, incarnation, group), value));
    };
    for edit in &change.edits {
        let (incarnation, groups) = match edit {
            Edit::Create(Create { groups, .. }) => (id, groups),
            Edit::Set(Set { incarnation, groups, .. }) => (*incarnation, groups),
            Edit::Delete(Delete { name, incarnation }) => {
                put(name, *incarnation, DELETED_KEY, Value::Flag);
                continue;
            }
        };
        for (group, json) in groups {
            put(edit.name(), incarnation, group, Value::text(json.as_str()));
        }
    }
    puts
}

/// One namespace's document.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: Name,
    pub(crate) log: Log,
    incarnations: BTreeMap<Name, Vec<Incarnation>>,
    views: BTreeMap<Name, Arc<View>>,
    /// Names whose view is out of date.
    touched: BTreeSet<Name>,
}

impl Namespace {
    pub(crate) fn new(cluster: ClusterId, name: &Name, epoch: u64) -> Self {
        let doc = DocId::Namespace(name.clone());
        Self {
            name: name.clone(),
            log: Log::new(cluster, &doc, epoch),
            incarnations: BTreeMap::new(),
            views: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    pub(crate) fn doc(&self) -> DocId {
        DocId::Namespace(self.name.clone())
    }

    fn incarnations_of(&self, name: &Name) -> &[Incarnation] {
        self.incarnations.get(name).map_or(&[], Vec::as_slice)
    }

    /// The verdict on a change whose causal past is `past`; its author's right is judged elsewhere.
    pub(crate) fn judge(&self, change: &Change, undone: Option<u32>, past: &Bits) -> Result<(), VoidReason> {
        if let Some(event) = change.undoes
            && !undone.is_some_and(|undone| past.contains(undone))
        {
            return Err(VoidReason::UndoesUnknown { event });
        }
        let mut created = 0_usize;
        let mut ended = 0_usize;
        for edit in &change.edits {
            let name = edit.name();
            let known = self.incarnations_of(name);
            match edit {
                Edit::Create(_) => {
                    let taken = known
                        .iter()
                        .filter(|incarnation| incarnation.lives_in(past))
                        .max_by_key(|incarnation| self.rank(incarnation));
                    if let Some(taken) = taken {
                        return Err(VoidReason::NameTaken { name: name.clone(), incarnation: taken.id });
                    }
                    created += 1;
                }
                Edit::Set(Set { incarnation, .. }) | Edit::Delete(Delete { incarnation, .. }) => {
                    let found = known
                        .iter()
                        .find(|known| known.id == *incarnation && past.contains(known.created))
                        .ok_or_else(|| VoidReason::IncarnationUnknown {
                            name: name.clone(),
                            incarnation: *incarnation,
                        })?;
                    let lives = found.lives_in(past);
                    match edit {
                        Edit::Delete(_) => ended += usize::from(lives),
                        _ if lives || self.log.sabotage.has(Sabotage::DeletedMayChange) => {}
                        _ => {
                            return Err(VoidReason::IncarnationDeleted {
                                name: name.clone(),
                                incarnation: *incarnation,
                            });
                        }
                    }
                }
            }
        }
        if created > 0 {
            let lived =
                self.incarnations.values().flatten().filter(|incarnation| incarnation.lives_in(past)).count();
            // Deletes of one event end incarnations that lived, each of another name.
            let live = lived - ended + created;
            if live > DEPLOYMENTS_PER_NAMESPACE_MAX {
                return Err(VoidReason::NamespaceFull { live });
            }
        }
        Ok(())
    }

    /// What decides between incarnations: the greatest wins.
    fn rank(&self, incarnation: &Incarnation) -> (u64, EventId) {
        (self.log.entry(incarnation.created).start_op, incarnation.id)
    }

    /// Learns what a valid change did; the event at `index` was added to the log.
    pub(crate) fn add(&mut self, index: u32, id: EventId, change: &Change) {
        for edit in &change.edits {
            let name = edit.name();
            let stale = self.log.sabotage.has(Sabotage::StaleView)
                && matches!(edit, Edit::Set(set) if self.views.get(name).is_some_and(|view| {
                    set.groups.keys().all(|group| view.groups.contains_key(group)) && view.conflicts.is_empty()
                }))
                && index % 4 == 3;
            if !stale {
                self.touched.insert(name.clone());
            }
            let list = self.incarnations.entry(name.clone()).or_default();
            match edit {
                Edit::Create(Create { groups, .. }) => list.push(Incarnation {
                    created: index,
                    id,
                    groups: groups.keys().cloned().collect(),
                    deletes: Vec::new(),
                    template: vec![index],
                    events: vec![index],
                }),
                Edit::Set(Set { incarnation, groups, .. }) => {
                    let Some(found) = list.iter_mut().find(|known| known.id == *incarnation) else {
                        unreachable!("a valid set has its create in its past");
                    };
                    let changes_template = Group::TEMPLATE
                        .iter()
                        .filter(|group| groups.contains_key(group.as_str()))
                        .any(|group| {
                            self.log
                                .before_and_after(&key(name, *incarnation, group.as_str()), index)
                                .is_some_and(|(before, after)| before != Some(after))
                        });
                    if changes_template {
                        found.template.push(index);
                    }
                    found.groups.extend(groups.keys().cloned());
                    found.events.push(index);
                }
                Edit::Delete(Delete { incarnation, .. }) => {
                    let Some(found) = list.iter_mut().find(|known| known.id == *incarnation) else {
                        unreachable!("a valid delete has its create in its past");
                    };
                    found.deletes.push(index);
                    found.events.push(index);
                }
            }
        }
    }

    /// Brings the views of touched deployments up to date.
    pub(crate) fn refresh(&mut self) {
        for name in std::mem::take(&mut self.touched) {
            match self.view_of(&name) {
                Some(view) => self.views.insert(name, Arc::new(view)),
                None => self.views.remove(&name),
            };
        }
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &View> {
        self.views.values().map(|view| &**view)
    }

    pub(crate) fn view(&self, name: &Name) -> Option<&View> {
        self.views.get(name).map(|view| &**view)
    }

    /// Each group of an incarnation: its winner.
    fn winners(&self, name: &Name, incarnation: &Incarnation) -> BTreeMap<String, String> {
        incarnation
            .groups
            .iter()
            .filter_map(|group| {
                let value =
                    self.log.values(&key(name, incarnation.id, group)).first()?.value.as_str().to_owned();
                Some((group.clone(), value))
            })
            .collect()
    }

    fn side(&self, index: u32, incarnation: EventId, value: String) -> Side {
        let entry = self.log.entry(index);
        Side { event: entry.id, author: entry.author, time_ms: entry.time_ms, incarnation, value }
    }

    fn view_of(&self, name: &Name) -> Option<View> {
        let ended = |it: &Incarnation| {
            if self.log.sabotage.has(Sabotage::DeletionUndone) {
                return it.deletes.iter().any(|delete| it.events.last() == Some(delete));
            }
            !it.deletes.is_empty()
        };
        let mut live: Vec<&Incarnation> =
            self.incarnations_of(name).iter().filter(|incarnation| !ended(incarnation)).collect();
        live.sort_unstable_by_key(|incarnation| std::cmp::Reverse(self.rank(incarnation)));
        if self.log.sabotage.has(Sabotage::OlderCreationWins) {
            live.reverse();
        }
        let run = *live.first()?;
        let conflict = |scope, sides: Vec<Side>, winner| Conflict {
            doc: self.doc(),
            name: name.clone(),
            incarnation: run.id,
            scope,
            sides,
            winner,
        };
        let mut conflicts = Vec::new();
        if live.len() > 1 {
            let sides = live
                .iter()
                .map(|incarnation| {
                    let groups: Groups = self.winners(name, incarnation);
                    let value = serde_json::to_string(&groups).expect("a map from text to text");
                    self.side(incarnation.created, incarnation.id, value)
                })
                .collect();
            conflicts.push(conflict(Scope::Whole, sides, run.id));
        }
        let mut groups = BTreeMap::new();
        let mut written_by = BTreeMap::new();
        for group in &run.groups {
            let values = self.log.values(&key(name, run.id, group));
            let Some(winner) = values.first() else { continue };
            let event = self.log.entry(winner.entry).id;
            groups.insert(group.clone(), winner.value.as_str().to_owned());
            written_by.insert(group.clone(), event);
            if values.iter().any(|other| other.value != winner.value) {
                let sides = values
                    .iter()
                    .map(|op| self.side(op.entry, run.id, op.value.as_str().to_owned()))
                    .collect();
                conflicts.push(conflict(Scope::Group(group.clone()), sides, event));
            }
        }
        let deployment = Deployment::from_groups(&self.name, name, run.id, &groups)
            .and_then(|deployment| promise::kept(deployment, self.promise_of(name, run)))
            .map_err(Arc::new);
        Some(View {
            namespace: self.name.clone(),
            name: name.clone(),
            incarnation: run.id,
            groups,
            written_by,
            conflicts,
            deployment,
        })
    }

    /// The group `replicas` of an incarnation as it was created.
    fn promise_of(&self, name: &Name, incarnation: &Incarnation) -> Option<&str> {
        let key = key(name, incarnation.id, Group::Replicas.as_str());
        Some(self.log.before_and_after(&key, incarnation.created)?.1.as_str())
    }

    /// Whether an incarnation was deleted: it never lives again.
    pub(crate) fn has_ended(&self, name: &Name, incarnation: EventId) -> bool {
        self.incarnations_of(name).iter().any(|it| it.id == incarnation && !it.deletes.is_empty())
    }

    /// The groups of an incarnation as they stood in `past`; none if it did not live there.
    pub(crate) fn groups_in(&self, name: &Name, incarnation: EventId, past: &Bits) -> Option<Groups> {
        let found = self.incarnations_of(name).iter().find(|known| known.id == incarnation)?;
        if !found.lives_in(past) {
            return None;
        }
        let groups = found.groups.iter().filter_map(|group| {
            let value = self.log.value_in(&key(name, incarnation, group), past)?.as_str().to_owned();
            Some((group.clone(), value))
        });
        Some(groups.collect())
    }

    /// Every event about a name, as indices, in no order.
    pub(crate) fn events_of(&self, name: &Name) -> BTreeSet<u32> {
        self.incarnations_of(name).iter().flat_map(|incarnation| &incarnation.events).copied().collect()
    }

    /// The events that changed an incarnation's template, in the order that every peer gives them.
    pub(crate) fn revisions(&self, name: &Name, incarnation: EventId) -> Vec<EventId> {
        let Some(found) = self.incarnations_of(name).iter().find(|known| known.id == incarnation) else {
            return Vec::new();
        };
        let mut events: Vec<(u64, EventId)> = found
            .template
            .iter()
            .map(|index| self.log.entry(*index))
            .map(|entry| (entry.start_op, entry.id))
            .collect();
        events.sort_unstable();
        events.into_iter().map(|(_, id)| id).collect()
    }
}
