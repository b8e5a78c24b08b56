//! The metrics. Labels never hold a run's name, a UID or free text, so that their number stays bounded.

use crate::gateway::{BatchContext, Observer};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use sopwith_crds::{
    AgentRun,
    conditions::{self, STEP_STUCK},
    contract::report::{ReportBatch, ToolStatus, What},
    status::Phase,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

/// Whose run it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    environment: String,
    sop: String,
    phase: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    namespace: String,
    environment: String,
    sop: String,
    step: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    namespace: String,
    environment: String,
    sop: String,
    step: String,
    gate: String,
    status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    environment: String,
    sop: String,
    provider: String,
    model: String,
    status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    namespace: String,
    environment: String,
    sop: String,
    provider: String,
    model: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    namespace: String,
    environment: String,
    sop: String,
    provider: String,
    model: String,
    direction: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToolLabels {
    namespace: String,
    environment: String,
    sop: String,
    tool: String,
    critical: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToolCallLabels {
    namespace: String,
    environment: String,
    sop: String,
    tool: String,
    critical: String,
    status: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    namespace: String,
    policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: String,
    reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Ratio = Gauge<f64, AtomicU64>;

/// Every metric of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Gauges are cleared and filled at each scrape, one scrape at a time.
    scrape: Mutex<()>,
    runs: Family<PhaseLabels, Gauge>,
    stuck: Family<StepLabels, Gauge>,
    budget: Family<PolicyLabels, Ratio>,
    steps: Histograms<StepLabels>,
    gates: Family<GateLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    latency: Histograms<ModelLabels>,
    tokens: Family<TokenLabels, Counter>,
    tools: Family<ToolCallLabels, Counter>,
    tool_latency: Histograms<ToolLabels>,
    errors: Family<ErrorLabels, Counter>,
    answers: Family<StatusLabels, Counter>,
    admission: Gauge,
}

/// How much of a policy's day budget is used.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetUsed {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub policy: String,
    /// 1 is all of it.
    pub ratio: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        let step_seconds: fn() -> Histogram = || {
            Histogram::new([
                1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
            ])
        };
        let request_seconds: fn() -> Histogram =
            || Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0]);
        let mut metrics = Self {
            registry: Registry::with_prefix("sopwith"),
            scrape: Mutex::default(),
            runs: Family::default(),
            stuck: Family::default(),
            budget: Family::default(),
            steps: Family::new_with_constructor(step_seconds),
            gates: Family::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(request_seconds),
            tokens: Family::default(),
            tools: Family::default(),
            tool_latency: Family::new_with_constructor(request_seconds),
            errors: Family::default(),
            answers: Family::default(),
            admission: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Counts a failed reconciliation of a kind, by the stage that failed.
    pub fn reconcile_failed(&self, kind: &str, reason: &str) {
        let labels = ErrorLabels {
            kind: kind.to_owned(),
            reason: reason.to_owned(),
        };
        self.errors.get_or_create(&labels).inc();
    }

    /// Notes whether the API server proves who asks for runs and who decides.
    pub fn admission_enforced(&self, enforced: bool) {
        self.admission.set(i64::from(enforced));
    }

    /// Notes how long an attempt of a step took.
    pub fn step_ended(&self, run: &AgentRun, step: &str, seconds: f64) {
        let (namespace, environment, sop) = whose(run);
        let labels = StepLabels {
            namespace,
            environment,
            sop,
            step: step.to_owned(),
        };
        self.steps.get_or_create(&labels).observe(seconds);
    }

    /// Everything in the text format of Prometheus, gauges as of `runs` and `budgets`.
    pub fn text<'a>(
        &self,
        runs: impl Iterator<Item = &'a AgentRun>,
        budgets: impl Iterator<Item = BudgetUsed>,
    ) -> Result<String, std::fmt::Error> {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshot(runs);
        self.budget.clear();
        for used in budgets {
            let labels = PolicyLabels {
                namespace: used.namespace,
                policy: used.policy,
            };
            self.budget.get_or_create(&labels).set(used.ratio);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("runs", "Runs by phase", self.runs.clone());
        registry.register(
            "steps_stuck",
            "Steps at work without a trace for too long",
            self.stuck.clone(),
        );
        registry.register(
            "budget_used_ratio",
            "The larger of the used shares of a policy's tokens and money of the day; 1 is all of it",
            self.budget.clone(),
        );
        registry.register(
            "step_duration_seconds",
            "How long attempts of steps took",
            self.steps.clone(),
        );
        registry.register("gate_verdicts", "Verdicts of gates", self.gates.clone());
        registry.register("llm_requests", "Requests to models", self.requests.clone());
        registry.register(
            "llm_request_duration_seconds",
            "How long requests to models took, to the end of the answer",
            self.latency.clone(),
        );
        registry.register(
            "llm_tokens",
            "Tokens sent to (input) and received from (output) models",
            self.tokens.clone(),
        );
        registry.register("tool_calls", "Calls of tools", self.tools.clone());
        registry.register(
            "tool_call_duration_seconds",
            "How long calls of tools took, to the end of the result",
            self.tool_latency.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciliations",
            self.errors.clone(),
        );
        registry.register(
            "gateway_requests",
            "Requests to the gateway by HTTP status",
            self.answers.clone(),
        );
        registry.register(
            "admission_enforced",
            "1 where the API server proves who asks for runs and who decides, else 0",
            self.admission.clone(),
        );
    }

    fn snapshot<'a>(&self, runs: impl Iterator<Item = &'a AgentRun>) {
        let mut phases: BTreeMap<(String, String, String), BTreeMap<String, i64>> = BTreeMap::new();
        self.stuck.clear();
        for run in runs {
            let whose = whose(run);
            let status = run.status.clone().unwrap_or_default();
            let of = phases.entry(whose.clone()).or_insert_with(|| {
                Phase::ALL
                    .iter()
                    .map(|phase| (phase.to_string(), 0))
                    .collect()
            });
            *of.entry(status.phase.unwrap_or_default().to_string())
                .or_default() += 1;
            if conditions::is_true(&status.conditions, STEP_STUCK) {
                let labels = StepLabels {
                    namespace: whose.0,
                    environment: whose.1,
                    sop: whose.2,
                    step: status.current_step.unwrap_or_default(),
                };
                self.stuck.get_or_create(&labels).inc();
            }
        }
        self.runs.clear();
        for ((namespace, environment, sop), of) in phases {
            for (phase, count) in of {
                let labels = PhaseLabels {
                    namespace: namespace.clone(),
                    environment: environment.clone(),
                    sop: sop.clone(),
                    phase,
                };
                self.runs.get_or_create(&labels).set(count);
            }
        }
    }

    fn count(&self, context: &BatchContext, what: &What) {
        let namespace = context.namespace.clone();
        let environment = context.environment.as_str().to_owned();
        let sop = context.sop.clone();
        match what {
            What::GateJudged { step, gate, .. } => {
                let labels = GateLabels {
                    namespace,
                    environment,
                    sop,
                    step: step.clone(),
                    gate: gate.name.clone(),
                    status: format!("{:?}", gate.verdict),
                };
                self.gates.get_or_create(&labels).inc();
            }
            What::LlmRequest {
                provider,
                model,
                status,
                seconds,
                input_tokens,
                output_tokens,
                ..
            } => {
                let model = ModelLabels {
                    namespace,
                    environment,
                    sop,
                    provider: provider.as_str().to_owned(),
                    model: model.clone(),
                };
                self.latency.get_or_create(&model).observe(*seconds);
                self.requests.get_or_create(&requests(&model, status)).inc();
                for (direction, count) in [("input", *input_tokens), ("output", *output_tokens)] {
                    self.tokens
                        .get_or_create(&tokens(&model, direction))
                        .inc_by(count);
                }
            }
            What::ToolCall {
                tool,
                critical,
                status,
                seconds,
                ..
            } => {
                let labels = ToolLabels {
                    namespace,
                    environment,
                    sop,
                    tool: tool.clone(),
                    critical: critical.to_string(),
                };
                self.tool_latency.get_or_create(&labels).observe(*seconds);
                self.tools.get_or_create(&calls(labels, *status)).inc();
            }
            _ => {}
        }
    }
}

impl Observer for Metrics {
    fn on_batch(&self, context: &BatchContext, batch: &ReportBatch) {
        for event in &batch.events {
            self.count(context, &event.what);
        }
    }

    fn on_request(&self, status: u16) {
        let labels = StatusLabels {
            status: status.to_string(),
        };
        self.answers.get_or_create(&labels).inc();
    }
}

/// Namespace, environment and procedure of a run.
fn whose(run: &AgentRun) -> (String, String, String) {
    (
        run.metadata.namespace.clone().unwrap_or_default(),
        run.spec.environment.unwrap_or_default().as_str().to_owned(),
        run.spec.sop_ref.name.clone(),
    )
}

fn requests(model: &ModelLabels, status: &str) -> RequestLabels {
    let model = model.clone();
    RequestLabels {
        namespace: model.namespace,
        environment: model.environment,
        sop: model.sop,
        provider: model.provider,
        model: model.model,
        status: status.to_owned(),
    }
}

fn calls(tool: ToolLabels, status: ToolStatus) -> ToolCallLabels {
    ToolCallLabels {
        namespace: tool.namespace,
        environment: tool.environment,
        sop: tool.sop,
        tool: tool.tool,
        critical: tool.critical,
        status: status.as_str().to_owned(),
    }
}

fn tokens(model: &ModelLabels, direction: &str) -> TokenLabels {
    let model = model.clone();
    TokenLabels {
        namespace: model.namespace,
        environment: model.environment,
        sop: model.sop,
        provider: model.provider,
        model: model.model,
        direction: direction.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::{
        AgentRunSpec, AgentRunStatus, agent_run::LocalRef, conditions::Said,
        contract::report::Event, tool_policy::Provider,
    };

    fn run(name: &str, status: AgentRunStatus) -> AgentRun {
        let spec = AgentRunSpec {
            sop_ref: LocalRef {
                name: "sop".to_owned(),
            },
            ..AgentRunSpec::default()
        };
        let mut run = AgentRun::new(name, spec);
        run.metadata.namespace = Some("demo".to_owned());
        run.status = Some(status);
        run
    }

    fn stuck() -> AgentRunStatus {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        );
        AgentRunStatus {
            phase: Some(Phase::Running),
            current_step: Some("qa".to_owned()),
            conditions: conditions::set(
                &[],
                vec![Said::yes(STEP_STUCK, "NoTrace", "x")],
                None,
                &now,
            ),
            ..AgentRunStatus::default()
        }
    }

    #[test]
    fn a_stuck_step_shows_and_vanishes_with_its_labels() {
        let metrics = Metrics::default();
        let text = metrics
            .text([run("a", stuck())].iter(), std::iter::empty())
            .unwrap();
        let line =
            "sopwith_steps_stuck{namespace=\"demo\",environment=\"dev\",sop=\"sop\",step=\"qa\"} 1";
        assert!(text.contains(line), "{text}");
        let freed = AgentRunStatus {
            phase: Some(Phase::Succeeded),
            ..AgentRunStatus::default()
        };
        let text = metrics
            .text([run("a", freed)].iter(), std::iter::empty())
            .unwrap();
        assert!(!text.contains("step=\"qa\""), "{text}");
        let line = "sopwith_runs{namespace=\"demo\",environment=\"dev\",sop=\"sop\",phase=\"Succeeded\"} 1";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn calls_of_tools_are_counted_by_status_and_whether_they_are_critical() {
        let metrics = Metrics::default();
        let call = |critical, status| Event {
            at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            what: What::ToolCall {
                step: "write".to_owned(),
                tool: "tracker".to_owned(),
                function: Some("find".to_owned()),
                critical,
                status,
                seconds: 0.3,
            },
        };
        let batch = ReportBatch {
            events: vec![
                call(true, ToolStatus::Ok),
                call(true, ToolStatus::Failed),
                call(true, ToolStatus::Failed),
                call(false, ToolStatus::Denied),
            ],
            ..ReportBatch::default()
        };
        metrics.on_batch(&BatchContext::default(), &batch);
        let text = metrics
            .text(std::iter::empty(), std::iter::empty())
            .unwrap();
        for line in [
            "sopwith_tool_calls_total{namespace=\"\",environment=\"dev\",sop=\"\",tool=\"tracker\",critical=\"true\",status=\"failed\"} 2",
            "tool=\"tracker\",critical=\"true\",status=\"ok\"} 1",
            "tool=\"tracker\",critical=\"false\",status=\"denied\"} 1",
            "sopwith_tool_call_duration_seconds_count{namespace=\"\",environment=\"dev\",sop=\"\",tool=\"tracker\",critical=\"true\"} 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_batch_counts_requests_tokens_and_latency() {
        let metrics = Metrics::default();
        let batch = ReportBatch {
            events: vec![Event {
                at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
                what: What::LlmRequest {
                    step: "write".to_owned(),
                    endpoint: "main".to_owned(),
                    provider: Provider::Openai,
                    model: "gpt".to_owned(),
                    status: "ok".to_owned(),
                    seconds: 0.3,
                    input_tokens: 100,
                    cached_input_tokens: 0,
                    output_tokens: 7,
                    reasoning_tokens: 3,
                },
            }],
            ..ReportBatch::default()
        };
        let context = BatchContext {
            namespace: "demo".to_owned(),
            sop: "sop".to_owned(),
            ..BatchContext::default()
        };
        metrics.on_batch(&context, &batch);
        let used = BudgetUsed {
            namespace: "demo".to_owned(),
            policy: "default".to_owned(),
            ratio: 0.25,
        };
        let text = metrics
            .text(std::iter::empty(), [used].into_iter())
            .unwrap();
        for line in [
            "provider=\"openai\",model=\"gpt\",status=\"ok\"} 1",
            "provider=\"openai\",model=\"gpt\",direction=\"input\"} 100",
            "provider=\"openai\",model=\"gpt\",direction=\"output\"} 7",
            "sopwith_budget_used_ratio{namespace=\"demo\",policy=\"default\"} 0.25",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
