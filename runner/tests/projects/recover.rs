//! Runs that begin from the state of another run.

use super::*;
use sopwith_crds::{
    contract::plan::Recover,
    status::{GateStatus, InheritedGates},
};

/// What a run may spend that recovers: less than the run before it did.
const LITTLE: &str = "  investment: \"0.06\"\n";

/// A run whose second check fails for good, and the digest of its snapshot after a step.
async fn failed() -> Flown {
    let one = plan(same, same, |run| run + "  rounds: 1\n");
    let (first, _) = flown(one, filling(), LocalGateway::default()).await;
    assert_eq!(failure(&first).0, FailureReason::RoundsExhausted);
    first
}

fn after(flown: &Flown, step: &str) -> Digest {
    let ends = ends(flown);
    let end = ends
        .iter()
        .rev()
        .find(|end| end.step == step && end.verdict == Verdict::Passed);
    end.unwrap().snapshot.clone()
}

/// A plan that recovers from a run after a step.
fn recovering(plan: RunPlan, from: &Flown, step: &str, gates: InheritedGates) -> RunPlan {
    let spent = from.gateway.batches().last().unwrap().usage.clone();
    RunPlan {
        recover: Some(Recover {
            run: "first".into(),
            uid: "uid-1".into(),
            step: step.into(),
            snapshot: after(from, step),
            gates,
            usage: spent,
        }),
        ..plan
    }
}

/// A run that recovers, and what it asked models.
async fn recovered(plan: RunPlan, from: &Flown) -> (Flown, Vec<String>) {
    from.gateway.next_launch(LaunchStart::default());
    let (second, replay) = flown(plan, filling(), from.gateway.clone()).await;
    let asked = replay.filled().into_keys();
    let asked = asked.map(|key| format!("{} {}", key.step, key.attempt));
    (second, asked.collect())
}

type Named<T> = Vec<(String, T)>;

/// Names of inherited steps with their gates, and those of steps that were begun.
fn told(flown: &Flown) -> (Named<Vec<GateStatus>>, Named<u32>) {
    let (mut inherited, mut begun) = (Vec::new(), Vec::new());
    for event in flown.gateway.events() {
        match event.what {
            What::StepInherited { step, gates, .. } => inherited.push((step, gates)),
            What::StepStarted { step, attempt } => begun.push((step, attempt)),
            _ => {}
        }
    }
    (inherited, begun)
}

fn begun(steps: &[(&str, u32)]) -> Named<u32> {
    let named = |(step, attempt): &(&str, u32)| ((*step).to_owned(), *attempt);
    steps.iter().map(named).collect()
}

/// The words come right at the first attempt.
fn right(sop: &str) -> String {
    sop.replace("grep, -q, right", "grep, -q, wrong")
}

#[tokio::test]
async fn finished_steps_and_their_verdicts_stand_and_cost_nothing_again() {
    let first = failed().await;
    let spent = first.gateway.batches().last().unwrap().usage.clone();
    let little = plan(same, same, |run| run + LITTLE);
    let plan = recovering(little, &first, "think", InheritedGates::TakenOver);
    let (second, asked) = recovered(plan, &first).await;
    assert_eq!(second.end.failure, None);
    // Two rounds are left again, and the attempts of what is done anew count from 1.
    assert_eq!(asked, ["write 1", "write 2"]);
    let (inherited, steps) = told(&second);
    let [(step, gates)] = &inherited[..] else {
        panic!("{inherited:?}");
    };
    assert_eq!(
        (step.as_str(), gates[0].name.as_str()),
        ("think", "has-files")
    );
    assert_eq!(gates[0].verdict, Verdict::Passed);
    let expected = [("write", 1), ("check", 1), ("write", 2), ("check", 2)];
    assert_eq!(steps, begun(&expected));
    // 110 tokens for two words; the plan's 240 are the first run's.
    let used = second.gateway.batches().last().unwrap().usage.clone();
    assert_eq!(used.llm_requests, 2);
    let snapshot = second.snapshot().unwrap();
    assert_eq!((snapshot.spent, snapshot.inherited), (used, Some(spent)));
    // The trace goes on where it was.
    let message = &second.trace()[0];
    assert_eq!((message.number, message.cause.as_str()), (1, "think/plan"));
}

#[tokio::test]
async fn a_launch_that_is_lost_after_the_recovery_does_not_take_over_again() {
    let first = failed().await;
    let plan = recovering(plain(), &first, "write", InheritedGates::TakenOver);
    let (second, asked) = recovered(plan.clone(), &first).await;
    assert_eq!(second.end.failure, None);
    assert_eq!(asked, ["write 2"], "the check sends the line back");
    let recovered_at = second
        .gateway
        .events()
        .into_iter()
        .find_map(|event| match event.what {
            What::Recovered {
                snapshot,
                run,
                step,
            } => {
                assert_eq!((run.as_str(), step.as_str()), ("first", "write"));
                Some(snapshot)
            }
            _ => None,
        });
    second.gateway.next_launch(LaunchStart {
        snapshot: recovered_at,
        ..LaunchStart::default()
    });
    let (third, _) = flown(plan, filling(), second.gateway.clone()).await;
    assert_eq!(third.end.failure, None);
    let (inherited, steps) = told(&third);
    assert_eq!(inherited, []);
    assert_eq!(steps, begun(&[("check", 1), ("write", 2), ("check", 2)]));
    assert_eq!(
        third.snapshot().unwrap().tree,
        second.snapshot().unwrap().tree
    );
}

#[tokio::test]
async fn under_another_procedure_every_gate_is_judged_again_and_no_work_is_done_again() {
    let first = failed().await;
    let other = plan(|sop| right(&sop), same, same);
    let plan = recovering(other, &first, "write", InheritedGates::JudgedAgain);
    let (second, asked) = recovered(plan, &first).await;
    assert_eq!(second.end.failure, None);
    assert_eq!(asked, [""; 0]);
    let (inherited, steps) = told(&second);
    assert_eq!(inherited, []);
    assert_eq!(steps, begun(&[("think", 1), ("write", 1), ("check", 1)]));
    let judged = second
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| match event.what {
            What::GateJudged { gate, .. } => Some((gate.name, gate.verdict)),
            _ => None,
        });
    let judged: Vec<_> = judged.collect();
    assert_eq!(
        judged,
        [
            ("has-files".to_owned(), Verdict::Passed),
            ("right-word".to_owned(), Verdict::Passed)
        ]
    );
    assert_eq!(file(&second, "word.txt").as_deref(), Some("wrong\n"));
    // No program ran, no file was written: only verdicts joined the trace.
    let trace = second.trace();
    let causes: Vec<&str> = trace.iter().map(|message| message.cause.as_str()).collect();
    let last = causes.len() - 2;
    assert_eq!(causes[last..], ["think/has-files", "check/right-word"]);
}

#[tokio::test]
async fn a_step_whose_gate_fails_now_is_done_again_and_so_is_what_builds_on_it() {
    let first = failed().await;
    let stricter = |sop: String| {
        right(&sop).replace(
            "expression: artifacts.plan.json.files.size() > 0",
            "expression: artifacts.plan.json.files.size() > 0 && attempt > 1\n      onFailure: [{action: Retry}]",
        )
    };
    let again = |cassette: String| {
        cassette.replace(
            "- key: {step: write, action: words/word, item: word.txt, attempt: 2",
            "- key: {step: think, action: plan, attempt: 2, turn: 1}\n  response: {content: \"{\\\"files\\\": [{\\\"path\\\": \\\"word.txt\\\"}]}\"}\n- key: {step: write, action: words/word, item: word.txt, attempt: 2",
        )
    };
    let plan = recovering(
        plan(stricter, same, same),
        &first,
        "write",
        InheritedGates::JudgedAgain,
    );
    first.gateway.next_launch(LaunchStart::default());
    let replay = Replay::new(&[("cassette".into(), again(fixture("cassette.yaml")))]);
    let (second, replay) = flown(plan, replay.unwrap().filling(), first.gateway.clone()).await;
    assert_eq!(second.end.failure, None);
    let (_, steps) = told(&second);
    assert_eq!(
        steps,
        begun(&[("think", 1), ("think", 2), ("write", 1), ("check", 1)])
    );
    let asked: Vec<String> = replay.filled().into_keys().map(|key| key.step).collect();
    assert_eq!(asked, ["think", "write"]);
}

#[tokio::test]
async fn a_step_that_is_new_is_done_and_one_that_is_gone_leaves_its_files() {
    let first = failed().await;
    // `think` is called otherwise now, so its work is not known; what it left is a file like any other.
    let renamed = |sop: String| {
        right(&sop)
            .replace("- name: think", "- name: ponder")
            .replace("needs: [think]", "needs: [ponder]")
    };
    let cassette = fixture("cassette.yaml").replace("step: think", "step: ponder");
    let plan = recovering(
        plan(renamed, same, same),
        &first,
        "write",
        InheritedGates::JudgedAgain,
    );
    first.gateway.next_launch(LaunchStart::default());
    let replay = Replay::new(&[("cassette".into(), cassette)])
        .unwrap()
        .filling();
    let (second, _) = flown(plan, replay, first.gateway.clone()).await;
    assert_eq!(second.end.failure, None);
    let (_, steps) = told(&second);
    assert_eq!(steps, begun(&[("ponder", 1), ("write", 1), ("check", 1)]));
    assert_eq!(file(&second, "copy.txt").as_deref(), Some("wrong\n"));
}

#[tokio::test]
async fn a_step_whose_outputs_are_others_now_is_done_again() {
    let first = failed().await;
    let moved = |sop: String| right(&sop).replace("path: docs/plan.json", "path: docs/moved.json");
    let plan = recovering(
        plan(moved, same, same),
        &first,
        "write",
        InheritedGates::JudgedAgain,
    );
    let (second, asked) = recovered(plan, &first).await;
    assert_eq!(second.end.failure, None);
    assert_eq!(asked, ["think 1", "think 1", "write 1"]);
    assert!(file(&second, "docs/moved.json").is_some());
    assert!(file(&second, "docs/plan.json").is_some());
}

#[tokio::test]
async fn a_state_that_is_not_there_any_more_ends_the_run_and_names_it() {
    let first = failed().await;
    let plan = recovering(plain(), &first, "write", InheritedGates::TakenOver);
    let (flown, _) = flown(plan, filling(), LocalGateway::default()).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    assert!(
        message.starts_with("the project cannot be loaded from run first after step write: "),
        "{message}"
    );
}

/// Runs the runner's program on the fixtures in a folder.
fn local(folder: &Path, sop: &str, out: &str, more: &[&str]) -> (bool, String) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("sop.yaml", sop);
    let run = fixture("run.yaml") + "  rounds: 1\n";
    write("run.yaml", &run);
    write("policy.yaml", &fixture("policy.yaml"));
    let more: Vec<String> = more
        .iter()
        .map(|word| word.replace("DIR", &path("")))
        .collect();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_sopwith-runner"))
        .arg("local")
        .args(["--sop".to_owned(), path("sop.yaml")])
        .args(["--policy".to_owned(), path("policy.yaml")])
        .args(["--run".to_owned(), path("run.yaml")])
        .args(["--cassette".to_owned(), path("cassette.yaml")])
        .args(["--out".to_owned(), path(out)])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.success(), said)
}

#[tokio::test]
async fn a_local_run_recovers_from_the_folder_that_another_left() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, replay) = flown(plain(), filling(), LocalGateway::default()).await;
    let file = CassetteFile::parse(&fixture("cassette.yaml")).unwrap();
    let (cassette, _) = file.filled(&replay.filled()).unwrap();
    std::fs::write(folder.join("cassette.yaml"), cassette).unwrap();
    let sop = fixture("sop.yaml");
    let (succeeded, said) = local(folder, &sop, "first", &[]);
    assert!(!succeeded && said.contains("RoundsExhausted"), "{said}");
    // The gate was wrong. Nothing is asked again: what the model answered is there.
    let (succeeded, said) = local(folder, &right(&sop), "second", &["--recover", "DIRfirst"]);
    assert!(succeeded, "{said}");
    assert!(said.contains("from run word after step write"), "{said}");
    assert!(!said.contains("writer wrote"), "{said}");
    let left = std::fs::read_to_string(folder.join("second/project/word.txt"));
    assert_eq!(left.unwrap(), "wrong\n");
    for (more, words) in [
        (
            &["--recover", "DIRfirst", "--recover-step", "check"][..],
            "finished think, write; it has not finished check",
        ),
        (
            &["--recover", "DIRnowhere"],
            "nowhere/state/run.json: No such file",
        ),
    ] {
        let (succeeded, said) = local(folder, &sop, "third", more);
        assert!(!succeeded && said.contains(words), "{said}");
    }
}
