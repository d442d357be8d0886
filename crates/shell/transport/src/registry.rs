//! Which connection to which node counts: the rules that both ends follow to keep one and the same.
//!
//! Both ends may call at once. The smaller node's call is kept, and the two react differently:
//!
//! - the larger node accepts the smaller one's call at once and drops its own;
//! - the smaller node holds the larger one's call until its own call has ended, and accepts it when
//!   its own failed (the way may be open in one direction only).
//!
//! So the larger never waits for the smaller and there is no circle. Each end says in its greeting
//! which of its calls the other can count as past; a held-up call that arrives after that is told
//! from a new one, which means that the caller has lost the connection and replaces it.
//!
//! Invariants: a slot with a live link has no dial; a dial that leaves its slot is answered by
//! whoever took it out. What is told of one node is told in the order in which it was decided here:
//! each call and each link has a [`Turn`]. Everything here is short work under one lock; nothing
//! waits.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::NodeId;
use quinn::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::close::Close;
use crate::frame::Greeting;
use crate::limits::{FRAMES_QUEUED_MAX, OUTBOX_BYTES_MAX, PATIENT_EVERY};

/// One frame on its way out, and the room that it takes in the queue.
pub(crate) struct Queued {
    pub(crate) frame: Bytes,
    pub(crate) _room: OwnedSemaphorePermit,
}

/// One connection of the mesh that counts.
pub(crate) struct Link {
    id: u64,
    pub(crate) connection: Connection,
    pub(crate) outbox: mpsc::Sender<Queued>,
    pub(crate) room: Arc<Semaphore>,
    /// Why this end closed it, when it did.
    ended: OnceLock<String>,
}

impl Link {
    /// Closes the connection; the first reason given is the one that is told.
    pub(crate) fn end(&self, close: Close, detail: Option<String>) {
        let text = detail.unwrap_or_else(|| close.text().to_owned());
        let text = self.ended.get_or_init(|| text);
        self.connection.close(close.code(), text.as_bytes());
    }

    pub(crate) fn ended_here(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// A place in the order of what is told of one node.
pub(crate) struct Turn {
    before: Option<CancellationToken>,
    done: DropGuard,
}

impl Turn {
    /// Waits until all that comes before has been told.
    pub(crate) async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            before.cancelled().await;
        }
    }

    /// Lets the next one speak.
    pub(crate) async fn pass(mut self) {
        self.come().await;
        drop(self.done);
    }
}

/// What the task of a link needs besides its streams.
pub(crate) struct Seat {
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: mpsc::Receiver<Queued>,
    /// From `Connected` to `Disconnected`.
    pub(crate) turn: Turn,
    /// Whether somebody waits for the answer to a call: this link's first event is that answer.
    pub(crate) owed: bool,
    /// What to say to the other end, when it was the caller.
    pub(crate) welcome: Greeting,
}

/// A call that has started. `told` receives when it shall be given up and answered as failed; it
/// closes when another connection answers it.
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) told: oneshot::Receiver<()>,
    /// For the answer, or passed on when there is none to give.
    pub(crate) turn: Turn,
    /// Whether this call should give its attempts more time.
    pub(crate) patient: bool,
}

/// What to do with a call that came in.
pub(crate) enum Admission {
    /// Close it with this.
    Refuse(Close),
    /// Wait for the turn of our own call, which has failed then, and answer it; when none comes,
    /// refuse.
    Hold(oneshot::Receiver<Turn>),
    /// It counts.
    Seated(Box<Seat>),
}

struct Dial {
    id: u64,
    told: oneshot::Sender<()>,
}

#[derive(Default)]
struct Slot {
    link: Option<Arc<Link>>,
    dial: Option<Dial>,
    held: Option<oneshot::Sender<Turn>>,
    /// The other end's calls up to this one are past.
    past: Option<Greeting>,
    /// The last turn that was given out.
    last: Option<CancellationToken>,
    /// Calls that failed since the last connection.
    failed: u32,
    /// The node was removed: the slot goes when its link has gone.
    forget: bool,
}

impl Slot {
    fn live(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| link.is_live())
    }

    fn next_turn(&mut self) -> Turn {
        let done = CancellationToken::new();
        let before = self.last.replace(done.clone());
        Turn { before, done: done.drop_guard() }
    }

    fn is_held(&self) -> bool {
        self.held.as_ref().is_some_and(|go| !go.is_closed())
    }
}

pub(crate) struct Registry {
    me: NodeId,
    instance: u64,
    calls: u64,
    ids: u64,
    nodes_max: usize,
    stopping: bool,
    slots: BTreeMap<NodeId, Slot>,
}

impl Registry {
    pub(crate) fn new(me: NodeId, instance: u64, nodes_max: usize) -> Self {
        Self { me, instance, calls: 0, ids: 0, nodes_max, stopping: false, slots: BTreeMap::new() }
    }

    pub(crate) fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        self.slots.get(node)?.live().cloned()
    }

    pub(crate) fn links(&self) -> Vec<(NodeId, Arc<Link>)> {
        self.slots.iter().filter_map(|(node, slot)| Some((*node, Arc::clone(slot.live()?)))).collect()
    }

    /// Starts a call, unless one is under way or not needed.
    pub(crate) fn start_dial(&mut self, node: NodeId) -> Option<Ticket> {
        if self.stopping {
            return None;
        }
        let slot = self.slots.entry(node).or_default();
        if slot.live().is_some() || slot.dial.is_some() {
            return None;
        }
        self.ids += 1;
        let (stop, told) = oneshot::channel();
        slot.forget = false;
        slot.dial = Some(Dial { id: self.ids, told: stop });
        let patient = slot.failed % PATIENT_EVERY == PATIENT_EVERY - 1;
        Some(Ticket { id: self.ids, told, turn: slot.next_turn(), patient })
    }

    /// The greeting for the next attempt of a call. `None` when the call should end: it does not
    /// count any more, or the other end's own call waits for it.
    pub(crate) fn next_call(&mut self, node: &NodeId, dial: u64, first: bool) -> Option<Greeting> {
        let slot = self.slots.get(node)?;
        let current = slot.dial.as_ref().is_some_and(|current| current.id == dial);
        if !current || (!first && slot.is_held()) {
            return None;
        }
        self.calls += 1;
        Some(Greeting { instance: self.instance, call: self.calls })
    }

    /// A call came to nothing. Gives the turn back with `true` when this has to be told, with
    /// `false` when somebody else answers the call, and keeps it when the other end's call, which
    /// waited, is the answer now.
    pub(crate) fn dial_failed(&mut self, node: &NodeId, dial: u64, turn: Turn) -> Option<(Turn, bool)> {
        let slot = self.slots.get_mut(node);
        let Some(slot) = slot.filter(|slot| slot.dial.as_ref().is_some_and(|current| current.id == dial))
        else {
            return Some((turn, false));
        };
        slot.dial = None;
        slot.failed = slot.failed.saturating_add(1);
        match slot.held.take() {
            Some(go) => go.send(turn).err().map(|turn| (turn, true)),
            None => Some((turn, true)),
        }
    }

    /// A call was welcomed. `None` when it does not count any more.
    pub(crate) fn dial_welcomed(
        &mut self,
        node: &NodeId,
        dial: u64,
        connection: &Connection,
        welcome: Greeting,
    ) -> Option<Seat> {
        let slot = self.slots.get(node)?;
        if self.stopping || slot.dial.as_ref().is_none_or(|current| current.id != dial) {
            return None;
        }
        Some(self.seat(*node, connection, welcome, true))
    }

    /// A call came in from `node`, which has proven its key. `waited` when it was held long enough;
    /// `owed` when it inherits the duty to answer a call of ours.
    pub(crate) fn admit(
        &mut self,
        node: NodeId,
        connection: &Connection,
        greeting: Greeting,
        waited: bool,
        owed: bool,
    ) -> Admission {
        if self.stopping {
            return Admission::Refuse(Close::Stopping);
        }
        let links = self.slots.values().filter(|slot| slot.link.is_some()).count();
        let slot = self.slots.entry(node).or_default();
        let is_past = |past: Greeting| past.instance == greeting.instance && greeting.call <= past.call;
        if slot.past.is_some_and(is_past) {
            return Admission::Refuse(Close::Superseded);
        }
        if let Some(link) = slot.live() {
            // It calls anew, so it has no connection: it lost this one, or it was restarted.
            link.end(Close::Superseded, None);
        } else if slot.dial.is_some() && self.me < node && !waited {
            let (go, wait) = oneshot::channel();
            slot.held = Some(go);
            return Admission::Hold(wait);
        } else if slot.link.is_none() && links >= self.nodes_max {
            return Admission::Refuse(Close::Busy);
        }
        Admission::Seated(Box::new(self.seat(node, connection, greeting, owed)))
    }

    fn seat(&mut self, node: NodeId, connection: &Connection, past: Greeting, owed: bool) -> Seat {
        self.ids += 1;
        let (outbox, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
        let link = Arc::new(Link {
            id: self.ids,
            connection: connection.clone(),
            outbox,
            room: Arc::new(Semaphore::new(OUTBOX_BYTES_MAX)),
            ended: OnceLock::new(),
        });
        let slot = self.slots.entry(node).or_default();
        slot.link = Some(Arc::clone(&link));
        slot.past = Some(past);
        slot.failed = 0;
        slot.forget = false;
        slot.held = None;
        // Dropping the dial's sender tells its task that it is answered.
        let owed = slot.dial.take().is_some() || owed;
        let turn = slot.next_turn();
        // Read after the dial was taken: every call up to here is past for the other end.
        let welcome = Greeting { instance: self.instance, call: self.calls };
        Seat { link, outbox: queue, turn, owed, welcome }
    }

    /// The link's task has ended.
    pub(crate) fn vacate(&mut self, node: &NodeId, link: &Link) {
        let Some(slot) = self.slots.get_mut(node) else { return };
        if slot.link.as_ref().is_some_and(|current| current.id == link.id) {
            slot.link = None;
        }
    }

    /// Forgets a node that is to be forgotten, once all of it has been told.
    pub(crate) fn sweep(&mut self, node: &NodeId) {
        let told = |slot: &Slot| slot.last.as_ref().is_none_or(CancellationToken::is_cancelled);
        let idle = |slot: &Slot| slot.link.is_none() && slot.dial.is_none() && told(slot);
        if self.slots.get(node).is_some_and(|slot| slot.forget && idle(slot)) {
            self.slots.remove(node);
        }
    }

    /// Ends whatever there is with `node`. With `forget`, nothing of it is remembered after.
    pub(crate) fn disconnect(&mut self, node: &NodeId, close: Close, forget: bool) {
        let Some(slot) = self.slots.get_mut(node) else { return };
        slot.held = None;
        if slot.dial.take().is_some_and(|dial| dial.told.send(()).is_err()) {
            tracing::trace!(?node, "the call has just ended by itself");
        }
        slot.forget = forget;
        if let Some(link) = &slot.link {
            link.end(close, None);
        }
        self.sweep(node);
    }

    /// Ends everything, for good.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        let nodes: Vec<NodeId> = self.slots.keys().copied().collect();
        for node in nodes {
            self.disconnect(&node, Close::Stopping, true);
        }
    }
}
