//! What `runner local` costs of its own: procedures of one call a step, against a model that answers at once over HTTP.
//!
//! `make bench` prints a table. Times are the best and the middle of several runs, from the start of the process to its end;
//! memory is the most that any of them held.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/flow/server.rs"]
mod server;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

/// Runs of each procedure.
const RUNS: usize = 15;
/// Steps of the procedures; the first is five roles with one call each.
const STEPS: [usize; 3] = [5, 20, 64];

/// A procedure of so many steps, each with one call and one gate, and each reading what the one before it wrote; of as many roles,
/// up to what a procedure may have.
fn procedure(steps: usize) -> String {
    let roles = steps.min(32);
    let role = |role: usize| json!({"name": format!("role-{role}"), "profile": "Writer", "goal": "Write a part."});
    let step = |step: usize| {
        let before = step.checked_sub(1);
        json!({
            "name": format!("step-{step}"),
            "role": format!("role-{}", step % roles),
            "needs": before.map(|before| format!("step-{before}")).into_iter().collect::<Vec<_>>(),
            "inputs": before.map(|before| json!({"artifact": format!("part{before}")})).into_iter().collect::<Vec<_>>(),
            "outputs": [{"name": format!("part{step}"), "path": format!("docs/part-{step}.md")}],
            "actions": [{"name": "write", "prompt": {"template": format!("write-{step}"), "writes": {"artifact": format!("part{step}")}}}],
            "gates": [{"name": "there", "kind": "expression", "expression": format!("size(artifacts.part{step}.text) > 100")}],
        })
    };
    let template = |step: usize| {
        let before = step.checked_sub(1);
        let part = before.map(|before| format!(" {{{{ artifacts.part{before}.text }}}}"));
        format!(
            "{{{{ idea }}}}, part {{{{ role.name }}}}.{}",
            part.unwrap_or_default()
        )
    };
    let templates: serde_json::Map<_, _> = (0..steps)
        .map(|step| (format!("write-{step}"), json!(template(step))))
        .collect();
    json!({
        "apiVersion": "sopwith.dev/v1alpha1",
        "kind": "SopDefinition",
        "metadata": {"name": "line"},
        "spec": {
            "templates": templates,
            "roles": (0..roles).map(role).collect::<Vec<_>>(),
            "steps": (0..steps).map(step).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

fn policy(address: &str) -> String {
    format!(
        "apiVersion: sopwith.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: default}}\nspec:\n  llm:\n  - name: model\n    provider: openai\n    baseUrl: {address}\n    models: [{{name: gpt, inputPerMillion: \"0\", outputPerMillion: \"0\"}}]\n"
    )
}

const RUN: &str = "apiVersion: sopwith.dev/v1alpha1\nkind: AgentRun\nmetadata: {name: bench}\nspec:\n  idea: write a thing\n  sopRef: {name: line}\n";

fn flown(folder: &Path) -> Duration {
    let begun = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_sopwith-runner"))
        .args([
            "local",
            "--sop",
            "sop.yaml",
            "--policy",
            "policy.yaml",
            "--run",
            "run.yaml",
            "--out",
            "out",
        ])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    begun.elapsed()
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let text = "This part says what it has to say, and a little more, as models do. ".repeat(30);
    let model: server::Model = Arc::new(move |_| Some(text.clone()));
    let address = runtime.block_on(server::serve(model));
    println!("| steps | wall time, best | middle | per step beyond 5 | peak memory so far |");
    println!("|---|---|---|---|---|");
    let mut five = Duration::ZERO;
    for steps in STEPS {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("sop.yaml", &procedure(steps));
        write("policy.yaml", &policy(&address));
        write("run.yaml", RUN);
        let mut times: Vec<Duration> = (0..RUNS).map(|_| flown(folder.path())).collect();
        times.sort();
        let (best, middle) = (times[0], times[RUNS / 2]);
        if steps == STEPS[0] {
            five = middle;
        }
        let more = u32::try_from(steps - STEPS[0]).unwrap();
        let each = middle
            .saturating_sub(five)
            .checked_div(more)
            .unwrap_or_default();
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        println!(
            "| {steps} | {:.1} ms | {:.1} ms | {:.2} ms | {} MB |",
            best.as_secs_f64() * 1e3,
            middle.as_secs_f64() * 1e3,
            each.as_secs_f64() * 1e3,
            usage.max_rss() / 1024
        );
    }
}
