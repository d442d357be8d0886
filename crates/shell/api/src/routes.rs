//! Every path, in one list.
//!
//! | method and path | query | body | answer |
//! |---|---|---|---|
//! | GET /v1/status | | | `Status` |
//! | GET /v1/nodes | | | `[NodeRow]` |
//! | GET /v1/ps | | | `[PsRow]` |
//! | GET /v1/deployments | `namespace` | | `[DeploymentRow]` |
//! | GET /v1/authoring | `doc` | | `Authoring` |
//! | POST /v1/events | `durable` (peers to wait for) | one signed event's bytes | `Submitted` |
//! | GET /v1/history | `namespace`, `deployment` | | `[HistoryRow]` |
//! | GET /v1/conflicts | | | `[ConflictRow]` |
//! | GET /v1/notices | `after`, `follow` | | lines of `NoticeRow` |
//! | GET /v1/explain | `namespace`, `deployment` | | `Explain` |
//! | GET /v1/tokens, /v1/users | | | `[TokenRow]`, `[UserRow]` |
//! | GET /v1/images | | | `[ImageRow]` |
//! | POST /v1/images | `name` | an archive | `[ImageRow]` |
//! | POST /v1/images/binary | `name`, `file` | an executable | `[ImageRow]` |
//! | GET /v1/blobs/DIGEST | | | bytes |
//! | GET /v1/logs | `namespace`, `deployment`, `ordinal`, `tail`, `follow` | | lines of `LogLine` |
//! | GET /v1/container-logs/ID | `tail`, `follow` | | lines of `LogLine`, of this node |
//! | POST /v1/exec | | `ExecAsk`, then an upgrade to `skerry-exec` | frames |

/// Status of the answering peer.
pub const STATUS: &str = "/v1/status";
/// Nodes.
pub const NODES: &str = "/v1/nodes";
/// Containers and replicas.
pub const PS: &str = "/v1/ps";
/// Deployments.
pub const DEPLOYMENTS: &str = "/v1/deployments";
/// What an author needs to know.
pub const AUTHORING: &str = "/v1/authoring";
/// Submitting.
pub const EVENTS: &str = "/v1/events";
/// Past changes.
pub const HISTORY: &str = "/v1/history";
/// Conflicts.
pub const CONFLICTS: &str = "/v1/conflicts";
/// What happened here.
pub const NOTICES: &str = "/v1/notices";
/// Why placed so.
pub const EXPLAIN: &str = "/v1/explain";
/// Tokens.
pub const TOKENS: &str = "/v1/tokens";
/// Users.
pub const USERS: &str = "/v1/users";
/// Images.
pub const IMAGES: &str = "/v1/images";
/// An image made of one executable.
pub const IMAGES_BINARY: &str = "/v1/images/binary";
/// A blob by digest.
pub const BLOBS: &str = "/v1/blobs";
/// Logs of a deployment, merged over nodes.
pub const LOGS: &str = "/v1/logs";
/// Logs of one container of the answering node.
pub const CONTAINER_LOGS: &str = "/v1/container-logs";
/// Running a program in a container.
pub const EXEC: &str = "/v1/exec";
