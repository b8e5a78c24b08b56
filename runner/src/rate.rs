//! How often something may be done: a bucket of turns that fills up with time.
//!
//! It is the generic cell rate algorithm (ITU-T I.371): one time instead of a count, so nothing has to run meanwhile. A
//! library would bring a dozen crates for it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sopwith_crds::tool_policy::RateLimit;
use tokio::time::Instant;

/// Turns that fill up with time. Pure.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// From one turn to the next.
    every: Duration,
    /// How far turns may be taken ahead of their time.
    ahead: Duration,
    /// When the next turn would be due if turns came evenly.
    due: Instant,
}

impl Bucket {
    fn new(limit: &RateLimit, now: Instant) -> Self {
        let every = Duration::from_secs(60) / limit.per_minute.max(1);
        let burst = limit.burst.unwrap_or(limit.per_minute).max(1);
        Self {
            every,
            ahead: every * (burst - 1),
            due: now,
        }
    }

    /// Takes a turn, or says how long it is until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let due = self.due.max(now);
        let wait = due.duration_since(now).saturating_sub(self.ahead);
        if wait.is_zero() {
            self.due = due + self.every;
            return Ok(());
        }
        Err(wait)
    }
}

/// A rate limit, where there is one.
#[derive(Debug, Default)]
pub(crate) struct Rate(Option<Mutex<Bucket>>);

impl Rate {
    pub(crate) fn new(limit: Option<&RateLimit>) -> Self {
        Self(limit.map(|limit| Mutex::new(Bucket::new(limit, Instant::now()))))
    }

    /// Waits for a turn, at most this long; an error is how long it would still take.
    pub(crate) async fn turn(&self, patience: Duration) -> Result<(), Duration> {
        let Some(bucket) = &self.0 else {
            return Ok(());
        };
        let until = Instant::now() + patience;
        loop {
            let now = Instant::now();
            let taken = bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(now);
            match taken {
                Ok(()) => return Ok(()),
                Err(wait) if now + wait > until => return Err(wait),
                // Somebody else may be quicker then.
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second at which a turn is wanted, and the seconds it is still to be waited.
    type Wanted = (u64, Option<u64>);

    fn limit(per_minute: u32, burst: Option<u32>) -> RateLimit {
        RateLimit { per_minute, burst }
    }

    #[test]
    fn turns_fill_up_with_time_to_a_burst() {
        let table: [(RateLimit, &[Wanted]); 3] = [
            (
                limit(60, Some(1)),
                &[
                    (0, None),
                    (0, Some(1)),
                    (1, None),
                    (1, Some(1)),
                    (100, None),
                    (100, Some(1)),
                ],
            ),
            (
                limit(6, Some(2)),
                &[
                    (0, None),
                    (0, None),
                    (0, Some(10)),
                    (4, Some(6)),
                    (10, None),
                    (10, Some(10)),
                    (60, None),
                    (60, None),
                    (60, Some(10)),
                ],
            ),
            (
                limit(2, None),
                &[
                    (0, None),
                    (0, None),
                    (0, Some(30)),
                    (30, None),
                    (31, Some(29)),
                ],
            ),
        ];
        for (limit, wanted) in table {
            let start = Instant::now();
            let mut bucket = Bucket::new(&limit, start);
            for (index, (at, wait)) in wanted.iter().enumerate() {
                let taken = bucket.take(start + Duration::from_secs(*at));
                assert_eq!(
                    taken.err(),
                    wait.map(Duration::from_secs),
                    "{limit:?} {index}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_within_patience() {
        let rate = Rate::new(Some(&limit(60, Some(1))));
        let begun = Instant::now();
        for _ in 0..3 {
            rate.turn(Duration::from_secs(5)).await.unwrap();
        }
        assert_eq!(begun.elapsed().as_secs(), 2);
        let refused = rate.turn(Duration::from_millis(500)).await.unwrap_err();
        assert!(refused > Duration::from_millis(900), "{refused:?}");
        assert_eq!(
            begun.elapsed().as_secs(),
            2,
            "what takes too long is not waited for"
        );
        Rate::new(None).turn(Duration::ZERO).await.unwrap();
    }
}
