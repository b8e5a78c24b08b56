//! Items of a loop at once. Each is worked on by an engine of its own, which sees the project as it was when the loop began
//! and what it wrote itself; what they leave is put together in the order of the items. So what comes out does not depend on
//! which model was faster.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use sopwith_crds::{
    contract::report::What,
    sop_definition::Loop,
    status::{FailureReason, GateStatus},
};

use crate::{
    attempt::{Item, Spot, Stopped},
    engine::Engine,
    git::history::History,
    snapshot::{Machine, Record},
    tree::{Tree, TreeFile},
};

/// What items changed so far: by path, which item, and the file; none where it was removed.
type Changes<'a> = BTreeMap<String, (&'a str, Option<TreeFile>)>;

impl Engine {
    /// Works on items, so many of them at once. Where some cannot go on, the first of them in their order counts: those before
    /// it are finished, those after it are given up.
    pub(crate) async fn side_by_side(
        &mut self,
        spot: Spot<'_>,
        repeat: &Loop,
        items: &[Item<'_>],
        at_once: u32,
    ) -> Result<(), Stopped> {
        let base = self.fork();
        let works = items.iter().map(|item| {
            let mut own = base.fork();
            async move {
                let result = own.item(spot, repeat, Some(*item)).await;
                (item.label, own, result)
            }
        });
        let mut works = stream::iter(works).buffered(at_once as usize);
        let mut changes = Changes::new();
        while let Some((label, own, result)) = works.next().await {
            let joined = self.join(spot, own, &base, label, &mut changes);
            result.and(joined)?;
        }
        Ok(())
    }

    /// An engine for a part of an attempt: it shares models, workbenches and reports, and has everything else for itself.
    fn fork(&self) -> Self {
        let tree = self.tree.beside();
        Self {
            plan: self.plan.clone(),
            plan_digest: self.plan_digest.clone(),
            places: self.places.clone(),
            templates: self.templates.clone().with_files(tree.clone()),
            tree,
            llm: self.llm.clone(),
            tools: self.tools.beside(),
            benches: self.benches.clone(),
            reporter: self.reporter.clone(),
            blobs: self.blobs.beside(),
            record: Record {
                baseline: self.record.baseline.clone(),
                commits: self.record.commits.clone(),
                inherited: None,
                cassette: Vec::new(),
                machine: self.record.machine.clone(),
                messages: self.record.messages.clone(),
                trail: self.record.trail.clone(),
                evidence: self.record.evidence.clone(),
                gates: self.record.gates.clone(),
            },
            // Only what is put together is committed.
            history: History::new(),
            guard: self.guard.clone(),
            remote: None,
            snapshot: None,
            pending: Vec::new(),
            verdicts: Some(Vec::new()),
            decisions: Vec::new(),
            begun: self.begun,
            worked_before: self.worked_before,
            round_told: self.round_told,
        }
    }

    /// Takes over what a fork left.
    fn join<'a>(
        &mut self,
        spot: Spot<'_>,
        mut own: Self,
        base: &Self,
        label: &'a str,
        changes: &mut Changes<'a>,
    ) -> Result<(), Stopped> {
        own.say_calls();
        let Record {
            baseline: _,
            commits,
            inherited: _,
            cassette: _,
            machine,
            messages,
            trail,
            evidence,
            gates: _,
        } = own.record;
        for item in commits.items {
            self.names(item);
        }
        for message in messages.into_iter().skip(base.record.messages.len()) {
            self.record.add(message);
        }
        self.record
            .trail
            .extend(trail.into_iter().skip(base.record.trail.len()));
        let evidence = evidence
            .into_iter()
            .filter(|(path, entry)| base.record.evidence.get(path) != Some(entry));
        self.record.evidence.extend(evidence);
        self.blobs.absorb(own.blobs);
        for verdict in own.verdicts.into_iter().flatten() {
            if let What::GateJudged { step, gate, .. } = &verdict {
                let kept = GateStatus {
                    at: None,
                    ..gate.clone()
                };
                let name = format!("{step}/{}", gate.name);
                self.record.gates.insert(name, kept);
            }
            self.report_verdict(verdict);
        }
        let changed = own
            .tree
            .read(|own| base.tree.read(|base| changed(base, own)));
        join_machines(
            &mut self.record.machine,
            &base.record.machine,
            machine,
            changed.iter().map(|(path, _)| path.as_str()),
        );
        for (path, file) in changed {
            if let Some((other, theirs)) = changes.get(&path)
                && *theirs != file
            {
                let message = format!(
                    "the items {other} and {label} of {} both changed {path}, each in its own way: give each item its own files, or leave `parallel` out",
                    spot.name()
                );
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
            self.tree.write(|tree| {
                let Some(file) = &file else {
                    tree.remove(&path);
                    return Ok(());
                };
                tree.write(&path, file.bytes.clone(), file.executable)
                    .map(|_| ())
            })?;
            changes.insert(path, (label, file));
        }
        Ok(())
    }
}

/// Takes over what the machine of a fork has gathered since `before`; `changed` are the paths of the files that it changed.
fn join_machines<'a>(
    into: &mut Machine,
    before: &Machine,
    own: Machine,
    changed: impl Iterator<Item = &'a str>,
) {
    // Each field by its name: a new one is to be thought of here.
    let Machine {
        state: _,
        frozen: _,
        worked_seconds: _,
        measures,
        said: _,
        by_programs,
        tool_calls: _,
        starts: _,
        begun: _,
        unmet,
        incremental: _,
        made,
    } = own;
    into.measures.merge(&before.measures, measures);
    into.unmet.merge(&before.unmet, &unmet);
    for (path, from) in made {
        into.made.entry(path).or_default().extend(from);
    }
    for path in changed {
        if by_programs.contains(path) {
            into.by_programs.insert(path.to_owned());
        } else {
            into.by_programs.remove(path);
        }
    }
}

/// What differs in a tree from the one it was made from; none: the file is gone.
fn changed(before: &Tree, after: &Tree) -> Vec<(String, Option<TreeFile>)> {
    let written = after
        .written_since(before)
        .map(|(path, file)| (path.to_owned(), Some(file.clone())));
    let removed = after.gone_since(before).map(|path| (path.to_owned(), None));
    written.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::of as tree;

    #[test]
    fn what_was_written_changed_and_removed_is_seen() {
        let before = tree(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = tree(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let seen: Vec<(String, bool)> = changed(&before, &after)
            .into_iter()
            .map(|(path, file)| (path, file.is_some()))
            .collect();
        assert_eq!(
            seen,
            [
                ("b".to_owned(), true),
                ("d".to_owned(), true),
                ("c".to_owned(), false)
            ]
        );
    }
}
