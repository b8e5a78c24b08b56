//! Who may hold the lease: pure decisions. Times are readings of the lease's clock.
//!
//! The rules are those of client-go's leader election, so the Lease reads as others do: who does not hold it takes it when
//! it has not changed for the holder's own duration, measured on the taker's clock from when that change was first seen.
//! No two clocks are ever compared.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use std::time::Duration;

/// The times that follow from how long a lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// How long others leave an unchanged lease alone.
    pub(super) lease: Duration,
}

impl Times {
    /// How long the leader believes itself after a renewal was sent. The last fifth is left for what is under way.
    pub(super) fn valid(self) -> Duration {
        self.lease * 4 / 5
    }

    /// From one renewal to the next, and the longest that one may take: three may fail in a row.
    pub(super) fn renew_every(self) -> Duration {
        self.lease / 5
    }

    /// How often a follower looks: what it sees late, it takes over late.
    pub(super) fn look_every(self) -> Duration {
        self.lease / 30
    }
}

/// The lease as a follower last saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    version: Option<String>,
    since: Duration,
}

/// What a follower does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It takes the lease.
    Take,
    /// It looks again after this time.
    Wait(Duration),
}

/// What a follower does about a lease that it reads at `now`.
pub(super) fn step(
    own: &str,
    lease: &Lease,
    seen: &mut Option<Seen>,
    times: Times,
    now: Duration,
) -> Step {
    let spec = lease.spec.clone().unwrap_or_default();
    let version = lease.metadata.resource_version.clone();
    if seen.as_ref().is_none_or(|seen| seen.version != version) {
        *seen = Some(Seen {
            version,
            since: now,
        });
    }
    let holder = spec.holder_identity.unwrap_or_default();
    // Given back, or held by the process that had this name before: one name is one process at a time.
    if holder.is_empty() || holder == own {
        return Step::Take;
    }
    let lasts = spec.lease_duration_seconds.unwrap_or_default();
    let lasts = Duration::from_secs(u64::try_from(lasts).unwrap_or_default());
    let since = seen.as_ref().map_or(now, |seen| seen.since);
    match (since + lasts).saturating_sub(now) {
        Duration::ZERO => Step::Take,
        left => Step::Wait(left.min(times.look_every())),
    }
}

/// The lease of a new term.
pub(super) fn taken(own: &str, mut lease: Lease, times: Times, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(own) {
        let before = spec.lease_transitions.unwrap_or_default();
        // The first holder of all is no transition.
        let first = spec.acquire_time.is_none();
        spec.lease_transitions = Some(if first { 0 } else { before.saturating_add(1) });
    }
    spec.holder_identity = Some(own.to_owned());
    spec.lease_duration_seconds = i32::try_from(times.lease.as_secs()).ok();
    spec.acquire_time = Some(MicroTime(now));
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// The same term, renewed.
pub(super) fn renewed(mut lease: Lease, now: Timestamp) -> Lease {
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(now));
    lease
}

/// The lease given back: whoever sees it may take it.
pub(super) fn released(mut lease: Lease, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// Whether both show one term of one holder. Others may have written labels meanwhile, or a renewal whose answer was lost.
pub(super) fn same_term(ours: &Lease, there: &Lease) -> bool {
    let term = |lease: &Lease| {
        let spec: LeaseSpec = lease.spec.clone().unwrap_or_default();
        let uid = lease.metadata.uid.clone();
        (
            uid,
            spec.holder_identity,
            spec.acquire_time.map(|time| time.0),
            spec.lease_transitions,
        )
    };
    term(ours) == term(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TIMES: Times = Times {
        lease: Duration::from_secs(15),
    };

    fn lease(holder: &str, version: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        });
        lease
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[rstest]
    #[case::given_back("", &[("1", 0)], Step::Take)]
    #[case::of_our_own_name("us", &[("1", 0)], Step::Take)]
    #[case::of_another_seen_first("them", &[("1", 0)], Step::Wait(Duration::from_millis(500)))]
    #[case::of_another_seen_long_ago("them", &[("1", 0), ("1", 14)], Step::Wait(Duration::from_millis(500)))]
    #[case::of_another_unchanged("them", &[("1", 0), ("1", 15)], Step::Take)]
    #[case::of_another_renewed_meanwhile("them", &[("1", 0), ("2", 14), ("2", 28)], Step::Wait(Duration::from_millis(500)))]
    #[case::of_another_renewed_and_then_not("them", &[("1", 0), ("2", 14), ("2", 29)], Step::Take)]
    fn a_follower_takes_what_nobody_holds(
        #[case] holder: &str,
        #[case] looks: &[(&str, u64)],
        #[case] expected: Step,
    ) {
        let mut seen = None;
        let mut last = None;
        for (version, at) in looks {
            let lease = lease(holder, version);
            last = Some(step("us", &lease, &mut seen, TIMES, seconds(*at)));
        }
        assert_eq!(last, Some(expected));
    }

    #[test]
    fn a_follower_looks_again_when_the_lease_runs_out_and_not_later() {
        let mut seen = None;
        step("us", &lease("them", "1"), &mut seen, TIMES, seconds(0));
        let now = Duration::from_millis(14_900);
        let step = step("us", &lease("them", "1"), &mut seen, TIMES, now);
        assert_eq!(step, Step::Wait(Duration::from_millis(100)));
    }

    #[rstest]
    #[case::from_another("them", Some(4))]
    #[case::from_ourselves("us", Some(3))]
    #[case::given_back("", Some(4))]
    fn a_new_term_counts_changes_of_hands(#[case] holder: &str, #[case] transitions: Option<i32>) {
        let now = "2026-01-31T00:00:00Z".parse().unwrap();
        let spec = taken("us", lease(holder, "1"), TIMES, now).spec.unwrap();
        assert_eq!(spec.lease_transitions, transitions);
        assert_eq!(spec.holder_identity.as_deref(), Some("us"));
        assert_eq!(spec.acquire_time, Some(MicroTime(now)));
        assert_eq!(spec.lease_duration_seconds, Some(15));
    }

    #[test]
    fn a_term_is_told_from_the_next_one_of_the_same_name() {
        let now = "2026-01-31T00:00:00Z".parse().unwrap();
        let ours = taken("us", lease("them", "1"), TIMES, now);
        let later = now + k8s_openapi::jiff::SignedDuration::from_secs(5);
        assert!(same_term(&ours, &renewed(ours.clone(), later)));
        assert!(!same_term(&ours, &taken("us", ours.clone(), TIMES, later)));
        assert!(!same_term(
            &ours,
            &taken("them", ours.clone(), TIMES, later)
        ));
        assert!(!same_term(&ours, &released(ours.clone(), later)));
    }

    #[test]
    fn the_leader_stops_believing_itself_before_others_may_take_over() {
        assert!(TIMES.valid() + TIMES.renew_every() <= TIMES.lease);
        assert!(TIMES.renew_every() * 3 < TIMES.valid());
    }
}
