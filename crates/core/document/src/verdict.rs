//! The verdict on an event: valid, or void and why.
//!
//! The verdict is a function of the event and its causal past, which is the same for every peer
//! that has it; so it is the same everywhere, whatever else a peer knows and whenever it learned
//! it. The causal past of an event is the closure of its `deps`, and for a namespace also the
//! closure of its `auth` in the cluster document. A void event makes no change and is no head, and
//! is remembered, so that what descends from it is judged and nobody fetches it again.
//!
//! | kind | valid if, in the causal past |
//! |---|---|
//! | any | every `deps` and `auth` is known (else it waits), valid, and of the right document |
//! | `genesis` | always: the bytes decide (its id is the cluster's, its author its admin) |
//! | `user_add` | the author is an admin; the key is no user's and not the recovery key |
//! | `token` | the author is an admin; the id is no token's |
//! | `token_revoke` | the author is an admin; the token is there |
//! | `node_admit` | the token is there and not revoked; it has admitted fewer than `uses` nodes; the node is not removed and not a member |
//! | `node_remove` | the author is an admin; the node was admitted |
//! | `node_schedule` | the author is an admin; the node was admitted |
//! | `change` | the author is an admin or has the role `deploy`; what is undone is there; every edit is valid; the document has room |
//! | .. `create` | no incarnation of the name lives |
//! | .. `set` | the incarnation is one of that name, and is not deleted |
//! | .. `delete` | the incarnation is one of that name |
//!
//! *Admin* is the genesis' admin, the recovery key, or a user added as admin; of several additions
//! of one key the lowest event id counts. So of several registrations of one token. *Members* are
//! as in the roster, computed in the causal past: a node that waits may come with another token.
//! An incarnation *lives* if its create is in the causal past and no delete of it is. The edits of
//! one event are judged side by side, each against the past. *Room*: with a `create`, at most
//! `DEPLOYMENTS_PER_NAMESPACE_MAX` incarnations live after it; and op numbers are left.
//! Rules are tried in the order of [`VoidReason`], edits in their order; the first that fails is
//! the reason.

use model::limits::DEPLOYMENTS_PER_NAMESPACE_MAX;
use model::{EventId, Name, NodeId, TokenId, UserId};

use crate::event::Author;

/// Why an event has no effect, on every peer and for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum VoidReason {
    /// It builds on a void event.
    #[error("it builds on event {dep}, which is void")]
    DependsOnVoid {
        /// The void event.
        dep: EventId,
    },
    /// It names an event of another document where one of its own, or of the cluster's, belongs.
    #[error("it names event {dep}, which belongs to another document")]
    WrongDocument {
        /// That event.
        dep: EventId,
    },
    /// The author's rights do not reach so far.
    #[error("{author:?} may not do this")]
    NotAllowed {
        /// Who signed it.
        author: Author,
    },
    /// The key is a user's already, or the recovery key.
    #[error("user key {key} is in use")]
    UserExists {
        /// The key.
        key: UserId,
    },
    /// The id is a token's already.
    #[error("token {token} exists")]
    TokenExists {
        /// The token.
        token: TokenId,
    },
    /// No such token.
    #[error("token {token} is not known")]
    TokenUnknown {
        /// The token.
        token: TokenId,
    },
    /// The token was withdrawn.
    #[error("token {token} is revoked")]
    TokenRevoked {
        /// The token.
        token: TokenId,
    },
    /// The token has admitted as many nodes as it may.
    #[error("token {token} is used up")]
    TokenUsedUp {
        /// The token.
        token: TokenId,
    },
    /// The node's key was removed, which is for ever.
    #[error("node {node} is removed, and its key with it")]
    NodeRemoved {
        /// The node.
        node: NodeId,
    },
    /// The node is a member already.
    #[error("node {node} is a member")]
    NodeIsMember {
        /// The node.
        node: NodeId,
    },
    /// The node was never admitted.
    #[error("node {node} is not known")]
    NodeUnknown {
        /// The node.
        node: NodeId,
    },
    /// What it takes back is not in its past.
    #[error("event {event}, which it takes back, is not in its past")]
    UndoesUnknown {
        /// The event that `undoes` names.
        event: EventId,
    },
    /// The name is taken.
    #[error("deployment `{name}` exists, as {incarnation}")]
    NameTaken {
        /// The name.
        name: Name,
        /// An incarnation that lives; of several the one that wins there.
        incarnation: EventId,
    },
    /// No such incarnation of that name.
    #[error("deployment `{name}` has no incarnation {incarnation}")]
    IncarnationUnknown {
        /// The name.
        name: Name,
        /// The incarnation.
        incarnation: EventId,
    },
    /// The incarnation was deleted, which is for ever.
    #[error("deployment `{name}` {incarnation} is deleted")]
    IncarnationDeleted {
        /// The name.
        name: Name,
        /// The incarnation.
        incarnation: EventId,
    },
    /// Too many deployments.
    #[error("the namespace would have {live} deployments, the limit is {DEPLOYMENTS_PER_NAMESPACE_MAX}")]
    NamespaceFull {
        /// How many would live.
        live: usize,
    },
    /// Too much history: the document needs an epoch.
    #[error("the document has no op numbers left")]
    DocumentFull,
}
