use super::*;
use crate::{
    agent_run::{AgentRunSpec, LocalRef, Project, ProjectSource},
    contract::memory::Fact,
    sop_definition::{Action, Command, CommandGate, GateKind, Parameter},
    tool_policy::{AllowedSop, Endpoint, Model},
};
use k8s_openapi::jiff::Timestamp;

fn run(change: impl FnOnce(&mut AgentRunSpec)) -> AgentRun {
    let mut spec = AgentRunSpec {
        idea: Some("write a cli blackjack game".to_owned()),
        sop_ref: LocalRef {
            name: "sop".to_owned(),
        },
        ..AgentRunSpec::default()
    };
    change(&mut spec);
    let mut run = AgentRun::new("blackjack", spec);
    run.metadata.namespace = Some("demo".to_owned());
    run.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    run
}

fn command(image: &str) -> Command {
    Command {
        argv: vec!["true".to_owned()],
        image: image.to_owned(),
        ..Command::default()
    }
}

fn step(name: &str, images: &[&str], gate_image: Option<&str>) -> Step {
    Step {
        name: name.to_owned(),
        actions: images
            .iter()
            .enumerate()
            .map(|(index, image)| Action {
                name: format!("a{index}"),
                work: Work {
                    command: Some(command(image)),
                    ..Work::default()
                },
                ..Action::default()
            })
            .collect(),
        gates: gate_image
            .map(|image| Gate {
                name: "tests".to_owned(),
                kind: GateKind::Command,
                command: Some(CommandGate {
                    run: vec![command(image)],
                    ..CommandGate::default()
                }),
                ..Gate::default()
            })
            .into_iter()
            .collect(),
        ..Step::default()
    }
}

fn sop() -> SopDefinitionSpec {
    SopDefinitionSpec {
        parameters: vec![Parameter {
            name: "language".to_owned(),
            default: Some("python".to_owned()),
            ..Parameter::default()
        }],
        steps: vec![
            step("one", &["python:3"], Some("node:22")),
            step("two", &["node:22"], None),
        ],
        ..SopDefinitionSpec::default()
    }
}

fn policy() -> ToolPolicySpec {
    ToolPolicySpec {
        images: vec!["python:*".to_owned(), "node:*".to_owned()],
        commands: vec![crate::tool_policy::AllowedCommand {
            argv: vec!["true".to_owned()],
            network: None,
        }],
        llm: vec![Endpoint {
            name: "main".to_owned(),
            base_url: Some("https://models.example/v1".to_owned()),
            models: vec![Model {
                name: "gpt".to_owned(),
                input_per_million: Some(crate::Money::ZERO),
                output_per_million: Some(crate::Money::ZERO),
                ..Model::default()
            }],
            ..Endpoint::default()
        }],
        ..ToolPolicySpec::default()
    }
}

fn built(
    run: &AgentRun,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Result<RunPlan, Rejection> {
    build(&PlanInputs {
        run,
        sop: ("sop", sop),
        policy: ("default", policy),
        idea: run.spec.idea.as_deref().unwrap_or_default(),
        inputs: &BTreeMap::new(),
        templates: &BTreeMap::new(),
        earlier: run
            .spec
            .project
            .as_ref()
            .and_then(|project| project.source.as_ref()?.run.as_ref())
            .map(|_| earlier())
            .as_ref(),
        memory: &[],
    })
}

fn earlier() -> Earlier {
    Earlier {
        name: "first".to_owned(),
        uid: "uid-1".to_owned(),
        snapshot: Digest::of("left"),
        project_name: "cards".to_owned(),
        state: None,
    }
}

/// What comes of recovering from a run of this plan.
fn recovering(run: &AgentRun, sop: &SopDefinitionSpec, from: &RunPlan) -> Recover {
    let earlier = Earlier {
        state: Some(EarlierState {
            step: "prd".to_owned(),
            usage: Usage {
                total_tokens: 7,
                ..Usage::default()
            },
            plan: Arc::new(from.clone()),
        }),
        project_name: from.options.project_name.clone(),
        ..earlier()
    };
    let plan = build(&PlanInputs {
        run,
        sop: ("sop", sop),
        policy: ("default", &policy()),
        idea: run.spec.idea.as_deref().unwrap_or_default(),
        inputs: &BTreeMap::new(),
        templates: &BTreeMap::new(),
        earlier: Some(&earlier),
        memory: &[],
    });
    plan.unwrap().recover.unwrap()
}

#[test]
fn verdicts_stand_only_where_steps_saw_the_same() {
    let named = |name: &str, change: fn(&mut AgentRunSpec)| {
        let mut run = run(change);
        run.metadata.name = Some(name.to_owned());
        run
    };
    let from = |change| {
        recovering(
            &named("second", change),
            &sop(),
            &built(&run(|_| {}), &sop(), &policy()).unwrap(),
        )
    };
    let again = from(|_| {});
    assert_eq!((again.run.as_str(), again.step.as_str()), ("first", "prd"));
    assert_eq!(
        (again.usage.total_tokens, again.snapshot),
        (7, Digest::of("left"))
    );
    for (change, expected) in [
        ((|_| {}) as fn(&mut AgentRunSpec), InheritedGates::TakenOver),
        (
            |spec| spec.investment = Some(Money::from_nanos(9)),
            InheritedGates::TakenOver,
        ),
        (|spec| spec.rounds = Some(9), InheritedGates::TakenOver),
        (
            |spec| spec.deadline_seconds = Some(9),
            InheritedGates::TakenOver,
        ),
        (
            |spec| spec.idea = Some("poker".to_owned()),
            InheritedGates::JudgedAgain,
        ),
        (
            |spec| spec.run_tests = Some(true),
            InheritedGates::JudgedAgain,
        ),
        (
            |spec| spec.code_review = Some(false),
            InheritedGates::JudgedAgain,
        ),
    ] {
        assert_eq!(from(change).gates, expected);
    }
    let mut changed = sop();
    changed
        .templates
        .insert("another".to_owned(), "text".to_owned());
    let plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    let recover = recovering(&named("second", |_| {}), &changed, &plan);
    assert_eq!(recover.gates, InheritedGates::JudgedAgain);
}

/// A run that begins with the project of a source.
fn upon(source: ProjectSource) -> AgentRun {
    run(|spec| {
        spec.project = Some(Project {
            source: Some(source),
            ..Project::default()
        });
    })
}

#[test]
fn the_project_of_an_earlier_run_is_pinned_and_keeps_its_name() {
    let source = ProjectSource {
        run: Some("first".to_owned()),
        ..ProjectSource::default()
    };
    let plan = built(&upon(source.clone()), &sop(), &policy()).unwrap();
    let pinned = Source::Run {
        name: "first".to_owned(),
        uid: "uid-1".to_owned(),
        snapshot: Digest::of("left"),
    };
    assert_eq!(plan.source, Some(pinned));
    assert_eq!(plan.options.project_name, "cards");
    assert_eq!(plan.layout["source"], "cards");
    let mut named = upon(source);
    if let Some(project) = &mut named.spec.project {
        project.name = Some("poker".to_owned());
    }
    let plan = built(&named, &sop(), &policy()).unwrap();
    assert_eq!(plan.options.project_name, "poker");
}

#[test]
fn an_upload_is_pinned_by_its_digest_and_a_source_is_one_thing() {
    let digest = Digest::of("archive");
    let source = ProjectSource {
        upload: Some(digest.to_string()),
        ..ProjectSource::default()
    };
    let plan = built(&upon(source.clone()), &sop(), &policy()).unwrap();
    assert_eq!(plan.source, Some(Source::Upload { digest }));
    for (source, words) in [
        (
            ProjectSource {
                run: Some("first".to_owned()),
                ..source
            },
            "run:spec.project.source: needs exactly one of git, run and upload",
        ),
        (
            ProjectSource::default(),
            "run:spec.project.source: needs exactly one of git, run and upload",
        ),
        (
            ProjectSource {
                upload: Some("sha256:1".to_owned()),
                ..ProjectSource::default()
            },
            "run:spec.project.source.upload: \"sha256:1\" is not a digest",
        ),
    ] {
        let rejection = built(&upon(source), &sop(), &policy()).unwrap_err();
        assert!(rejection.message.contains(words), "{rejection}");
    }
    // Plans of runs without a source are as they always were.
    let plain = built(&run(|_| {}), &sop(), &policy()).unwrap();
    let json = serde_json::to_value(plain).unwrap();
    assert_eq!(json.get("source"), None);
}

#[test]
fn every_default_is_filled_in() {
    let plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    assert_eq!(plan.run.name, "blackjack");
    assert_eq!(plan.options.rounds, 5);
    assert_eq!(plan.options.investment.to_string(), "3.00");
    assert_eq!(plan.options.model, "gpt");
    assert_eq!(plan.options.project_name, "blackjack");
    assert_eq!(plan.options.parameters["language"], "python");
    assert!(plan.options.code_review && plan.options.implement && !plan.options.run_tests);
    assert_eq!(plan.layout["prds"], "docs/prds");
    assert_eq!(plan.llm_concurrency, 4);
}

#[test]
fn a_plan_has_the_tools_that_somebody_is_granted_and_their_workbenches() {
    let mut policy = policy();
    policy.tools = [
        "{name: granted, description: d, command: {argv: [a], image: 'tool:1'}}",
        "{name: tagged, tags: [x], builtin: read_file}",
        "{name: called, builtin: search}",
        "{name: other, description: d, command: {argv: [a], image: 'other:1'}}",
    ]
    .map(|text| serde_saphyr::from_str(text).unwrap())
    .to_vec();
    let mut sop = sop();
    assert!(built(&run(|_| {}), &sop, &policy).unwrap().tools.is_empty());
    sop.roles = vec![serde_saphyr::from_str("{name: r, tools: [granted, 'tag:x']}").unwrap()];
    sop.steps[1].actions.push(
        serde_saphyr::from_str("{name: c, tool: {name: called, arguments: {pattern: x}}}").unwrap(),
    );
    let plan = built(&run(|_| {}), &sop, &policy).unwrap();
    let names: Vec<&str> = plan.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["granted", "tagged", "called"]);
    let images: Vec<&str> = plan
        .workbenches
        .iter()
        .map(|bench| bench.image.as_str())
        .collect();
    assert_eq!(images, ["python:3", "node:22", "tool:1"]);
}

#[test]
fn a_run_with_tests_has_at_least_eight_rounds() {
    for (asked, rounds) in [(None, 8), (Some(3), 8), (Some(20), 20)] {
        let run = run(|spec| {
            spec.run_tests = Some(true);
            spec.rounds = asked;
        });
        assert_eq!(
            built(&run, &sop(), &policy()).unwrap().options.rounds,
            rounds
        );
    }
}

#[test]
fn each_distinct_image_has_one_workbench() {
    let plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    let benches: Vec<_> = plan
        .workbenches
        .iter()
        .map(|b| (b.name.as_str(), b.image.as_str()))
        .collect();
    assert_eq!(
        benches,
        [("workbench-1", "python:3"), ("workbench-2", "node:22")]
    );
}

#[test]
fn what_the_run_says_wins_over_defaults() {
    let run = run(|spec| {
        spec.parameters = [("language".to_owned(), "rust".to_owned())].into();
        spec.project = Some(Project {
            name: Some("cards".to_owned()),
            ..Project::default()
        });
        spec.investment = Some("0.5".parse().unwrap());
    });
    let plan = built(&run, &sop(), &policy()).unwrap();
    assert_eq!(plan.options.parameters["language"], "rust");
    assert_eq!(plan.options.project_name, "cards");
    assert_eq!(plan.options.investment.to_string(), "0.50");
}

#[test]
fn parameters_are_checked_against_their_declaration() {
    let mut sop = sop();
    sop.parameters.push(Parameter {
        name: "target".to_owned(),
        required: Some(true),
        ..Parameter::default()
    });
    let run = run(|spec| spec.parameters = [("langauge".to_owned(), "rust".to_owned())].into());
    let rejection = built(&run, &sop, &policy()).unwrap_err();
    assert_eq!(rejection.reason, FailureReason::InvalidPlan);
    assert_eq!(
        rejection.message,
        "run:spec.parameters[langauge]: SopDefinition \"sop\" declares no parameter \"langauge\"; it has: language, target\n\
         run:spec.parameters[target]: SopDefinition \"sop\" requires the parameter \"target\": set it in the AgentRun"
    );
}

#[test]
fn a_pinned_revision_is_the_only_one_allowed() {
    let mut policy = policy();
    let sop = sop();
    let mut allow = |revision: String| {
        policy.sops = vec![AllowedSop {
            name: "sop".to_owned(),
            revision: Some(revision),
        }];
        built(&run(|_| {}), &sop, &policy)
    };
    assert!(allow(revision(&sop)).is_ok());
    let rejection = allow(format!("sha256:{}", "0".repeat(64))).unwrap_err();
    assert_eq!(rejection.reason, FailureReason::PolicyDenied);
}

#[test]
fn a_plan_survives_compression_and_is_the_same_bytes_each_time() {
    let plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    let bytes = compress(&plan).unwrap();
    assert_eq!(bytes, compress(&plan).unwrap());
    assert_eq!(decompress(&bytes).unwrap(), plan);
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let mut plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    plan.version = 7;
    let error = decompress(&compress(&plan).unwrap()).unwrap_err();
    assert!(matches!(error, ReadPlanError::Version(7)));
}

#[test]
fn a_plan_that_is_too_large_names_its_largest_part() {
    let mut plan = built(&run(|_| {}), &sop(), &policy()).unwrap();
    // Digests do not compress.
    let noise: String = (0..30_000)
        .map(|n: u32| Digest::of(n.to_le_bytes()).hex().to_owned())
        .collect();
    plan.templates.insert("noise".to_owned(), noise);
    let rejection = compress(&plan).unwrap_err();
    assert_eq!(rejection.reason, FailureReason::PlanTooLarge);
    assert!(
        rejection.message.contains("a ConfigMap takes 900 KiB"),
        "{}",
        rejection.message
    );
    assert!(
        rejection.message.contains("templates have 1875 KiB"),
        "{}",
        rejection.message
    );
}

#[test]
fn a_run_recalls_what_earlier_runs_of_its_project_left_where_it_asks_for_it() {
    let fact = |text: &str| Fact {
        run: "game-1".to_owned(),
        sender: "sopwith".to_owned(),
        source: "idea".to_owned(),
        text: text.to_owned(),
    };
    let left = [Facts {
        version: VERSION,
        namespace: "demo".to_owned(),
        project: "game".to_owned(),
        run: "game-1".to_owned(),
        uid: "uid-1".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        facts: vec![fact("a snake game"), fact("a game of cards")],
    }];
    let of_a_state = Recalled {
        facts: vec![fact("known before")],
    };
    let recalled = |on: Option<bool>, left: &[Facts], state: Option<&Recalled>| {
        let run = run(|spec| {
            spec.long_term_memory = on;
            spec.idea = Some("play cards".to_owned());
            spec.project = Some(Project {
                name: Some("game".to_owned()),
                ..Project::default()
            });
        });
        let earlier = state.map(|memory| Earlier {
            state: Some(EarlierState {
                step: "prd".to_owned(),
                usage: Usage::default(),
                plan: Arc::new(RunPlan {
                    memory: Some(memory.clone()),
                    ..RunPlan::default()
                }),
            }),
            ..earlier()
        });
        let plan = build(&PlanInputs {
            run: &run,
            sop: ("sop", &sop()),
            policy: ("default", &policy()),
            idea: "play cards",
            inputs: &BTreeMap::new(),
            templates: &BTreeMap::new(),
            earlier: earlier.as_ref(),
            memory: left,
        });
        let memory = plan.unwrap().memory?;
        let texts = memory.facts.into_iter().map(|fact| fact.text);
        Some(texts.collect::<Vec<_>>())
    };
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    for (on, left, state, expected) in [
        (None, &left[..], None, None),
        (Some(false), &left, None, None),
        (
            Some(true),
            &left,
            None,
            texts(&["a game of cards", "a snake game"]),
        ),
        (Some(true), &[], None, texts(&[])),
        // What a run goes on from was done with that in mind.
        (
            Some(true),
            &left,
            Some(&of_a_state),
            texts(&["known before"]),
        ),
        (None, &left, Some(&of_a_state), None),
    ] {
        assert_eq!(recalled(on, left, state), expected, "{on:?}");
    }
}
