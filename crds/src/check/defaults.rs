//! What holds where nobody says anything else.

use crate::{
    Money,
    agent_run::{Environment, PromptSchema},
    places::PLACES,
};
use std::collections::BTreeMap;

/// Passes forward of a run that names none.
pub const ROUNDS: u32 = 5;
/// The least passes forward of a run with tests that names none.
pub const ROUNDS_WITH_TESTS: u32 = 8;
/// Money of a run that names none: "3.0" US dollars.
pub const INVESTMENT: Money = Money::from_nanos(3_000_000_000);
/// Seconds of one attempt of a step.
pub const STEP_TIMEOUT_SECONDS: u32 = 3600;
/// Seconds without a trace after which a step is stuck.
pub const STUCK_AFTER_SECONDS: u32 = 600;
/// Passes over an item of a loop, where `until` does not hold before.
pub const LOOP_PASSES: u32 = 3;
/// The most passes over an item of any loop; -1 stands for it.
pub const MAX_LOOP_PASSES: u32 = 100;
/// Seconds of a command.
pub const COMMAND_TIMEOUT_SECONDS: u32 = 300;
/// Tokens that a request and its answer may have together.
pub const CONTEXT_WINDOW: u32 = 128_000;
/// Tokens of an answer.
pub const MAX_OUTPUT_TOKENS: u32 = 4096;
/// Seconds of a call of a tool.
pub const TOOL_TIMEOUT_SECONDS: u32 = 60;
/// Turns in one action of a role with tools.
pub const TURNS_WITH_TOOLS: u32 = 10;
/// Actions that a role which picks them itself does in one attempt of a step.
pub const FREE_TURNS: u32 = 10;
/// Requests to models at once, of one run.
pub const LLM_REQUESTS: u32 = 4;

/// The layout of a project: the defaults under what a procedure says. The place `source` is rendered with
/// the project's name.
pub fn layout(own: &BTreeMap<String, String>, project_name: &str) -> BTreeMap<String, String> {
    let mut layout: BTreeMap<String, String> = PLACES
        .into_iter()
        .map(|place| {
            (
                place.name.to_owned(),
                place.path.replace("{{ project.name }}", project_name),
            )
        })
        .collect();
    layout.extend(own.clone());
    layout
}

/// Seconds that a request to a model may take.
pub const fn llm_timeout_seconds(environment: Environment) -> u32 {
    match environment {
        Environment::Dev => 30,
        Environment::Staging => 60,
        Environment::Prod => 90,
    }
}

/// The form in which models are asked to answer.
pub const fn prompt_schema(_: Environment) -> PromptSchema {
    PromptSchema::Json
}

/// Passes forward.
pub fn rounds(asked: Option<u32>, run_tests: bool) -> u32 {
    let rounds = asked.unwrap_or(ROUNDS);
    if run_tests {
        rounds.max(ROUNDS_WITH_TESTS)
    } else {
        rounds
    }
}
