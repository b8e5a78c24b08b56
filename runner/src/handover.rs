//! What a step is given and hands over: whether it may begin, its files, whether they are as declared, and that frozen
//! ones stay as they were.

use sopwith_crds::{
    contract::{Digest, snapshot::TreeEntry},
    language::Expression,
    sop_definition::Step,
    status::{ArtifactsRef, FailureReason},
};

use crate::{
    attempt::Stopped, context::Place, engine::Engine, gate::mismatches, snapshot::Frozen,
    sop::Phase, tree::entry,
};

impl Engine {
    /// Whether a step is asked for; an error where it cannot begin.
    pub(crate) fn may_begin(&self, step: &Step) -> Result<bool, (FailureReason, String)> {
        let context = self.context(step, self.state().step(&step.name).attempts + 1, "", None);
        let holds = |field: &str, text: &str| {
            let judged =
                Expression::compile(text).and_then(|expression| expression.holds(&context));
            judged.map_err(|error| {
                (
                    FailureReason::InvalidPlan,
                    format!("{field} of step {} cannot be judged: {error}", step.name),
                )
            })
        };
        // What failed has to pass before it can be left out.
        let unmet = self.record.machine.unmet.in_step(&step.name);
        if let Some(when) = &step.when
            && !unmet
            && !holds("when", when)?
        {
            return Ok(false);
        }
        for input in step
            .inputs
            .iter()
            .filter(|input| !input.optional.unwrap_or(false))
        {
            let place = self
                .places
                .iter()
                .find(|place| place.name == input.artifact);
            let there = place.is_some_and(|place| {
                self.tree
                    .read(|tree| place.paths(tree))
                    .is_ok_and(|paths| !paths.is_empty())
            });
            if !there {
                let message = format!(
                    "step {} needs the artifact {}, which is not there",
                    step.name, input.artifact
                );
                return Err((FailureReason::GateFailed, message));
            }
        }
        if let Some(prerequisite) = &step.prerequisite
            && !holds("prerequisite", prerequisite)?
        {
            let message = format!(
                "the prerequisite of step {} does not hold: {prerequisite}",
                step.name
            );
            return Err((FailureReason::GateFailed, message));
        }
        Ok(true)
    }

    /// The files that a step hands over.
    pub(crate) fn files(&self, step: &Step) -> Vec<TreeEntry> {
        let own = self.places.iter().filter(|place| place.step == step.name);
        self.tree.read(|tree| {
            let mut paths: Vec<String> = own
                .flat_map(|place| place.paths(tree).unwrap_or_default())
                .collect();
            paths.sort();
            paths.dedup();
            paths
                .iter()
                .filter_map(|path| tree.get(path).map(|file| entry(path, file)))
                .collect()
        })
    }

    pub(crate) fn artifacts(&mut self, step: &Step) -> Option<ArtifactsRef> {
        let files = self.files(step);
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
        let manifest = Digest::of_json(&files).to_string();
        (count > 0).then_some(ArtifactsRef { manifest, count })
    }

    pub(crate) fn handed_over(&self, step: &Step) -> String {
        match self.files(step).as_slice() {
            [] => "every gate passed".to_owned(),
            [one] => format!("handed over {}", one.path),
            [first, rest @ ..] => format!("handed over {} and {} more", first.path, rest.len()),
        }
    }

    pub(crate) fn freeze(&mut self, step: &Step) {
        let guard = &self.guard;
        let own: Vec<Place> = self
            .places
            .iter()
            .filter(|place| place.step == step.name && place.frozen)
            .cloned()
            .collect();
        for place in own {
            let files = self.tree.read(|tree| {
                let paths = place.paths(tree).unwrap_or_default();
                // What the system keeps goes on changing.
                let paths = paths.into_iter().filter(|path| !guard.is_own(path));
                paths
                    .filter_map(|path| tree.get(&path).map(|file| (path, Digest::of(&file.bytes))))
                    .collect::<Vec<_>>()
            });
            for (path, digest) in files {
                let frozen = Frozen {
                    artifact: place.name.clone(),
                    step: step.name.clone(),
                    digest,
                };
                self.record.machine.frozen.insert(path, frozen);
            }
        }
    }

    /// What belongs to steps that are open again may change again.
    pub(crate) fn thaw(&mut self) {
        let state = self.record.machine.state.clone();
        self.record
            .machine
            .frozen
            .retain(|_, frozen| state.step(&frozen.step).phase == Phase::Finished);
    }

    /// A step hands over what it declares, and JSON that matches its schema.
    pub(crate) fn outputs_are_there(&self, step: &Step) -> Result<(), Stopped> {
        for place in self.places.iter().filter(|place| place.step == step.name) {
            let Some(path) = &place.path else { continue };
            let text = self.tree.read(|tree| tree.text(path));
            let problem = match (
                &text,
                place
                    .schema
                    .as_ref()
                    .and_then(|name| self.plan.schemas.get(name)),
            ) {
                (None, _) => Some(format!(
                    "the output {} is missing: there is no file {path}",
                    place.name
                )),
                (Some(text), Some(schema)) => {
                    let problems = mismatches(schema, text);
                    (!problems.is_empty()).then(|| {
                        format!(
                            "the output {} ({path}) does not match its schema: {}",
                            place.name,
                            problems.join("; ")
                        )
                    })
                }
                (Some(_), None) => None,
            };
            if let Some(message) = problem {
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
        }
        Ok(())
    }

    /// What an earlier step froze is as it was.
    pub(crate) fn frozen_are_unchanged(&self, step: &Step) -> Result<(), Stopped> {
        for (path, frozen) in self
            .record
            .machine
            .frozen
            .iter()
            .filter(|(_, frozen)| frozen.step != step.name)
        {
            let digest = self
                .tree
                .read(|tree| tree.get(path).map(|file| Digest::of(&file.bytes)));
            if digest.as_ref() != Some(&frozen.digest) {
                let message = format!(
                    "step {} changed {path}, which belongs to the frozen artifact {} of step {}",
                    step.name, frozen.artifact, frozen.step
                );
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
        }
        Ok(())
    }
}
