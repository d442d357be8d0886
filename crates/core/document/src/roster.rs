//! Who belongs to the cluster: nodes, users, tokens; from the cluster document's valid events.
//!
//! A node is a *member* if the genesis or an admission admits it, unless it was removed: any valid
//! removal stands for ever for its key, concurrent or not. A token may be used on two islands more
//! often than it allows; its nodes are then ranked by their lowest admission event id, the first
//! `uses` are members by it, and the others *wait* for a person, who may give them another token.
//! A removal makes no room. Of several additions of one user, or registrations of one token, that
//! were made concurrently, the lowest event id counts. Of what was said of a node's work, what came last
//! counts, and of what was said concurrently the most careful.
//!
//! The same rules serve two questions: what is known (the roster), and what was known in the causal
//! past of an event (its verdict).
//!
//! Invariant: nothing here depends on the order of arrival.

use std::collections::{BTreeMap, BTreeSet};

use model::{EventId, Name, NodeId, Sabotage, Sabotages, TokenId, UserId};

use crate::bits::Bits;
use crate::event::{Author, Kind, NodeInfo, NodeRemove, NodeSchedule, Role, Schedule, TokenGrant, UserAdd};
use crate::log::{Log, Put, Value};
use crate::verdict::VoidReason;

/// A node that was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// For people; two members may have the same.
    pub name: Name,
    /// `host:port`, most wanted first, as at its admission.
    pub addresses: Vec<String>,
    /// The event that admitted it: the genesis or a `node_admit`.
    pub admitted_by: EventId,
    /// The token that it came with; none for the first node.
    pub token: Option<TokenId>,
    /// Whether it takes work.
    pub schedule: Schedule,
    /// While it drains: see [`crate::event::NodeSchedule::deadline_s`].
    pub deadline_s: Option<u32>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// For people; two users may have the same.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// The event that added them.
    pub added_by: EventId,
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Milliseconds of Unix time after which peers serve no join with it.
    pub expires_ms: i64,
    /// How many nodes it admits.
    pub uses: u32,
    /// How many nodes came with it; more than `uses` if islands used it concurrently.
    pub used: u32,
    /// Whether it was withdrawn.
    pub revoked: bool,
    /// Who registered it.
    pub author: Author,
    /// The event that did.
    pub event: EventId,
}

/// Who belongs to the cluster, as far as this peer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The cluster's name; none before its genesis is known.
    pub name: Option<Name>,
    /// The recovery key, which may do whatever an admin may.
    pub recovery: Option<UserId>,
    /// Members.
    pub nodes: BTreeMap<NodeId, Member>,
    /// Keys that were removed, each with the lowest id of the events that did.
    pub removed: BTreeMap<NodeId, EventId>,
    /// Nodes whose token had admitted enough others.
    pub waiting: BTreeMap<NodeId, Member>,
    /// Users.
    pub users: BTreeMap<UserId, User>,
    /// Tokens.
    pub tokens: BTreeMap<TokenId, Token>,
}

impl Roster {
    /// The name of an author, for people.
    pub fn name_of(&self, author: &Author) -> Option<&str> {
        match author {
            Author::User(user) if self.recovery == Some(*user) && !self.users.contains_key(user) => {
                Some("recovery key")
            }
            Author::User(user) => self.users.get(user).map(|user| user.name.as_str()),
            Author::Node(node) => {
                self.nodes.get(node).or_else(|| self.waiting.get(node)).map(|node| node.name.as_str())
            }
        }
    }
}

/// Something that a valid event said.
#[derive(Clone, Debug)]
struct Fact<T> {
    /// The event's index in its log.
    at: u32,
    event: EventId,
    author: Author,
    what: T,
}

#[derive(Clone, Debug)]
struct Admission {
    node: NodeInfo,
    token: Option<TokenId>,
}

/// A part of the facts: all of them, or those of one causal past.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    All,
    In(&'a Bits),
}

impl Seen<'_> {
    fn holds<T>(self, fact: &Fact<T>) -> bool {
        match self {
            Self::All => true,
            Self::In(past) => past.contains(fact.at),
        }
    }
}

/// The nodes of a part of the facts.
struct Ranked<'a> {
    members: BTreeMap<NodeId, &'a Fact<Admission>>,
    waiting: BTreeMap<NodeId, &'a Fact<Admission>>,
    removed: BTreeMap<NodeId, EventId>,
    used: BTreeMap<TokenId, u32>,
}

/// All that the valid events of the cluster document said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    name: Option<Name>,
    recovery: Option<UserId>,
    users: Vec<Fact<UserAdd>>,
    tokens: Vec<Fact<TokenGrant>>,
    revokes: Vec<Fact<TokenId>>,
    admissions: Vec<Fact<Admission>>,
    removals: Vec<Fact<NodeId>>,
    pub(crate) sabotage: Sabotages,
}

/// Of the facts that fit, the one with the lowest event id.
fn lowest<'a, T>(facts: &'a [Fact<T>], seen: Seen<'_>, fits: impl Fn(&T) -> bool) -> Option<&'a Fact<T>> {
    facts.iter().filter(|fact| fits(&fact.what) && seen.holds(fact)).min_by_key(|fact| fact.event)
}

impl Facts {
    /// What `author` may do; a node's own admission is judged elsewhere.
    pub(crate) fn role_of(&self, author: Author, seen: Seen<'_>) -> Option<Role> {
        let Author::User(key) = author else { return None };
        let user = lowest(&self.users, seen, |user| user.key == key).map(|fact| fact.what.role);
        // The recovery key is named by the genesis, which every non-empty past holds.
        let recovers =
            self.recovery == Some(key) && self.users.first().is_some_and(|genesis| seen.holds(genesis));
        if recovers { Some(Role::Admin) } else { user }
    }

    /// The verdict on an event of the cluster document whose causal past is `past`.
    pub(crate) fn judge(&self, author: Author, kind: &Kind, past: &Bits) -> Result<(), VoidReason> {
        let seen = Seen::In(past);
        let by_admin = self.role_of(author, seen) == Some(Role::Admin);
        if !by_admin && !matches!(kind, Kind::Genesis(_) | Kind::NodeAdmit(_)) {
            return Err(VoidReason::NotAllowed { author });
        }
        match kind {
            Kind::UserAdd(UserAdd { key, .. }) => {
                if lowest(&self.users, seen, |user| user.key == *key).is_some() || self.recovery == Some(*key)
                {
                    return Err(VoidReason::UserExists { key: *key });
                }
            }
            Kind::Token(TokenGrant { id, .. }) => {
                if lowest(&self.tokens, seen, |token| token.id == *id).is_some() {
                    return Err(VoidReason::TokenExists { token: *id });
                }
            }
            Kind::TokenRevoke(revoke) => {
                if lowest(&self.tokens, seen, |token| token.id == revoke.id).is_none() {
                    return Err(VoidReason::TokenUnknown { token: revoke.id });
                }
            }
            Kind::NodeAdmit(admit) => {
                let (token, node) = (admit.token, admit.node.key);
                let Some(grant) = lowest(&self.tokens, seen, |known| known.id == token) else {
                    return Err(VoidReason::TokenUnknown { token });
                };
                if lowest(&self.revokes, seen, |revoked| *revoked == token).is_some() {
                    return Err(VoidReason::TokenRevoked { token });
                }
                let ranked = self.ranked(seen);
                if ranked.used.get(&token).is_some_and(|used| *used >= grant.what.uses) {
                    return Err(VoidReason::TokenUsedUp { token });
                }
                if ranked.removed.contains_key(&node) {
                    return Err(VoidReason::NodeRemoved { node });
                }
                if ranked.members.contains_key(&node) {
                    return Err(VoidReason::NodeIsMember { node });
                }
            }
            Kind::NodeRemove(NodeRemove { node }) | Kind::NodeSchedule(NodeSchedule { node, .. }) => {
                if lowest(&self.admissions, seen, |admitted| admitted.node.key == *node).is_none() {
                    return Err(VoidReason::NodeUnknown { node: *node });
                }
            }
            Kind::Genesis(_) | Kind::Change(_) => {}
        }
        Ok(())
    }

    /// Learns what a valid event said.
    pub(crate) fn add(&mut self, at: u32, event: EventId, author: Author, kind: Kind) {
        fn fact<T>((at, event, author): (u32, EventId, Author), what: T) -> Fact<T> {
            Fact { at, event, author, what }
        }
        let from = (at, event, author);
        match kind {
            Kind::Genesis(genesis) => {
                self.name = Some(genesis.name);
                self.recovery = Some(genesis.recovery);
                let admin = UserAdd { name: genesis.admin.name, key: genesis.admin.key, role: Role::Admin };
                self.users.push(fact(from, admin));
                self.admissions.push(fact(from, Admission { node: genesis.node, token: None }));
            }
            Kind::UserAdd(user) => self.users.push(fact(from, user)),
            Kind::Token(token) => self.tokens.push(fact(from, token)),
            Kind::TokenRevoke(revoke) => self.revokes.push(fact(from, revoke.id)),
            Kind::NodeAdmit(admit) => {
                self.admissions.push(fact(from, Admission { node: admit.node, token: Some(admit.token) }));
            }
            Kind::NodeRemove(_)
                if self.sabotage.has(Sabotage::OneRemovalCounts) && !self.removals.is_empty() => {}
            Kind::NodeRemove(remove) => self.removals.push(fact(from, remove.node)),
            // Read from the log, which knows what replaced what.
            Kind::NodeSchedule(_) => {}
            Kind::Change(_) => unreachable!("decoding keeps changes out of the cluster document"),
        }
    }

    fn ranked(&self, seen: Seen<'_>) -> Ranked<'_> {
        let mut removed: BTreeMap<NodeId, EventId> = BTreeMap::new();
        for fact in self.removals.iter().filter(|fact| seen.holds(fact)) {
            removed
                .entry(fact.what)
                .and_modify(|event| *event = fact.event.min(*event))
                .or_insert(fact.event);
        }
        // Lowest event id first, so that the first admission of a node by a token is its rank there.
        let mut admissions: Vec<&Fact<Admission>> =
            self.admissions.iter().filter(|fact| seen.holds(fact)).collect();
        admissions.sort_unstable_by_key(|fact| fact.event);
        let mut by_token: BTreeMap<TokenId, BTreeSet<NodeId>> = BTreeMap::new();
        let mut members = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for fact in admissions {
            let node = fact.what.node.key;
            let admitted = match fact.what.token {
                None => true,
                Some(token) => {
                    let nodes = by_token.entry(token).or_default();
                    let uses = lowest(&self.tokens, seen, |known| known.id == token)
                        .map_or(0, |grant| grant.what.uses as usize);
                    // A second admission by the same token has the rank of the first.
                    nodes.contains(&node) && members.contains_key(&node)
                        || nodes.insert(node) && nodes.len() <= uses
                }
            };
            let list = if admitted { &mut members } else { &mut waiting };
            list.entry(node).or_insert(fact);
        }
        members.retain(|node, _| !removed.contains_key(node));
        waiting.retain(|node, _| !removed.contains_key(node) && !members.contains_key(node));
        let used = by_token
            .into_iter()
            .map(|(token, nodes)| (token, u32::try_from(nodes.len()).unwrap_or(u32::MAX)))
            .collect();
        Ranked { members, waiting, removed, used }
    }

    /// The roster of everything that is known. `log`: the cluster document's.
    pub(crate) fn roster(&self, log: &Log) -> Roster {
        let ranked = self.ranked(Seen::All);
        let list = |facts: BTreeMap<NodeId, &Fact<Admission>>| {
            facts
                .into_iter()
                .map(|(key, fact)| {
                    let NodeInfo { name, addresses, .. } = fact.what.node.clone();
                    let (schedule, deadline_s) = schedule_of(log, &key);
                    let (admitted_by, token) = (fact.event, fact.what.token);
                    (key, Member { name, addresses, admitted_by, token, schedule, deadline_s })
                })
                .collect()
        };
        let mut roster = Roster {
            name: self.name.clone(),
            recovery: self.recovery,
            nodes: list(ranked.members),
            removed: ranked.removed,
            waiting: list(ranked.waiting),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        for fact in &self.users {
            let UserAdd { name, key, role } = fact.what.clone();
            let user = User { name, role, added_by: fact.event };
            let known = roster.users.entry(key).or_insert_with(|| user.clone());
            if fact.event < known.added_by {
                *known = user;
            }
        }
        for fact in &self.tokens {
            let TokenGrant { id, expires_ms, uses } = fact.what;
            let token = Token {
                expires_ms,
                uses,
                used: ranked.used.get(&id).copied().unwrap_or(0),
                revoked: self.revokes.iter().any(|revoke| revoke.what == id),
                author: fact.author,
                event: fact.event,
            };
            let known = roster.tokens.entry(id).or_insert_with(|| token.clone());
            if fact.event < known.event {
                *known = token;
            }
        }
        roster
    }
}

fn schedule_key(node: &NodeId) -> String {
    format!("node-schedule/{node}")
}

/// What was said last of a node's work; of what was said concurrently the most careful, and of deadlines
/// the longest, since what is stopped too late does less harm than what is stopped too soon.
fn schedule_of(log: &Log, node: &NodeId) -> (Schedule, Option<u32>) {
    let said = log.values(&schedule_key(node)).into_iter();
    let said = said.filter_map(|op| serde_json::from_str::<NodeSchedule>(op.value.as_str()).ok());
    let most = said.max_by_key(|it| (it.schedule, it.deadline_s.is_none(), it.deadline_s));
    most.map_or_else(Default::default, |it| (it.schedule, it.deadline_s))
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    Value::text(serde_json::to_string(value).expect("the parts of an event are structs and text"))
}

/// What a kind writes into the cluster document. At least one put for each.
pub(crate) fn puts(kind: &Kind) -> Vec<Put> {
    let put = |key: String, value| Put::new(&key.clone(), key, value);
    match kind {
        Kind::Genesis(genesis) => {
            let admin =
                UserAdd { name: genesis.admin.name.clone(), key: genesis.admin.key, role: Role::Admin };
            vec![
                put("name".to_owned(), json(&genesis.name)),
                put(format!("node/{}", genesis.node.key), json(&genesis.node)),
                put(format!("recovery/{}", genesis.recovery), Value::Flag),
                put(format!("user/{}", admin.key), json(&admin)),
            ]
        }
        Kind::UserAdd(user) => vec![put(format!("user/{}", user.key), json(user))],
        Kind::Token(token) => vec![put(format!("token/{}", token.id), json(token))],
        Kind::TokenRevoke(revoke) => vec![put(format!("token-revoked/{}", revoke.id), Value::Flag)],
        Kind::NodeAdmit(admit) => vec![put(format!("node/{}", admit.node.key), json(&admit.node))],
        Kind::NodeRemove(remove) => vec![put(format!("node-removed/{}", remove.node), Value::Flag)],
        Kind::NodeSchedule(it) => vec![put(schedule_key(&it.node), json(it))],
        Kind::Change(_) => unreachable!("decoding keeps changes out of the cluster document"),
    }
}
