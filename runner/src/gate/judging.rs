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

use super::{Bench, Judgement, approval, judge, judge_command};
use crate::{
    action::command::{self, Rendered, RenderedCanary},
    attempt::{Spot, Stopped, holds},
    engine::Engine,
    sop::Fault,
    tree::{TreeFile, entry},
};

impl Engine {
    /// Judges gates in order but for the first `judged`; the first that fails, or that only people judge, stops the attempt.
    pub(crate) async fn gates(
        &mut self,
        spot: Spot<'_>,
        gates: &[Gate],
        judged: usize,
    ) -> Result<(), Stopped> {
        for (index, gate) in gates.iter().enumerate().skip(judged) {
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
            if gate.kind == GateKind::Approval {
                return Err(self.ask(spot, index, gate));
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
                return Err(self.failed(spot, index, gate, &judgement));
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
    pub(crate) fn judged(
        &mut self,
        spot: Spot<'_>,
        gate: &Gate,
        mut status: GateStatus,
        findings: String,
    ) {
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

    /// Why the attempt stops: the gate, its rules, what has to be mended, and what a person would be asked.
    fn failed(&self, spot: Spot<'_>, index: usize, gate: &Gate, judgement: &Judgement) -> Stopped {
        let message = format!("gate {} failed: {}", gate.name, judgement.observed);
        let fault = match self.fault(spot, gate, FailureReason::GateFailed, message) {
            Ok(fault) => Fault {
                findings: judgement.findings.clone(),
                ..fault
            },
            Err(stopped) => return stopped,
        };
        let asked = spot.point(index).map(|point| {
            let failed = approval::Failed {
                observed: judgement.observed.clone(),
                findings: judgement.findings.clone(),
                evidence: judgement.digest(),
            };
            Box::new(self.asked(spot, point, gate, Some(failed)))
        });
        Stopped::Gate {
            fault: Box::new(fault),
            asked,
        }
    }

    /// A gate that failed, with what its rules say now.
    pub(crate) fn fault(
        &self,
        spot: Spot<'_>,
        gate: &Gate,
        reason: FailureReason,
        message: String,
    ) -> Result<Fault, Stopped> {
        let context = self.context_of(spot);
        let applies = |when: &String| {
            holds(when, &context).map_err(|error| {
                let message = format!(
                    "when of a rule of gate {} cannot be judged: {error}",
                    spot.gate(gate)
                );
                Stopped::Failed(FailureReason::InvalidPlan, message)
            })
        };
        let rules = gate.on_failure.iter().map(|rule| {
            let applies = rule.when.as_ref().map_or(Ok(true), applies)?;
            Ok((rule.clone(), applies))
        });
        Ok(Fault {
            step: spot.step.name.clone(),
            gate: spot.gate(gate),
            rules: rules.collect::<Result<_, Stopped>>()?,
            exhausted: gate.exhausted.unwrap_or_default(),
            reason,
            findings: String::new(),
            message,
        })
    }
}
