//! Beginning from the state of an earlier run at a finished step.

use sopwith_crds::{
    contract::{
        Digest,
        plan::{Recover, RunPlan},
        report::What,
    },
    status::InheritedGates,
};

use crate::{
    base::{Beginning, SourceError},
    engine::Engine,
    gate::Said,
    gateway::Gateway,
    measures::Measures,
    snapshot::{Blobs, Machine, Record, read},
    sop::{Phase, State},
    trail::taken_over,
    tree::Tree,
    unmet::Unmet,
};

/// The state of an earlier run.
#[derive(Debug)]
pub struct Recovered {
    /// The project.
    pub tree: Tree,
    /// What the run had gathered, as far as it is taken over.
    pub record: Record,
    /// What is kept for this run already.
    pub blobs: Blobs,
}

/// Loads the state that a plan recovers from. Everything that it refers to is this run's own after that.
pub(crate) async fn load(
    plan: &RunPlan,
    recover: &Recover,
    gateway: &Gateway,
) -> Result<Beginning, SourceError> {
    let (snapshot, _) = read(gateway, &recover.snapshot).await?;
    let mut blobs = Blobs::new(gateway.clone());
    let (tree, mut record) = blobs.restore(snapshot, &recover.snapshot).await?;
    take_over(plan, recover.gates, &mut record);
    for digest in evidence(&record) {
        // The gateway makes it this run's own when it gives it.
        gateway.get(&digest).await?;
    }
    for start in record.machine.starts.values().flatten() {
        blobs.earlier(start, &tree).await?;
    }
    Ok(Beginning::State(Box::new(Recovered {
        tree,
        record,
        blobs,
    })))
}

/// Keeps of a record what the new run goes on with. Pure.
fn take_over(plan: &RunPlan, gates: InheritedGates, record: &mut Record) {
    let judge = gates == InheritedGates::JudgedAgain;
    record.cassette.clear();
    let machine = &mut record.machine;
    machine.state = State::recovered(plan, &machine.state, judge);
    machine.worked_seconds = 0;
    machine.tool_calls.clear();
    machine.begun = None;
    machine.made.clear();
    if judge {
        machine.frozen.clear();
        record.trail.clear();
        machine.measures = Measures::default();
        machine.unmet = Unmet::default();
        record.gates.clear();
        record.evidence.clear();
    }
    record.trail = taken_over(std::mem::take(&mut record.trail), &machine.state);
    machine.said = Said::default();
    let Machine { state, starts, .. } = machine;
    starts.retain(|step, _| state.step(step).phase == Phase::Finished);
    record.gates.retain(|name, _| {
        let step = name.split('/').next().unwrap_or_default();
        record.machine.state.step(step).phase == Phase::Finished
    });
}

/// What verdicts rest on.
fn evidence(record: &Record) -> Vec<Digest> {
    let verdicts = record.gates.values();
    let verdicts = verdicts.filter_map(|gate| gate.evidence.as_ref()?.parse().ok());
    let reports = record.evidence.values().map(|entry| entry.digest.clone());
    verdicts.chain(reports).collect()
}

impl Engine {
    /// Says what was taken over, once it is kept.
    pub(crate) fn tell_recovered(&mut self, recover: &Recover, snapshot: Digest) {
        self.pending.push(What::Recovered {
            run: recover.run.clone(),
            step: recover.step.clone(),
            snapshot,
        });
        let plan = std::sync::Arc::clone(&self.plan);
        for step in &plan.steps {
            let state = self.state().step(&step.name);
            let told = match state.phase {
                Phase::Finished => What::StepInherited {
                    step: step.name.clone(),
                    attempts: state.attempts,
                    artifacts: self.artifacts(step),
                    gates: self.verdicts_of(&step.name),
                },
                Phase::Skipped => What::StepSkipped {
                    step: step.name.clone(),
                    message: format!("was skipped in AgentRun {}, too", recover.run),
                },
                Phase::Pending | Phase::Running | Phase::Waiting => continue,
            };
            self.pending.push(told);
        }
    }

    fn verdicts_of(&self, step: &str) -> Vec<sopwith_crds::status::GateStatus> {
        let of_step = |name: &&String| name.split_once('/').is_some_and(|(of, _)| of == step);
        let gates = self.record.gates.iter();
        gates
            .filter(|(name, _)| of_step(name))
            .map(|(_, gate)| gate.clone())
            .collect()
    }
}
