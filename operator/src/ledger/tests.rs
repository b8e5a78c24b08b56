//! Claims about the ledger: its arithmetic, and that it survives a restart.

use super::{Amount, Day, Entry, Ledger, Origin, date_of};
use crate::store::{S3Options, Store};
use k8s_openapi::jiff::Timestamp;
use rstest::rstest;
use sopwith_crds::{Money, status::Usage};
use tempfile::TempDir;

const MONDAY: &str = "2026-03-02T23:59:50Z";
const TUESDAY: &str = "2026-03-03T00:00:10Z";
const WEDNESDAY: &str = "2026-03-04T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn origin(launch: u32) -> Origin {
    Origin {
        run_uid: "run-1".into(),
        launch,
        pod_uid: "pod-1".into(),
    }
}

fn amount(tokens: u64) -> Amount {
    Amount {
        tokens,
        cost: Money::from_nanos(tokens * 10),
    }
}

fn usage(tokens: u64) -> Usage {
    Usage {
        total_tokens: tokens,
        cost: Money::from_nanos(tokens * 10),
        ..Usage::default()
    }
}

#[rstest]
#[case::first(None, 0, 100, Some((0, 100)))]
#[case::first_of_a_later_day(None, 70, 100, Some((70, 100)))]
#[case::first_of_a_later_day_without_news(None, 100, 100, Some((100, 100)))]
#[case::first_with_less_than_before(None, 100, 40, Some((100, 100)))]
#[case::more(Some((0, 100)), 0, 130, Some((0, 130)))]
#[case::sent_again(Some((0, 100)), 0, 100, None)]
#[case::late(Some((0, 100)), 0, 60, None)]
#[case::base_counts_once(Some((70, 100)), 100, 130, Some((70, 130)))]
fn a_booking_is_what_a_launch_used_since_its_start(
    #[case] known: Option<(u64, u64)>,
    #[case] base: u64,
    #[case] used: u64,
    #[case] expected: Option<(u64, u64)>,
) {
    let entry = |(base, total)| Entry {
        origin: origin(1),
        base: amount(base),
        total: amount(total),
    };
    let day = Day::new(date_of(at(MONDAY)), known.map(entry));
    assert_eq!(
        day.booking(&origin(1), amount(base), amount(used)),
        expected.map(entry)
    );
}

fn store() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    (
        Store::open(url.as_str(), &S3Options::default()).unwrap(),
        folder,
    )
}

async fn book(ledger: &Ledger, launch: u32, tokens: u64, now: &str) {
    ledger
        .book(
            "demo",
            "default",
            &origin(launch),
            &usage(tokens),
            Amount::default(),
            at(now),
        )
        .await
        .unwrap();
}

fn tokens(ledger: &Ledger, now: &str) -> u64 {
    let today = ledger.today("demo", "default", at(now));
    assert_eq!(today.cost, Money::from_nanos(today.tokens * 10));
    today.tokens
}

#[tokio::test]
async fn a_day_adds_up_over_launches_and_counts_nothing_twice() {
    let (store, _folder) = store();
    let ledger = Ledger::open(store, at(MONDAY)).await.unwrap();
    for used in [10, 30, 30, 20] {
        book(&ledger, 1, used, MONDAY).await;
    }
    book(&ledger, 2, 5, MONDAY).await;
    assert_eq!(tokens(&ledger, MONDAY), 35);
    assert_eq!(ledger.today("demo", "other", at(MONDAY)).tokens, 0);
    assert_eq!(
        ledger.today("demo", "default", at(MONDAY)).date,
        "2026-03-02"
    );
}

#[tokio::test]
async fn midnight_begins_at_nothing_and_keeps_what_was_used_before_out() {
    let (store, _folder) = store();
    let ledger = Ledger::open(store, at(MONDAY)).await.unwrap();
    book(&ledger, 1, 30, MONDAY).await;
    assert_eq!(tokens(&ledger, TUESDAY), 0);
    book(&ledger, 1, 42, TUESDAY).await;
    assert_eq!(tokens(&ledger, TUESDAY), 12);
    book(&ledger, 1, 50, TUESDAY).await;
    assert_eq!(tokens(&ledger, TUESDAY), 20);
}

#[tokio::test]
async fn a_restart_loses_and_doubles_nothing() {
    let (store, _folder) = store();
    let first = Ledger::open(store.clone(), at(MONDAY)).await.unwrap();
    book(&first, 1, 30, MONDAY).await;
    drop(first);

    let second = Ledger::open(store.clone(), at(MONDAY)).await.unwrap();
    assert_eq!(tokens(&second, MONDAY), 30);
    book(&second, 1, 30, MONDAY).await;
    assert_eq!(tokens(&second, MONDAY), 30);
    drop(second);

    // Over midnight: what was booked yesterday is the base, even where the batches tell nothing.
    let third = Ledger::open(store, at(TUESDAY)).await.unwrap();
    assert_eq!(tokens(&third, TUESDAY), 0);
    book(&third, 1, 33, TUESDAY).await;
    assert_eq!(tokens(&third, TUESDAY), 3);
}

#[tokio::test]
async fn after_a_silent_day_the_batches_tell_the_base() {
    let (store, _folder) = store();
    let ledger = Ledger::open(store, at(MONDAY)).await.unwrap();
    book(&ledger, 1, 30, MONDAY).await;
    ledger
        .book(
            "demo",
            "default",
            &origin(1),
            &usage(33),
            amount(30),
            at(WEDNESDAY),
        )
        .await
        .unwrap();
    assert_eq!(tokens(&ledger, WEDNESDAY), 3);
}

#[tokio::test]
async fn what_a_leader_of_yesterday_writes_late_takes_nothing_away() {
    let store = Store::in_memory();
    let old = Ledger::open(store.clone(), at(MONDAY)).await.unwrap();
    book(&old, 1, 30, MONDAY).await;
    let new = Ledger::open(store.clone(), at(MONDAY)).await.unwrap();
    book(&new, 1, 50, MONDAY).await;
    // Both write the entry that the other does not know yet.
    book(&new, 2, 7, MONDAY).await;
    book(&old, 2, 5, MONDAY).await;
    book(&old, 1, 40, MONDAY).await;
    assert_eq!(tokens(&old, MONDAY), 57);
    let later = Ledger::open(store.clone(), at(MONDAY)).await.unwrap();
    assert_eq!(tokens(&later, MONDAY), 57);
    // And the other way round: what the old one knew more of is not lost to the new one.
    book(&old, 1, 60, MONDAY).await;
    book(&new, 1, 55, MONDAY).await;
    assert_eq!(tokens(&new, MONDAY), 67);
}
