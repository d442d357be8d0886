//! What a user would notice, kept for a while in memory.

use std::collections::VecDeque;
use std::sync::Mutex;

use api::shapes::NoticeRow;
use node::Notice;
use tokio::sync::watch;

/// Notices kept: some hours of a busy node, a few hundred kilobytes.
const NOTICES_MAX: usize = 2_048;

/// The last notices of this node.
#[derive(Debug)]
pub(crate) struct Notices {
    node: String,
    rows: Mutex<VecDeque<NoticeRow>>,
    last: watch::Sender<u64>,
}

impl Notices {
    pub(crate) fn new(node: String) -> Self {
        Self { node, rows: Mutex::new(VecDeque::new()), last: watch::Sender::new(0) }
    }

    pub(crate) fn add(&self, time_ms: i64, notice: &Notice) {
        tracing::info!(kind = notice.kind, about = notice.about.as_deref(), "{}", notice.message);
        let mut rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seq = *self.last.borrow() + 1;
        rows.push_back(NoticeRow {
            seq,
            time_ms,
            node: self.node.clone(),
            kind: notice.kind.to_owned(),
            about: notice.about.clone(),
            message: notice.message.clone(),
        });
        while rows.len() > NOTICES_MAX {
            rows.pop_front();
        }
        drop(rows);
        self.last.send_replace(seq);
    }

    /// Those after `seq`, oldest first.
    pub(crate) fn after(&self, seq: u64) -> Vec<NoticeRow> {
        let rows = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rows.iter().filter(|row| row.seq > seq).cloned().collect()
    }

    /// Changes whenever there is another.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}
