//! Waiting for a letter on a thread of its own.
//!
//! A timer of the runtime would wake one of its threads first, which then wakes this one: on an idle
//! peer that is most of what it does. Here the kernel wakes the thread that has waited.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use tokio::sync::mpsc;

/// What ended the wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<T> {
    /// A letter.
    Letter(T),
    /// The time.
    Deadline,
    /// There will be no more letters.
    Closed,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the next letter, until `deadline` if there is one. A letter that is there already is
/// taken first, however late it is.
pub(crate) fn receive<T>(mailbox: &mut mpsc::Receiver<T>, deadline: Option<Instant>) -> Received<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match mailbox.poll_recv(&mut context) {
            Poll::Ready(Some(letter)) => return Received::Letter(letter),
            Poll::Ready(None) => return Received::Closed,
            Poll::Pending => {}
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => return Received::Deadline,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_letter_from_another_thread_ends_the_wait() {
        let (sender, mut mailbox) = mpsc::channel(1);
        let other = thread::spawn(move || sender.blocking_send(7).is_ok());
        assert_eq!(receive(&mut mailbox, None), Received::Letter(7));
        assert!(other.join().unwrap());
        assert_eq!(receive(&mut mailbox, None), Received::Closed);
    }

    #[test]
    fn the_deadline_ends_the_wait_and_a_letter_that_is_there_goes_first() {
        let (sender, mut mailbox) = mpsc::channel(1);
        let past = Instant::now();
        sender.try_send(1).unwrap();
        assert_eq!(receive(&mut mailbox, Some(past)), Received::Letter(1));
        assert_eq!(receive(&mut mailbox, Some(past)), Received::Deadline);
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(receive(&mut mailbox, Some(soon)), Received::Deadline);
        assert!(Instant::now() >= soon);
    }
}
