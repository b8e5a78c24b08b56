//! Whatever the procedure and whatever happens: the line ends, keeps its order and its bounds, and being killed changes nothing.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use proptest::prelude::*;
use sopwith_crds::{
    contract::{
        Digest,
        plan::{RunOptions, RunPlan},
    },
    sop_definition::{AfterFailure, FailureAction, FailureRule, Gate, Step},
    status::FailureReason,
};

use super::*;

/// Most times that people are asked before they cancel: they alone could go on for ever.
const PATIENCE: u32 = 8;

/// A step as it is drawn: which earlier steps it needs, as bits; its gates, each with its rules; what follows them.
type Drawn = (u8, Vec<(Vec<(u8, u8, u32)>, bool)>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let rule = (0u8..6, any::<u8>(), 1u32..4);
    let gate = (proptest::collection::vec(rule, 0..4), any::<bool>());
    (any::<u8>(), proptest::collection::vec(gate, 1..3))
}

/// Any procedure that the checker would take, with its gates.
fn procedure() -> impl Strategy<Value = RunPlan> {
    (1u32..5, proptest::collection::vec(drawn(), 1..7)).prop_map(|(rounds, drawn)| {
        let mut steps: Vec<Step> = Vec::new();
        for (index, (needs, gates)) in drawn.into_iter().enumerate() {
            let needs: Vec<String> = (0..index)
                .filter(|other| needs >> (other % 8) & 1 == 1)
                .map(|other| format!("s{other}"))
                .collect();
            let before = ancestors(&steps, &needs);
            let gates = gates.into_iter().enumerate().map(|(index, (rules, asks))| {
                let rules = rules.into_iter();
                Gate {
                    name: format!("g{index}"),
                    on_failure: rules.map(|rule| made(rule, &before)).collect(),
                    exhausted: asks.then_some(AfterFailure::Ask),
                    ..Gate::default()
                }
            });
            steps.push(Step {
                name: format!("s{index}"),
                gates: gates.collect(),
                needs,
                ..Step::default()
            });
        }
        let options = RunOptions {
            rounds,
            ..RunOptions::default()
        };
        RunPlan {
            options,
            steps,
            ..RunPlan::default()
        }
    })
}

/// The steps that have surely been passed before one with these needs, in order.
fn ancestors(steps: &[Step], needs: &[String]) -> Vec<String> {
    let mut found: Vec<String> = needs.to_vec();
    for step in steps.iter().rev() {
        if found.contains(&step.name) {
            found.extend(step.needs.clone());
        }
    }
    found.sort();
    found.dedup();
    found
}

fn made((action, to, max): (u8, u8, u32), before: &[String]) -> FailureRule {
    let target = before.get(usize::from(to) % before.len().max(1));
    let (action, to) = match (action, target) {
        (0 | 1, _) => (FailureAction::Retry, None),
        (2 | 3, Some(target)) => (FailureAction::Backtrack, Some(target.clone())),
        (4, _) => (FailureAction::Ask, None),
        _ => (FailureAction::Fail, None),
    };
    FailureRule {
        action,
        to,
        max_attempts: Some(max),
        ..FailureRule::default()
    }
}

/// What happens, the same whenever it is asked about the same place.
#[derive(Clone, Copy)]
struct World {
    seed: u64,
}

impl World {
    fn draw(self, place: &str, sides: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, place).hash(&mut hasher);
        hasher.finish() % sides
    }
}

/// How often each rule was used, and what became of each attempt.
#[derive(Default, Debug, PartialEq)]
struct Log {
    rules: BTreeMap<String, u32>,
    ends: Vec<(String, u32, &'static str)>,
    asked: u32,
}

/// How an attempt of a step ends, or what is left of it after a wait at a gate.
fn attempt(step: &Step, attempt: u32, world: World, from: usize) -> Happened {
    let name = &step.name;
    for (index, gate) in step.gates.iter().enumerate().skip(from) {
        let place = format!("{name}/{attempt}/{}", gate.name);
        let fault = Fault {
            step: name.clone(),
            gate: gate.name.clone(),
            rules: gate
                .on_failure
                .iter()
                .enumerate()
                .map(|(index, rule)| {
                    let applies = world.draw(&format!("{place}#{index}"), 4) > 0;
                    (rule.clone(), applies)
                })
                .collect(),
            exhausted: gate.exhausted.unwrap_or_default(),
            reason: FailureReason::GateFailed,
            findings: place.clone(),
            message: place.clone(),
        };
        match world.draw(&place, 10) {
            0..=5 => {}
            6..=7 => return Happened::GateFailed(fault),
            8 => return Happened::Waits(wait(step, attempt, index, None)),
            _ => {
                return Happened::Failed {
                    step: name.clone(),
                    reason: FailureReason::ProviderFailed,
                    message: place,
                };
            }
        }
    }
    Happened::Passed { step: name.clone() }
}

fn wait(step: &Step, attempt: u32, gate: usize, failed: Option<String>) -> Wait {
    Wait {
        step: step.name.clone(),
        attempt,
        gate: step.gates[gate].name.clone(),
        point: Point { action: None, gate },
        subject: Digest::of(format!("{}/{attempt}/{gate}", step.name)),
        failed,
    }
}

/// What people decide at a gate; none: the attempt goes on.
fn decided(plan: &RunPlan, state: &State, wait: &Wait, world: World, asked: u32) -> Option<Way> {
    let back = targets(plan, state, &wait.step);
    let place = format!("decision {asked} on {}/{}", wait.step, wait.attempt);
    match (world.draw(&place, 6), back.first()) {
        _ if asked > PATIENCE => Some(Way::Fail(FailureReason::Cancelled)),
        (0..=2, _) => None,
        (3, Some(to)) => Some(Way::Backtrack { to: to.clone() }),
        (3 | 4, _) => Some(Way::Retry),
        _ => Some(Way::Fail(FailureReason::Rejected)),
    }
}

/// Plays a procedure to its end. Where `kills` says so, an attempt is lost in its middle, and the line goes on from what was
/// written down after the one before it.
fn played(plan: &RunPlan, world: World, kills: impl Fn(u32) -> bool) -> (State, Decision, Log) {
    let mut log = Log::default();
    let mut state = State::new(plan);
    let mut written = serde_json::to_string(&state).unwrap();
    let mut turn = 0;
    loop {
        turn += 1;
        assert!(turn < 5000, "it ends");
        let decision = next(plan, &state);
        let (step, number, from, steered) = match &decision {
            Decision::Succeeded | Decision::Failed(_) => return (state, decision, log),
            Decision::Step(index) => {
                let step = &plan.steps[*index];
                assert!(
                    step.needs.iter().all(|need| state.settled(need)),
                    "{} before what it needs",
                    step.name
                );
                let place = format!("when of {} in round {}", step.name, state.round);
                if world.draw(&place, 8) == 0 {
                    let step = step.name.clone();
                    state = apply(plan, &state, &Happened::Skipped { step });
                    written = serde_json::to_string(&state).unwrap();
                    continue;
                }
                let started = Happened::Started {
                    step: step.name.clone(),
                };
                state = apply(plan, &state, &started);
                (step, state.step(&step.name).attempts, 0, None)
            }
            Decision::Wait(wait) => {
                let step = plan
                    .steps
                    .iter()
                    .find(|step| step.name == wait.step)
                    .unwrap();
                let way = decided(plan, &state, wait, world, log.asked);
                let resumed = Happened::Resumed {
                    step: wait.step.clone(),
                };
                state = apply(plan, &state, &resumed);
                (
                    step,
                    wait.attempt,
                    wait.point.gate + 1,
                    way.map(|way| (wait.clone(), way)),
                )
            }
        };
        if kills(turn) {
            state = serde_json::from_str(&written).unwrap();
            continue;
        }
        let happened = match steered {
            None => attempt(step, number, world, from),
            Some((wait, way)) => Happened::Steered {
                fault: Fault {
                    step: step.name.clone(),
                    gate: wait.gate,
                    rules: Vec::new(),
                    exhausted: AfterFailure::Fail,
                    reason: FailureReason::GateFailed,
                    findings: "people".into(),
                    message: "people".into(),
                },
                way,
            },
        };
        booked(plan, &mut state, step, number, &happened, &mut log);
        written = serde_json::to_string(&state).unwrap();
        state = serde_json::from_str(&written).unwrap();
    }
}

/// Books what ended an attempt as the engine does, and looks whether every bound is kept.
fn booked(
    plan: &RunPlan,
    state: &mut State,
    step: &Step,
    number: u32,
    happened: &Happened,
    log: &mut Log,
) {
    let before = state.clone();
    let way = way(plan, &before, happened);
    *state = apply(plan, &before, happened);
    let passed = matches!(happened, Happened::Passed { .. });
    let word = match happened {
        Happened::Passed { .. } => "passed",
        Happened::Waits(_) => "waits",
        Happened::GateFailed(_) => "failed",
        Happened::Steered { .. } => "steered",
        _ => "ended",
    };
    log.ends.push((step.name.clone(), number, word));
    if let (Happened::GateFailed(fault), Way::Ask) = (happened, &way) {
        let gate = step
            .gates
            .iter()
            .position(|gate| gate.name == fault.gate)
            .unwrap();
        let wait = wait(step, number, gate, Some(fault.findings.clone()));
        *state = apply(plan, state, &Happened::Waits(wait));
    }
    log.asked += u32::from(state.wait.is_some());
    assert_eq!(
        state.settled(&step.name),
        passed,
        "only what passed is finished"
    );
    assert!(state.round <= plan.options.rounds, "rounds");
    for (key, used) in &state.used {
        let (gate, index) = key.rsplit_once('#').unwrap();
        let (of, gate) = gate.split_once('/').unwrap();
        let owner = plan.steps.iter().find(|step| step.name == of).unwrap();
        let gate = owner.gates.iter().find(|other| other.name == gate).unwrap();
        let rule = &gate.on_failure[index.parse::<usize>().unwrap()];
        let unbounded = matches!(rule.action, FailureAction::Ask | FailureAction::Fail);
        assert!(
            unbounded || *used <= rule.max_attempts.unwrap(),
            "{key} was used {used} times"
        );
    }
    log.rules.clone_from(&state.used);
}

/// How often a step may be attempted: once a round, and once more for each time that it was tried again.
fn most_attempts(plan: &RunPlan, step: &Step, log: &Log) -> u32 {
    let retried = |key: &&String| {
        step.gates.iter().any(|gate| {
            let mut rules = gate.on_failure.iter().enumerate();
            rules.any(|(index, rule)| {
                rule.action == FailureAction::Retry
                    && **key == format!("{}/{}#{index}", step.name, gate.name)
            })
        })
    };
    let by_rules: u32 = log
        .rules
        .iter()
        .filter(|(key, _)| retried(key))
        .map(|(_, used)| used)
        .sum();
    let steered = log
        .ends
        .iter()
        .filter(|(name, _, word)| *name == step.name && *word == "steered");
    plan.options.rounds + by_rules + u32::try_from(steered.count()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_procedure_ends_within_its_bounds_and_being_killed_changes_nothing(
        plan in procedure(),
        seed in any::<u64>(),
        killed in proptest::collection::btree_set(1u32..60, 0..12),
    ) {
        let world = World { seed };
        let (state, end, log) = played(&plan, world, |_| false);
        for step in &plan.steps {
            let attempts = state.step(&step.name).attempts;
            prop_assert!(attempts <= most_attempts(&plan, step, &log), "{} of {}", attempts, step.name);
            let last = log.ends.iter().rev().find(|(name, _, _)| *name == step.name);
            if end == Decision::Succeeded {
                prop_assert!(state.settled(&step.name));
                if state.step(&step.name).phase == Phase::Finished {
                    prop_assert_eq!(last.map(|(_, _, word)| *word), Some("passed"));
                }
            }
        }
        if let Decision::Failed(failure) = &end {
            prop_assert_ne!(failure.reason, FailureReason::InvalidPlan);
        }
        let (again, same, log_again) = played(&plan, world, |turn| killed.contains(&turn));
        prop_assert_eq!(again, state);
        prop_assert_eq!(same, end);
        prop_assert_eq!(log_again, log);
    }
}
