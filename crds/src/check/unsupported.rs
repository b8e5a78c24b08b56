//! Fields that exist, and whose behaviour does not yet: refused when they are set, never ignored.

use super::{Finding, Found};
use crate::{
    AgentRunSpec, SopDefinitionSpec, ToolPolicySpec,
    sop_definition::{Command, Gate, NetworkAccess, Step, Work},
    tool_policy::OnExhausted,
};

pub(super) fn check(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    let mut not_yet = NotYet {
        found: Found::default(),
        object: "run",
    };
    not_yet.run(run);
    not_yet.object = "sop";
    not_yet.sop(sop);
    not_yet.object = "policy";
    not_yet.policy(policy);
    not_yet.found.sorted()
}

struct NotYet {
    found: Found,
    object: &'static str,
}

impl NotYet {
    /// `what` names the value where the field has values that are supported.
    fn refuse(&mut self, set: bool, path: impl AsRef<str>, what: &str) {
        if set {
            let what = if what.is_empty() {
                String::new()
            } else {
                format!("{what} ")
            };
            self.found.add(
                format!("{}:{}", self.object, path.as_ref()),
                format!("{what}is not supported yet; take it away"),
            );
        }
    }

    fn run(&mut self, run: &AgentRunSpec) {
        for feature in run.features.keys() {
            self.refuse(true, format!("spec.features[{feature}]"), "");
        }
        let queue = run
            .runner
            .as_ref()
            .and_then(|runner| runner.queue_name.as_ref());
        self.refuse(queue.is_some(), "spec.runner.queueName", "");
    }

    fn sop(&mut self, sop: &SopDefinitionSpec) {
        for step in &sop.steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let path = format!("spec.steps[{}]", step.name);
        for action in &step.actions {
            let path = format!("{path}.actions[{}]", action.name);
            self.work(&path, &action.work);
            self.gates(&path, &action.gates);
            let Some(repeat) = &action.repeat else {
                continue;
            };
            let path = format!("{path}.loop");
            for action in &repeat.actions {
                let path = format!("{path}.actions[{}]", action.name);
                self.work(&path, &action.work);
                self.gates(&path, &action.gates);
            }
            self.gates(&path, &repeat.gates);
        }
        self.gates(&path, &step.gates);
    }

    fn work(&mut self, path: &str, work: &Work) {
        if let Some(command) = &work.command {
            self.command(&format!("{path}.command"), command);
        }
    }

    fn command(&mut self, path: &str, command: &Command) {
        match command.network {
            Some(NetworkAccess::Loopback) => {
                self.refuse(true, format!("{path}.network"), "loopback");
            }
            Some(NetworkAccess::Egress) => self.refuse(true, format!("{path}.network"), "egress"),
            Some(NetworkAccess::None) | None => {}
        }
    }

    fn gates(&mut self, path: &str, gates: &[Gate]) {
        for gate in gates {
            let path = format!("{path}.gates[{}]", gate.name);
            let Some(command) = &gate.command else {
                continue;
            };
            for (field, program) in command.programs() {
                self.command(&format!("{path}.command.{field}"), program);
            }
        }
    }

    fn policy(&mut self, policy: &ToolPolicySpec) {
        for tool in &policy.tools {
            let path = format!("spec.tools[{}]", tool.name);
            self.refuse(tool.mcp.is_some(), format!("{path}.mcp"), "");
        }
        self.refuse(!policy.packages.is_empty(), "spec.packages", "");
        self.refuse(!policy.egress.is_empty(), "spec.egress", "");
        let observed = policy
            .observability
            .as_ref()
            .and_then(|observability| observability.required);
        self.refuse(
            observed == Some(true),
            "spec.observability.required",
            "true",
        );
        let exhausted = policy
            .budgets
            .as_ref()
            .and_then(|budgets| budgets.on_exhausted);
        self.refuse(
            exhausted == Some(OnExhausted::Pause),
            "spec.budgets.onExhausted",
            "Pause",
        );
        let runs = policy
            .concurrency
            .as_ref()
            .and_then(|concurrency| concurrency.runs);
        self.refuse(runs.is_some(), "spec.concurrency.runs", "");
        self.refuse(policy.redaction.is_some(), "spec.redaction", "");
        self.refuse(policy.retention.is_some(), "spec.retention", "");
        for (index, command) in policy.commands.iter().enumerate() {
            match command.network {
                Some(NetworkAccess::Loopback) => {
                    self.refuse(true, format!("spec.commands[{index}].network"), "loopback");
                }
                Some(NetworkAccess::Egress) => {
                    self.refuse(true, format!("spec.commands[{index}].network"), "egress");
                }
                Some(NetworkAccess::None) | None => {}
            }
        }
    }
}
