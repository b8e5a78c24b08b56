//! Having gates judged in their place in an attempt: the verdict is booked, reported, and steers.

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{
        report::{What, gate_label},
        snapshot::SYSTEM,
        trail::{Entry, Passage},
    },
    sop_definition::{Gate, GateKind},
    status::{FailureReason, GateStatus, Verdict},
};

use super::{
    Bench, Judgement, Read, approval,
    compliance::{self, Trace},
    failed, judge, judge_command, trust,
};
use crate::{
    attempt::{Spot, Stopped, holds},
    engine::Engine,
    measures::{self, Taken},
    messages::{self, Said},
    sop::Fault,
    tree::{Tree, TreeFile, entry},
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
            let path = spot.gate(gate);
            let unmet = self.record.machine.unmet.has(spot.place(&path));
            if !unmet && !self.wanted(spot, gate.when.as_deref())? {
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
            let judgement = self.judge(spot, gate).await?;
            let judgement = trust::enough(self.plan.evidence.as_ref(), gate, judgement);
            self.keep(spot, gate, &judgement);
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

    async fn judge(&mut self, spot: Spot<'_>, gate: &Gate) -> Result<Judgement, Stopped> {
        let observation = match (gate.kind, &gate.command) {
            (GateKind::Command, Some(asked)) => Some(self.observe(spot, gate, asked).await?),
            _ => None,
        };
        let read = observation.as_ref().map(Read::of);
        if let Some(read) = &read {
            self.record.machine.said.add(read);
        }
        let mut context = self.context_of_gate(spot);
        if let Err(why) = self.measure(spot, gate, &mut context) {
            return Ok(failed(why, String::new()));
        }
        if let (Some(asked), Some(read)) = (&gate.command, &read) {
            return Ok(judge_command(asked, read, &context));
        }
        match (&gate.review, gate.kind) {
            (Some(review), GateKind::Review) => self.review(spot, gate, review).await,
            (_, GateKind::Compliance) => {
                let asked = gate.compliance.clone().unwrap_or_default();
                let trace = Trace {
                    plan: &self.plan,
                    trail: &self.record.trail,
                    messages: &self.record.messages,
                };
                Ok(compliance::judge(&asked, &spot.step.name, trace))
            }
            _ => Ok(self
                .tree
                .read(|tree| judge(gate, self.bench(&context, tree)))),
        }
    }

    /// What a gate's expressions see: also what the programs of this attempt's gates have said.
    pub(crate) fn context_of_gate(&self, spot: Spot<'_>) -> Value {
        let mut context = self.context_of(spot);
        self.record.machine.said.show(&mut context);
        context
    }

    pub(super) fn bench<'a>(&'a self, context: &'a Value, tree: &'a Tree) -> Bench<'a> {
        Bench {
            context,
            places: &self.places,
            tree,
            schemas: &self.plan.schemas,
            programs: &self.record.machine.by_programs,
            measures: &self.record.machine.measures,
        }
    }

    /// Takes the gate's numbers and shows them to it.
    fn measure(&mut self, spot: Spot<'_>, gate: &Gate, context: &mut Value) -> Result<(), String> {
        let taken: Result<Vec<_>, String> = gate
            .measures
            .iter()
            .map(|measure| {
                let value = measures::take(measure, context)?;
                let trust = self
                    .tree
                    .read(|tree| trust::of_expression(&measure.value, self.bench(context, tree)));
                let taken = Taken {
                    attempt: spot.attempt,
                    round: self.state().round,
                    value,
                    trust,
                };
                Ok((&measure.name, taken))
            })
            .collect();
        for (name, taken) in taken? {
            self.record.machine.measures.add(name, taken);
        }
        if let Some(object) = context.as_object_mut() {
            let seen = self.record.machine.measures.seen(&self.plan);
            object.insert("measures".to_owned(), seen);
        }
        Ok(())
    }

    /// Keeps what a verdict rests on: for machines by its digest, for people as a file.
    fn keep(&mut self, spot: Spot<'_>, gate: &Gate, judgement: &Judgement) {
        let evidence = serde_json_canonicalizer::to_vec(&judgement.evidence).unwrap_or_default();
        self.blobs.add(evidence.into());
        if let Some(document) = &judgement.document {
            let item = spot
                .label()
                .map_or_else(String::new, |item| format!("-{item}"));
            let name = format!("{}{item}", spot.gate(gate));
            let path = format!("gates/{}/{}.md", spot.step.name, file_name(&name));
            self.keep_file(&path, document.clone().into());
        }
    }

    /// Keeps a file of the evidence.
    pub(super) fn keep_file(&mut self, path: &str, bytes: Bytes) {
        let file = TreeFile {
            bytes,
            executable: false,
        };
        let kept = entry(path, &file);
        self.blobs.add(file.bytes);
        self.record.evidence.insert(kept.path.clone(), kept);
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
        let entry = Entry {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            round: self.state().round,
            what: Passage::Judged {
                gate: spot.gate(gate),
                kind: gate.kind,
                verdict,
                trust: status.trust,
                by: status.decided_by.clone(),
            },
        };
        self.record.trail.push(entry);
        let path = spot.gate(gate);
        self.record.machine.unmet.book(spot.place(&path), verdict);
        // A verdict's evidence is canonical; only the report has a time.
        self.record
            .gates
            .insert(format!("{}/{}", spot.step.name, gate.name), status.clone());
        let observed = status.observed.clone().unwrap_or_default();
        let said = format!(
            "{} {verdict:?}: {observed}\n{findings}",
            gate_label(gate.kind, &gate.name)
        );
        let source = spot.gate(gate);
        let failed = verdict == Verdict::Failed;
        let said = Said {
            sender: SYSTEM,
            recipients: messages::judged(&self.plan, spot.step, gate, failed),
            source: &source,
            verdict: Some(verdict),
            content: said.trim_end().to_owned(),
            ..Said::default()
        };
        self.say(spot, said);
        status.at = Some(Time(Timestamp::now()));
        self.report_verdict(What::GateJudged {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            gate: status,
            findings,
        });
    }

    /// Why the attempt stops: the gate, its rules, what has to be mended, and what a person would be asked.
    fn failed(&self, spot: Spot<'_>, index: usize, gate: &Gate, judgement: &Judgement) -> Stopped {
        let message = format!("gate {} failed: {}", gate.name, judgement.observed);
        let found = Found {
            status: &judgement.status(gate),
            findings: &judgement.findings,
        };
        let fault = match self.fault(spot, gate, FailureReason::GateFailed, message, found) {
            Ok(fault) => fault,
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
        found: Found<'_>,
    ) -> Result<Fault, Stopped> {
        let mut context = self.context_of_gate(spot);
        found.show(&mut context);
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
            findings: found.findings.to_owned(),
            message,
        })
    }
}

/// A text as the name of a file.
fn file_name(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = text.chars().map(|c| if plain(c) { c } else { '-' });
    name.take(100).collect()
}

/// What a gate found, as its rules see it.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) status: &'a GateStatus,
    pub(crate) findings: &'a str,
}

impl Found<'_> {
    fn show(&self, context: &mut Value) {
        let Some(object) = context.as_object_mut() else {
            return;
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let gate = json!({
            "name": self.status.name,
            "kind": self.status.kind,
            "observed": text(&self.status.observed),
            "threshold": text(&self.status.threshold),
            "findings": self.findings,
        });
        object.insert("gate".to_owned(), gate);
    }
}
