//! How often tools may be called, over launches too, and what happens to the calls of a launch that was cut off.

use sopwith_crds::{
    contract::report::{LaunchStart, Orders, Outcome, ToolStatus, What},
    status::FailureReason,
};
use sopwith_runner::{gateway::LocalGateway, local::approved};

use crate::room::Room;

const READ: &str = "{tool_calls: [{name: read_file, arguments: {path: src/app.py}}]}";
const DONE: &str = "{content: done}";

fn limited(limits: &str) -> Room {
    Room::new().policy(
        "builtin: read_file,",
        &format!("builtin: read_file, {limits},"),
    )
}

#[tokio::test]
async fn a_run_makes_as_many_calls_as_the_policy_allows() {
    let run = limited("maxCalls: 2").fly(&[READ, READ, READ, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    let statuses: Vec<ToolStatus> = run.calls().into_iter().map(|(_, status)| status).collect();
    assert_eq!(
        statuses,
        [ToolStatus::Ok, ToolStatus::Ok, ToolStatus::Denied]
    );
    assert_eq!(
        run.told(4)[0],
        "error: the policy allows 2 calls of it in one run (maxCalls), and they have been made"
    );
}

#[tokio::test]
async fn calls_of_earlier_launches_count() {
    let room = limited("maxCalls: 1").sop(
        "writes: {artifact: summary}}}\n",
        "writes: {artifact: summary}}, gates: [{name: ok, kind: approval}]}\n    - {name: again, tool: {name: read_file, arguments: {path: src/app.py}}}\n",
    );
    let gateway = LocalGateway::default();
    let first = room.fly_on(&[READ, DONE], gateway.clone()).await;
    assert_eq!(first.flown.end.outcome, Outcome::Waiting);
    gateway.next_launch(approved(&first.flown, "me").unwrap());
    let second = room.fly_on(&[], gateway).await;
    let (reason, message) = second.failure();
    assert_eq!(reason, FailureReason::PolicyDenied);
    assert!(
        message.contains("the policy allows 1 calls of it in one run (maxCalls)"),
        "{message}"
    );
}

#[tokio::test]
async fn calls_that_a_killed_launch_reported_count() {
    let gateway = LocalGateway::default();
    gateway.next_launch(LaunchStart {
        tool_calls: [("read_file".to_owned(), 2)].into(),
        ..LaunchStart::default()
    });
    let run = limited("maxCalls: 2").fly_on(&[READ, DONE], gateway).await;
    assert_eq!(run.calls(), [("read_file".to_owned(), ToolStatus::Denied)]);
}

#[tokio::test]
async fn a_call_that_would_wait_too_long_for_its_turn_is_refused() {
    let room = limited("timeoutSeconds: 2, rateLimit: {perMinute: 60, burst: 1}");
    let begun = std::time::Instant::now();
    let run = room.fly(&[READ, READ, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    let ok = ("read_file".to_owned(), ToolStatus::Ok);
    assert_eq!(run.calls(), [ok.clone(), ok.clone()]);
    assert!(begun.elapsed().as_millis() >= 900, "{:?}", begun.elapsed());
    let run = limited("timeoutSeconds: 2, rateLimit: {perMinute: 1}")
        .fly(&[READ, READ, DONE])
        .await;
    assert_eq!(
        run.calls(),
        [ok, ("read_file".to_owned(), ToolStatus::Denied)]
    );
    assert!(
        run.told(3)[0]
            .starts_with("error: the policy allows no more calls of it just now (rateLimit)"),
        "{}",
        run.told(3)[0]
    );
}

/// The launch is suspended while the step is at its last call: nothing of the attempt stays but what was reported.
#[tokio::test]
async fn calls_of_an_unfinished_step_are_made_again() {
    let forever = "  tools:\n  - {name: wait, description: Waits., tags: [project], command: {image: 'localhost/bench:1', argv: [sleep, '60']}}\n";
    let room = Room::new().policy("  tools:\n", forever);
    let edit =
        "{tool_calls: [{name: edit, arguments: {path: src/app.py, old: a - b, new: a + b}}]}";
    let wait = "{tool_calls: [{name: wait, arguments: {}}]}";
    let gateway = LocalGateway::default();
    let orders = gateway.clone();
    let stop = async move {
        loop {
            let edited = orders
                .events()
                .iter()
                .any(|event| matches!(&event.what, What::ToolCall { tool, .. } if tool == "edit"));
            if edited {
                return orders.order(Orders {
                    suspend: true,
                    cancel: false,
                });
            }
            tokio::task::yield_now().await;
        }
    };
    let answers = [edit, wait, DONE];
    let (first, ()) = tokio::join!(room.fly_on(&answers, gateway.clone()), stop);
    assert_eq!(first.flown.end.outcome, Outcome::Suspended);
    assert_eq!(
        first.file("src/app.py").as_deref(),
        Some("def add(a, b):\n    return a - b\n")
    );
    gateway.next_launch(LaunchStart {
        snapshot: first.flown.end.snapshot.clone(),
        ..LaunchStart::default()
    });
    let second = room.fly_on(&[edit, DONE], gateway).await;
    assert_eq!(second.flown.end.failure, None);
    assert_eq!(second.calls(), [("edit".to_owned(), ToolStatus::Ok)]);
    assert_eq!(
        second.file("src/app.py").as_deref(),
        Some("def add(a, b):\n    return a + b\n")
    );
}
