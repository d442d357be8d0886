//! Waiting on observed conditions.

use std::time::{Duration, Instant};

/// How often a condition is looked at: well below what a person or a promise in milliseconds sees.
const POLL: Duration = Duration::from_millis(20);

/// A condition that did not come about in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{seen} (waited {seconds:.1} s)", seconds = waited.as_secs_f32())]
pub struct TooLate {
    /// What was seen instead, at the last look.
    pub seen: String,
    /// How long it was waited for.
    pub waited: Duration,
}

/// Looks until there is something, and says how long that took. `look` says what it sees instead.
pub fn until<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<(T, Duration), TooLate> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok((found, started.elapsed())),
            Err(seen) if started.elapsed() >= limit => {
                return Err(TooLate { seen, waited: started.elapsed() });
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Looks again and again for the whole of `span`: `look` must succeed every time.
pub fn throughout(span: Duration, mut look: impl FnMut() -> Result<(), String>) -> Result<(), TooLate> {
    let started = Instant::now();
    loop {
        look().map_err(|seen| TooLate { seen, waited: started.elapsed() })?;
        if started.elapsed() >= span {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_about_is_given_and_what_does_not_is_told_with_the_last_sight() {
        let mut looks = 0;
        let (found, _) = until(Duration::from_secs(60), || {
            looks += 1;
            if looks == 3 { Ok("three") } else { Err(String::new()) }
        })
        .unwrap();
        assert_eq!(found, "three");
        let late = until(Duration::ZERO, || Err::<(), _>("nothing there".to_owned())).unwrap_err();
        assert_eq!(late.seen, "nothing there");
    }
}
