//! Having gates judged in their place in an attempt: the verdict is booked, reported, and steers.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sopwith_crds::{
    contract::report::{What, gate_label},
    sop_definition::{Canary, Gate, GateKind},
    status::{FailureReason, GateStatus, Verdict},
};

use super::{Bench, Judgement, judge, judge_command};
use crate::{
    action::command::{self, Rendered, RenderedCanary},
    attempt::{Spot, Stopped, holds},
    engine::Engine,
    tree::{TreeFile, entry},
};

impl Engine {
    /// Judges gates in order; the first that fails stops the attempt.
    pub(crate) async fn gates(&mut self, spot: Spot<'_>, gates: &[Gate]) -> Result<(), Stopped> {
        for gate in gates {
            if !self.wanted(spot, gate.when.as_deref())? {
                let status = GateStatus {
                    name: gate.name.clone(),
                    kind: gate.kind,
                    verdict: Verdict::Skipped,
                    ..GateStatus::default()
                };
                self.judged(spot, gate, status, String::new());
                continue;
            }
            let context = self.context_of(spot);
            let judgement = self.judge(spot, gate, &context).await?;
            let evidence =
                serde_json_canonicalizer::to_vec(&judgement.evidence).unwrap_or_default();
            self.blobs.add(evidence.into());
            self.judged(
                spot,
                gate,
                judgement.status(gate),
                judgement.findings.clone(),
            );
            if !judgement.passed {
                return Err(stopped(spot, gate, &judgement, &context));
            }
        }
        Ok(())
    }

    async fn judge(
        &mut self,
        spot: Spot<'_>,
        gate: &Gate,
        context: &Value,
    ) -> Result<Judgement, Stopped> {
        let (GateKind::Command, Some(asked)) = (gate.kind, &gate.command) else {
            let plan = Arc::clone(&self.plan);
            return Ok(self.tree.read(|tree| {
                judge(
                    gate,
                    Bench {
                        context,
                        places: &self.places,
                        tree,
                        schemas: &plan.schemas,
                    },
                )
            }));
        };
        let commands: Result<Vec<Rendered>, Stopped> = asked
            .run
            .iter()
            .map(|command| self.rendered(command, context))
            .collect();
        let canaries: Result<Vec<RenderedCanary>, Stopped> = asked
            .canaries
            .iter()
            .map(|canary| self.canary(canary, context))
            .collect();
        let (commands, canaries) = (commands?, canaries?);
        let observation =
            command::observe(&self.benches, &self.tree, asked, &commands, &canaries).await?;
        for report in &observation.reports {
            if let Ok(bytes) = &report.bytes {
                let file = TreeFile {
                    bytes: bytes.clone().into(),
                    executable: false,
                };
                let kept = entry(&report.path, &file);
                self.blobs.add(file.bytes);
                self.record.evidence.insert(kept.path.clone(), kept);
            }
        }
        tracing::info!(
            step = spot.step.name,
            gate = gate.name,
            programs = observation.ran.len(),
            "gate ran"
        );
        Ok(judge_command(asked, &observation, context))
    }

    fn canary(&self, canary: &Canary, context: &Value) -> Result<RenderedCanary, Stopped> {
        Ok(RenderedCanary {
            name: canary.name.clone(),
            path: self.templates.render_inline(&canary.path, context)?,
            text: self.templates.render(&canary.template, context)?,
            run: self.rendered(&canary.run, context)?,
            exit_code: canary.exit_code.unwrap_or(1).into(),
        })
    }

    /// Books a verdict.
    fn judged(&mut self, spot: Spot<'_>, gate: &Gate, mut status: GateStatus, findings: String) {
        let verdict = status.verdict;
        // A verdict's evidence is canonical; only the report has a time.
        self.record
            .gates
            .insert(format!("{}/{}", spot.step.name, gate.name), status.clone());
        let observed = status.observed.clone().unwrap_or_default();
        let said = format!(
            "{} {verdict:?}: {observed}\n{findings}",
            gate_label(gate.kind, &gate.name)
        );
        self.say(
            "sopwith",
            format!("{}/{}", spot.step.name, spot.gate(gate)),
            spot.attempt,
            said.trim_end().to_owned(),
            Vec::new(),
            (0, 0),
        );
        status.at = Some(Time(Timestamp::now()));
        self.reporter.record([What::GateJudged {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            gate: status,
            findings,
        }]);
    }
}

/// Why the attempt stops: the gate, its rules, and what has to be mended.
fn stopped(spot: Spot<'_>, gate: &Gate, judgement: &Judgement, context: &Value) -> Stopped {
    let mut rules = Vec::new();
    for rule in &gate.on_failure {
        let applies = match &rule.when {
            None => true,
            Some(when) => match holds(when, context) {
                Ok(applies) => applies,
                Err(error) => {
                    let message = format!(
                        "when of a rule of gate {} cannot be judged: {error}",
                        spot.gate(gate)
                    );
                    return Stopped::Failed(FailureReason::InvalidPlan, message);
                }
            },
        };
        rules.push((rule.clone(), applies));
    }
    Stopped::Gate {
        gate: spot.gate(gate),
        rules,
        findings: judgement.findings.clone(),
        message: format!("gate {} failed: {}", gate.name, judgement.observed),
    }
}
