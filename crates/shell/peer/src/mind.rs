//! The thread that owns the core's state machine, and the door to it.
//!
//! Everything that happens becomes an `Input` in one bounded mailbox; every effect is handed to the
//! piece of the shell that can carry it out, without waiting for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use model::{NodeId, Time, UserId};
use node::{CommandId, Effect, Input, Node, Outcome, Seq};
use tokio::sync::{mpsc, oneshot};
use transport::{Endpoint, SendError};

use crate::containers::Keeper;
use crate::images::Fetcher;
use crate::leases::Letter;
use crate::notices::Notices;
use crate::park::{self, Received};

/// Letters that wait: a burst of all links at once; senders wait when it is full.
const MAILBOX_MAX: usize = 4_096;

/// Letters read before the clock is looked at again.
const BATCH_MAX: usize = 256;

/// A turn of the loop that takes longer is told: the peer answers nobody meanwhile.
const SLOW_TURN: Duration = Duration::from_millis(100);

type Query = Box<dyn FnOnce(&Node) + Send>;

enum Mail {
    Input(Input),
    Submit { event: Vec<u8>, durable: u32, answer: oneshot::Sender<Outcome> },
    Query(Query),
    Stop,
}

/// The peer is ending; there is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("the peer is stopping")]
pub(crate) struct Stopping;

/// The door to the mind's thread.
#[derive(Clone)]
pub(crate) struct Mind {
    mailbox: mpsc::Sender<Mail>,
}

impl Mind {
    /// Reports what happened.
    pub(crate) async fn input(&self, input: Input) {
        // A peer that is ending needs no news.
        drop(self.mailbox.send(Mail::Input(input)).await);
    }

    /// The same from a thread.
    pub(crate) fn input_blocking(&self, input: Input) {
        drop(self.mailbox.blocking_send(Mail::Input(input)));
    }

    /// Hands in an event.
    pub(crate) async fn submit(&self, event: Vec<u8>, durable: u32) -> Result<Outcome, Stopping> {
        let (answer, outcome) = oneshot::channel();
        self.mailbox.send(Mail::Submit { event, durable, answer }).await.map_err(|_| Stopping)?;
        outcome.await.map_err(|_| Stopping)
    }

    /// Reads something of the node's state.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let (answer, got) = oneshot::channel();
        let query: Query = Box::new(move |node| drop(answer.send(question(node))));
        self.mailbox.send(Mail::Query(query)).await.map_err(|_| Stopping)?;
        got.await.map_err(|_| Stopping)
    }

    /// Ends the thread after what is in the mailbox.
    pub(crate) async fn stop(&self) {
        drop(self.mailbox.send(Mail::Stop).await);
    }
}

/// Who may speak to this peer, and who might once.
#[derive(Debug, Default)]
struct Keys {
    nodes: BTreeSet<NodeId>,
    users: BTreeSet<UserId>,
    former: BTreeSet<NodeId>,
}

/// Who may speak to this peer; read at every handshake.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    inner: RwLock<Keys>,
}

impl Roster {
    fn set(&self, keys: Keys) {
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
    }

    fn read<T>(&self, with: impl FnOnce(&Keys) -> T) -> T {
        with(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl transport::Gate for Roster {
    fn node_allowed(&self, node: &NodeId) -> bool {
        self.read(|keys| keys.nodes.contains(node))
    }

    fn node_former(&self, node: &NodeId) -> bool {
        self.read(|keys| keys.former.contains(node))
    }

    fn user_allowed(&self, user: &UserId) -> bool {
        self.read(|keys| keys.users.contains(user))
    }

    fn joining_allowed(&self) -> bool {
        true
    }
}

/// Events for the journal, and the number under which it answers.
pub(crate) type Batch = (Seq, Vec<Vec<u8>>);

/// What the mind acts through.
pub(crate) struct Hands {
    pub(crate) endpoint: Endpoint,
    pub(crate) journal: std::sync::mpsc::Sender<Batch>,
    pub(crate) leases: std::sync::mpsc::Sender<Letter>,
    pub(crate) keeper: Keeper,
    pub(crate) fetcher: Fetcher,
    pub(crate) notices: Arc<Notices>,
    pub(crate) roster: Arc<Roster>,
}

/// A mailbox before its thread runs: others need the door first.
pub(crate) struct Letterbox {
    receiver: mpsc::Receiver<Mail>,
}

/// Makes the door.
pub(crate) fn door() -> (Mind, Letterbox) {
    let (mailbox, receiver) = mpsc::channel(MAILBOX_MAX);
    (Mind { mailbox }, Letterbox { receiver })
}

struct Thread {
    node: Node,
    hands: Hands,
    /// Nanoseconds of `runtime::boot_now_ns`: the time of the core runs on while the machine sleeps, since others
    /// count on it that a lease has ended.
    started_boot_ns: u64,
    wake: Option<Time>,
    commands: u64,
    clients: BTreeMap<CommandId, oneshot::Sender<Outcome>>,
    nodes: BTreeSet<NodeId>,
}

impl Letterbox {
    /// Starts the thread. `started_boot_ns` is the moment that the node's time counts from.
    pub(crate) fn run(
        self,
        node: Node,
        hands: Hands,
        started_boot_ns: u64,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let thread = Thread {
            node,
            hands,
            started_boot_ns,
            wake: Some(Time::ZERO),
            commands: 0,
            clients: BTreeMap::new(),
            nodes: BTreeSet::new(),
        };
        std::thread::Builder::new().name("mind".to_owned()).spawn(move || {
            // Some of what the mind acts through starts tasks.
            let _entered = runtime.enter();
            thread.turn(self.receiver);
        })
    }
}

impl Thread {
    fn turn(mut self, mut mailbox: mpsc::Receiver<Mail>) {
        loop {
            let deadline = self.wake.map(|wake| Instant::now() + wake.since(self.now()));
            let mut mail = match park::receive(&mut mailbox, deadline) {
                Received::Letter(mail) => mail,
                Received::Deadline => Mail::Input(Input::Woken),
                Received::Closed => return,
            };
            let began = Instant::now();
            for _ in 0..BATCH_MAX {
                if matches!(mail, Mail::Stop) {
                    return;
                }
                self.read(mail);
                match mailbox.try_recv() {
                    Ok(next) => mail = next,
                    Err(_) => break,
                }
            }
            let took = began.elapsed();
            if took > SLOW_TURN {
                tracing::warn!(?took, "the peer was busy with itself");
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(runtime::boot_now_ns().saturating_sub(self.started_boot_ns))
    }

    fn boot_ns(&self, at: Time) -> u64 {
        self.started_boot_ns.saturating_add(at.as_nanos())
    }

    fn read(&mut self, mail: Mail) {
        match mail {
            Mail::Input(input) => self.handle(input),
            Mail::Submit { event, durable, answer } => {
                self.commands += 1;
                let command = CommandId(self.commands);
                self.clients.insert(command, answer);
                self.handle(Input::Submit { command, event, durable });
            }
            Mail::Query(query) => query(&self.node),
            Mail::Stop => {}
        }
    }

    fn handle(&mut self, input: Input) {
        tracing::trace!(?input, "input");
        self.wake = None;
        let effects = self.node.handle(self.now(), wall_ms(), input);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { seq, records } => {
                // The journal's thread lives as long as this one; when it is gone, so is the peer.
                drop(self.hands.journal.send((seq, records)));
            }
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Datagram { to, bytes } => {
                if let Err(error) = self.hands.endpoint.datagram(to, Bytes::from(bytes)) {
                    tracing::trace!(%error, "datagram not sent");
                }
            }
            Effect::Connect { node, addresses } => self.hands.endpoint.connect(node, addresses),
            Effect::Disconnect(node) => self.hands.endpoint.disconnect(node),
            Effect::Farewell { to, events } => self.farewell(to, events),
            Effect::Start { container, claim, until } => {
                self.hands.keeper.start(container, claim, until.map(|at| self.boot_ns(at)));
            }
            Effect::ExtendLease { container, until } => {
                self.hands.keeper.extend(container, self.boot_ns(until));
            }
            // The thread lives as long as this one, as the journal's does.
            Effect::KeepLease(grant) => drop(self.hands.leases.send(Letter::Keep(grant))),
            Effect::ForgetLeases(replicas) => drop(self.hands.leases.send(Letter::Forget(replicas))),
            Effect::Stop(container) => self.hands.keeper.stop(container),
            Effect::Remove(container) => self.hands.keeper.remove(container),
            Effect::Fetch { digest, reference, from } => self.hands.fetcher.fetch(digest, reference, from),
            Effect::Reply { command, outcome } => {
                if let Some(answer) = self.clients.remove(&command) {
                    // A client that went away needs no answer.
                    drop(answer.send(outcome));
                }
            }
            Effect::Notice(notice) => self.hands.notices.add(wall_ms(), &notice),
            Effect::Roster { nodes, users, former } => {
                self.hands.roster.set(Keys { nodes: nodes.clone(), users, former });
                for gone in self.nodes.difference(&nodes) {
                    self.hands.endpoint.revoked(*gone);
                }
                self.nodes = nodes;
            }
            Effect::WakeAt { time, reason } => {
                tracing::trace!(?time, reason, "wake");
                self.wake = Some(time);
            }
        }
    }

    /// No events are no words: the call is closed without any.
    fn farewell(&self, to: NodeId, events: Vec<Vec<u8>>) {
        let words = if events.is_empty() {
            Ok(Vec::new())
        } else {
            wire::encode(&wire::Message::Events { events, more: false })
        };
        let words = words.unwrap_or_else(|error| {
            // The core bounds them; those that do not fit are a bug of ours.
            tracing::error!(%error, ?to, "a farewell was too large to send");
            Vec::new()
        });
        if let Err(error) = self.hands.endpoint.farewell(to, Bytes::from(words)) {
            tracing::error!(%error, ?to, "a farewell was not sent");
        }
    }

    fn send(&mut self, to: NodeId, message: &wire::Message) {
        let frame = match wire::encode(message) {
            Ok(frame) => frame,
            // The core bounds its messages; one that does not fit is a bug of ours.
            Err(error) => {
                tracing::error!(%error, ?to, "a message was too large to send");
                return;
            }
        };
        match self.hands.endpoint.send(to, Bytes::from(frame)) {
            Ok(()) => {}
            Err(error @ (SendError::Full { .. } | SendError::TooLarge { .. })) => {
                // What did not fit is gone; a fresh link begins with an exchange of positions.
                tracing::info!(%error, "link is closed to begin anew");
                self.hands.endpoint.disconnect(to);
            }
            Err(error) => tracing::trace!(%error, "not sent"),
        }
    }
}

/// Milliseconds of Unix time by this machine's clock.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
