//! Whatever the procedure and whatever models answer: the engine ends, keeps its order and bounds, and being killed in the
//! middle of a step changes nothing.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::{collection::btree_set, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use sopwith_crds::{
    agent_run::Decision,
    contract::{
        plan::RunPlan,
        report::{LaunchStart, Next, Outcome, StepEnd, What},
    },
    sop_definition::FailureAction,
    status::Verdict,
};
use sopwith_runner::gateway::LocalGateway;
use tokio::sync::Notify;

use crate::{
    flight::{Landed, launched, planned_with},
    server::{Model, serve},
};

/// Items of every loop.
const ITEMS: [&str; 3] = ["x", "y", "z"];

/// A step as it is drawn.
#[derive(Debug, Clone)]
struct Drawn {
    /// Which earlier steps it needs, as bits.
    needs: u8,
    /// Whether `when` leaves it out in some rounds.
    sometimes: bool,
    /// Rules of its gate, of its draft's gate, and of its loop's.
    rules: [Vec<Rule>; 3],
    asks: bool,
    /// Whether it has a loop, over items, and how many of them at once.
    repeat: Option<(bool, u32, u32)>,
}

/// What is done, to which earlier step, how often, whether files go back, and whether it applies at first attempts only.
type Rule = (u8, u8, u32, bool, bool);

fn drawn() -> impl Strategy<Value = Drawn> {
    let rule = (0u8..5, any::<u8>(), 1u32..3, any::<bool>(), any::<bool>());
    let rules = proptest::collection::vec(rule, 0..3);
    let repeat = proptest::option::of((any::<bool>(), 1u32..4, 1u32..4));
    (
        any::<u8>(),
        any::<bool>(),
        [rules.clone(), rules.clone(), rules],
        any::<bool>(),
        repeat,
    )
        .prop_map(|(needs, sometimes, rules, asks, repeat)| Drawn {
            needs,
            sometimes,
            rules,
            asks,
            repeat,
        })
}

/// The `spec` of a procedure.
fn procedure(drawn: &[Drawn]) -> Value {
    let mut steps: Vec<Value> = Vec::new();
    let mut ancestors: Vec<Vec<usize>> = Vec::new();
    for (index, one) in drawn.iter().enumerate() {
        let needs: Vec<usize> = (0..index)
            .filter(|other| one.needs >> other & 1 == 1)
            .collect();
        let mut before: Vec<usize> = needs
            .iter()
            .flat_map(|need| ancestors[*need].clone())
            .collect();
        before.extend(&needs);
        before.sort_unstable();
        before.dedup();
        steps.push(step(index, one, &needs, &before));
        ancestors.push(before);
    }
    let mut templates = serde_json::Map::new();
    for (index, one) in drawn.iter().enumerate() {
        let draft = format!("draft {index} {{{{ attempt }}}} {{{{ round }}}} {{{{ findings }}}}");
        templates.insert(format!("draft{index}"), json!(draft));
        let item = if one.repeat.is_some_and(|(over, ..)| over) {
            "{{ item }}"
        } else {
            ""
        };
        let one = format!(
            "item {index} {item} {{{{ attempt }}}} {{{{ round }}}} {{{{ retry }}}} {{{{ pass }}}} {{{{ findings }}}} {{{{ glob('*.json') | join(' ') }}}}"
        );
        templates.insert(format!("item{index}"), json!(one));
    }
    json!({
        "roles": [{"name": "writer"}],
        "templates": templates,
        "schemas": {"v": {"type": "object", "required": ["v"]}},
        "steps": steps,
    })
}

fn step(index: usize, drawn: &Drawn, needs: &[usize], before: &[usize]) -> Value {
    let mut outputs =
        vec![json!({"name": format!("a{index}"), "path": format!("a{index}.json"), "schema": "v"})];
    let rules = |of: usize, looped: bool| rules(&drawn.rules[of], before, looped);
    let mut actions = vec![json!({
        "name": "draft",
        "prompt": {"template": format!("draft{index}"), "schema": "v", "writes": {"artifact": format!("a{index}")}},
        "gates": [{"name": "drafted", "kind": "expression",
            "expression": format!("artifacts.a{index}.json.v % 13 > 0"), "onFailure": rules(1, false)}],
    })];
    if let Some((over, at_once, max)) = drawn.repeat {
        let names: Vec<String> = if over {
            ITEMS.iter().map(|item| format!("l{index}{item}")).collect()
        } else {
            vec![format!("l{index}-")]
        };
        outputs.extend(
            names.iter().map(
                |name| json!({"name": name.replace('-', "n"), "path": format!("{name}.json")}),
            ),
        );
        let last = |items: &[&str]| {
            items.iter().fold("0".to_owned(), |other, item| {
                format!("item == '{item}' ? artifacts.l{index}{item}.json.v : ({other})")
            })
        };
        let value = if over {
            last(&ITEMS)
        } else {
            format!("artifacts.l{index}n.json.v")
        };
        let path = format!("l{index}{}.json", if over { "{{ item }}" } else { "-" });
        let mut repeat = json!({
            "until": format!("({value}) % 3 == 0"),
            "max": max.to_string(),
            "actions": [{"name": "one", "prompt": {"template": format!("item{index}"), "schema": "v", "writes": {"path": path}}}],
            "gates": [{"name": "each", "kind": "expression",
                "expression": format!("({value}) % 7 > 0"), "onFailure": rules(2, true)}],
        });
        if over {
            repeat["forEach"] = json!(format!("{ITEMS:?}"));
            repeat["parallel"] = json!(at_once);
        }
        actions.push(json!({"name": "repeat", "loop": repeat}));
    }
    let mut step = json!({
        "name": format!("s{index}"),
        "role": "writer",
        "needs": needs.iter().map(|need| format!("s{need}")).collect::<Vec<_>>(),
        "outputs": outputs,
        "actions": actions,
        "gates": [{"name": "good", "kind": "expression", "when": "attempt > 0",
            "expression": format!("artifacts.a{index}.json.v % 7 > 0"), "onFailure": rules(0, false),
            "exhausted": if drawn.asks { "Ask" } else { "Fail" }}],
    });
    if drawn.sometimes {
        step["when"] = json!("round != 2");
    }
    step
}

fn rules(drawn: &[Rule], before: &[usize], looped: bool) -> Value {
    let made = drawn.iter().map(|(action, to, most, restore, first)| {
        let target = before.get(usize::from(*to) % before.len().max(1));
        let mut rule = match (action, target) {
            (0 | 1, _) => json!({"action": "Retry"}),
            (2 | 3, Some(target)) => json!({"action": "Backtrack", "to": format!("s{target}")}),
            _ => return json!({"when": "gate.findings == ''", "action": "Fail"}),
        };
        rule["maxAttempts"] = json!(most);
        if *restore {
            rule["workspace"] = json!("restore");
        }
        if *first {
            rule["when"] = json!(if looped {
                "retry == 0"
            } else {
                "attempt == 1 && gate.kind == 'expression'"
            });
        }
        rule
    });
    made.collect()
}

/// Models and people whose words depend on what they are asked, and the requests at which the launch is killed.
struct World {
    seed: u64,
    kills: Vec<u32>,
    asked: AtomicU32,
    killed: Notify,
}

impl World {
    fn new(seed: u64, kills: Vec<u32>) -> Arc<Self> {
        Arc::new(Self {
            seed,
            kills,
            asked: AtomicU32::new(0),
            killed: Notify::new(),
        })
    }

    fn draw(&self, text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, text).hash(&mut hasher);
        hasher.finish()
    }

    fn model(self: &Arc<Self>) -> Model {
        let world = Arc::clone(self);
        Arc::new(move |text| {
            let number = world.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if world.kills.contains(&number) {
                world.killed.notify_one();
                return None;
            }
            Some(json!({"v": world.draw(text) % 1000, "text": text}).to_string())
        })
    }
}

/// A run from its beginning to its end, launch after launch.
struct Flown {
    landed: Landed,
    /// What all launches told, in order.
    what: Vec<What>,
    launches: u32,
}

async fn flown(plan: &RunPlan, world: &Arc<World>) -> Flown {
    let gateway = LocalGateway::default();
    let mut what = Vec::new();
    let mut launches = 0;
    loop {
        launches += 1;
        assert!(launches < 100, "it ends");
        let flight = launched(plan.clone(), Arc::default(), gateway.clone());
        let landed = tokio::select! {
            landed = flight => Some(landed),
            () = world.killed.notified() => None,
        };
        let told: Vec<What> = gateway
            .events()
            .into_iter()
            .map(|event| event.what)
            .collect();
        what.extend(told);
        let last = ends(&what).pop();
        let snapshot = last.as_ref().map(|end| end.snapshot.clone());
        let mut start = LaunchStart {
            snapshot,
            ..LaunchStart::default()
        };
        if let Some(digest) = &start.snapshot {
            let snapshot = gateway.snapshot(digest).unwrap();
            start.spent = snapshot.spent;
        }
        if let Some(end) = &last
            && let Next::Wait(wait) = &end.next
        {
            let place = format!("{} {} {}", end.step, end.attempt, wait.gate);
            let choice = usize::try_from(world.draw(&place) % 7).unwrap() % wait.options.len();
            start.decisions.push(Decision {
                step: end.step.clone(),
                gate: wait.gate.clone(),
                attempt: end.attempt,
                subject: wait.subject.to_string(),
                verdict: wait.options[choice],
                to: wait.back.first().cloned(),
                by: "someone".into(),
                ..Decision::default()
            });
        }
        match landed {
            Some(landed) if landed.flown.end.outcome != Outcome::Waiting => {
                return Flown {
                    landed,
                    what,
                    launches,
                };
            }
            _ => gateway.next_launch(start),
        }
    }
}

fn ends(what: &[What]) -> Vec<StepEnd> {
    let ended = what.iter().filter_map(|what| match what {
        What::StepEnded { end } => Some(end.as_ref().clone()),
        _ => None,
    });
    ended.collect()
}

/// What must be the same however often a run was killed.
fn essence(flown: &Flown) -> Value {
    let snapshot = flown.landed.flown.snapshot();
    let messages = snapshot.as_ref().map(|_| flown.landed.messages());
    let messages = messages.into_iter().flatten().map(|message| {
        json!([
            message.number,
            message.sender,
            message.cause,
            message.attempt,
            message.content,
            message.wrote,
            message.input_tokens,
            message.output_tokens
        ])
    });
    let machine = snapshot.as_ref().map(|snapshot| {
        let mut machine = snapshot.machine.clone();
        // What differs with the clock: seconds, and digests of snapshots, whose messages have a time.
        machine
            .as_object_mut()
            .unwrap()
            .retain(|field, _| !["workedSeconds", "starts", "begun"].contains(&field.as_str()));
        machine
    });
    let ends = ends(&flown.what).into_iter().map(|end| {
        json!([
            end.step,
            end.attempt,
            end.verdict,
            end.message,
            end.artifacts,
            end.next
        ])
    });
    json!({
        "outcome": flown.landed.flown.end.outcome,
        "failure": flown.landed.flown.end.failure,
        "tree": snapshot.as_ref().map(|snapshot| &snapshot.tree),
        "gates": snapshot.as_ref().map(|snapshot| &snapshot.gates),
        "machine": machine,
        "trail": snapshot.as_ref().map(|snapshot| &snapshot.trail),
        "messages": messages.collect::<Vec<_>>(),
        "ends": ends.collect::<Vec<_>>(),
    })
}

/// Order, bounds, and that no failed gate ends in success.
fn keeps_to_the_plan(plan: &RunPlan, flown: &Flown) {
    let mut settled: BTreeMap<&str, bool> = BTreeMap::new();
    for what in &flown.what {
        match what {
            What::StepStarted { step, .. } => {
                let step = plan.steps.iter().find(|other| other.name == *step).unwrap();
                for need in &step.needs {
                    assert_eq!(
                        settled.get(need.as_str()),
                        Some(&true),
                        "{} before {need}",
                        step.name
                    );
                }
            }
            What::StepSkipped { step, .. } => {
                settled.insert(step, true);
            }
            What::StepEnded { end } => {
                settled.insert(&end.step, end.verdict == Verdict::Passed);
                if let Next::Backtrack { to } = &end.next {
                    settled.insert(to, false);
                }
            }
            What::RoundStarted { round } => assert!(*round <= plan.options.rounds),
            _ => {}
        }
    }
    let Some(snapshot) = flown.landed.flown.snapshot() else {
        return;
    };
    assert!(snapshot.spent.cost <= plan.options.investment);
    let used: BTreeMap<String, u32> =
        serde_json::from_value(snapshot.machine["state"]["used"].clone()).unwrap();
    for (key, used) in used {
        let (gate, rule) = key.rsplit_once('#').unwrap();
        let (step, gate) = gate.split_once('/').unwrap();
        let step = plan.steps.iter().find(|other| other.name == step).unwrap();
        let of_action = step.actions.iter().flat_map(|action| &action.gates);
        let of_loop = step
            .actions
            .iter()
            .flat_map(|action| &action.repeat)
            .flat_map(|repeat| &repeat.gates);
        let gate = of_action
            .chain(of_loop)
            .chain(&step.gates)
            .find(|other| gate.ends_with(&other.name))
            .unwrap();
        let rule = &gate.on_failure[rule.parse::<usize>().unwrap()];
        let bounded = matches!(rule.action, FailureAction::Retry | FailureAction::Backtrack);
        assert!(
            !bounded || used <= rule.max_attempts.unwrap(),
            "{key} {used}"
        );
    }
    if flown.landed.flown.end.outcome == Outcome::Succeeded {
        assert_eq!(snapshot.machine.get("unmet"), None);
        for (gate, status) in &snapshot.gates {
            assert!(
                matches!(
                    status.verdict,
                    Verdict::Passed | Verdict::Skipped | Verdict::Waived
                ),
                "{gate} {:?}",
                status.verdict
            );
        }
        assert!(plan.steps.iter().all(|step| settled[step.name.as_str()]));
    }
}

async fn case(drawn: &[Drawn], rounds: u32, seed: u64, kills: Vec<u32>) -> [u32; 3] {
    let sop = procedure(drawn);
    let policy = json!({"llm": [{
        "name": "model", "provider": "openai", "baseUrl": "http://localhost",
        "models": [{"name": "gpt", "maxOutputTokens": 1000, "inputPerMillion": "10", "outputPerMillion": "30"}],
    }], "concurrency": {"llmRequests": 3}});
    let plan = planned_with(
        &sop,
        &json!({"rounds": rounds, "investment": "1000"}),
        &policy,
    );
    let asking = async |world: &Arc<World>| {
        let mut plan = plan.clone();
        plan.llm[0].base_url = Some(serve(world.model()).await);
        plan
    };
    let calm = World::new(seed, Vec::new());
    let quiet = asking(&calm).await;
    let unbroken = flown(&quiet, &calm).await;
    keeps_to_the_plan(&quiet, &unbroken);
    let rough = World::new(seed, kills);
    let killed = asking(&rough).await;
    let broken = flown(&killed, &rough).await;
    keeps_to_the_plan(&killed, &broken);
    assert_eq!(essence(&broken), essence(&unbroken), "{sop:#}");
    let poor = World::new(seed, Vec::new());
    let mut short = asking(&poor).await;
    short.options.investment = "0.2".parse().unwrap();
    let stopped = flown(&short, &poor).await;
    keeps_to_the_plan(&short, &stopped);
    let spent = stopped
        .landed
        .flown
        .gateway
        .batches()
        .pop()
        .unwrap()
        .usage
        .cost;
    assert!(spent <= short.options.investment);
    let succeeded = u32::from(unbroken.landed.flown.end.outcome == Outcome::Succeeded);
    [
        succeeded,
        broken.launches,
        calm.asked.load(Ordering::SeqCst),
    ]
}

#[test]
fn the_engine_keeps_to_any_procedure_and_being_killed_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let strategy = (
        proptest::collection::vec(drawn(), 1..5),
        1u32..4,
        any::<u64>(),
        btree_set(1u32..12, 0..5),
    );
    let seen = std::cell::RefCell::new([0; 3]);
    runner
        .run(&strategy, |(drawn, rounds, seed, kills)| {
            let case = runtime.block_on(case(&drawn, rounds, seed, kills.into_iter().collect()));
            for (sum, one) in seen.borrow_mut().iter_mut().zip(case) {
                *sum += one;
            }
            Ok(())
        })
        .unwrap();
    let [succeeded, launches, asked] = seen.into_inner();
    // What never gets anywhere would show nothing.
    assert!(
        succeeded > 3 && launches > 40 && asked > 80,
        "{succeeded} {launches} {asked}"
    );
}
