//! Projects that go back to what they were when a step first began (`workspace: restore`).

use std::collections::BTreeSet;

use sopwith_crds::{
    contract::report::Outcome,
    sop_definition::Step,
    status::{Failure, FailureReason},
};

use crate::{
    ending::End,
    engine::Engine,
    ownership::others,
    snapshot::{Machine, SnapshotError},
    sop::Phase,
    tree::{Tree, TreeError, TreeFile},
};

/// Why a project does not go back.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    /// What it was cannot be had.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What it was does not fit to what stays.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Engine {
    /// Notes where a step begins that has not begun in this round.
    pub(crate) fn note_start(&mut self, step: &Step) {
        let starts = &mut self.record.machine.starts;
        if !starts.contains_key(&step.name) {
            starts.insert(step.name.clone(), self.snapshot.clone());
        }
    }

    /// Steps that are open again begin elsewhere.
    pub(crate) fn forget_starts(&mut self) {
        let Machine { state, starts, .. } = &mut self.record.machine;
        starts.retain(|step, _| state.step(step).phase != Phase::Pending);
    }

    /// Gives the project back what it was when a step first began, but for what belongs to steps that stay finished. An error is
    /// the end of the launch.
    pub(crate) async fn take_back(&mut self, step: &str) -> Result<(), End> {
        match self.restore(step).await {
            Ok(()) => Ok(()),
            Err(RestoreError::Snapshot(SnapshotError::Gateway(error))) => Err(self.cut_off(&error)),
            Err(error) => {
                let failure = Failure {
                    reason: FailureReason::Internal,
                    step: Some(step.to_owned()),
                    message: format!("the project cannot be restored: {error}"),
                };
                Err(self.end(Outcome::Failed, Some(failure)).await)
            }
        }
    }

    async fn restore(&mut self, step: &str) -> Result<(), RestoreError> {
        let now = self.tree.read(Clone::clone);
        let start = self.record.machine.starts.get(step).cloned().flatten();
        let (before, programs) = match &start {
            Some(snapshot) => self.blobs.earlier(snapshot, &now).await?,
            None => (Tree::default(), BTreeSet::new()),
        };
        let restored = restored(&before, &now, |path| self.is_settled(path))?;
        let programs = by_programs(
            &restored,
            (&before, &programs),
            (&now, &self.record.machine.by_programs),
        );
        self.record.machine.by_programs = programs;
        self.tree.write(|tree| *tree = restored);
        Ok(())
    }

    /// Whether a path belongs to a step that is not done again.
    fn is_settled(&self, path: &str) -> Result<bool, TreeError> {
        let owners = others(path, "", &self.places)?;
        let state = &self.record.machine.state;
        Ok(owners
            .iter()
            .any(|step| state.step(step).phase == Phase::Finished))
    }
}

/// The files of `before`, but those that are kept, as they are now.
fn restored(
    before: &Tree,
    now: &Tree,
    kept: impl Fn(&str) -> Result<bool, TreeError>,
) -> Result<Tree, TreeError> {
    let mut tree = before.clone();
    for path in now.gone_since(before) {
        if kept(path)? {
            tree.remove(path);
        }
    }
    for (path, file) in now.written_since(before) {
        if kept(path)? {
            tree.write(path, file.bytes.clone(), file.executable)?;
        }
    }
    Ok(tree)
}

/// Files of a tree that programs wrote last, as far as they are those of one of two others, whose files are known.
pub(crate) fn by_programs(
    of: &Tree,
    one: (&Tree, &BTreeSet<String>),
    other: (&Tree, &BTreeSet<String>),
) -> BTreeSet<String> {
    let wrote = |(tree, programs): (&Tree, &BTreeSet<String>), path: &str, file: &TreeFile| {
        programs.contains(path) && tree.get(path) == Some(file)
    };
    of.iter()
        .filter(|(path, file)| wrote(one, path, file) || wrote(other, path, file))
        .map(|(path, _)| path.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::of as tree;

    #[test]
    fn what_is_kept_is_as_it_is_now_and_all_else_as_it_was() {
        let before = tree(&[
            ("a", "old"),
            ("b", "old"),
            ("kept/a", "old"),
            ("kept/gone", "old"),
        ]);
        let now = tree(&[
            ("a", "new"),
            ("c", "new"),
            ("kept/a", "new"),
            ("kept/more", "new"),
        ]);
        let restored = restored(&before, &now, |path| Ok(path.starts_with("kept/"))).unwrap();
        assert_eq!(
            restored,
            tree(&[
                ("a", "old"),
                ("b", "old"),
                ("kept/a", "new"),
                ("kept/more", "new")
            ])
        );
    }

    #[test]
    fn a_file_that_is_taken_back_is_whose_it_was() {
        let before = tree(&[("a", "by a program"), ("b", "by a model"), ("c", "same")]);
        let now = tree(&[
            ("a", "by a model"),
            ("b", "by a program"),
            ("c", "same"),
            ("d", "kept"),
        ]);
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let restored = tree(&[
            ("a", "by a program"),
            ("b", "by a model"),
            ("c", "same"),
            ("d", "kept"),
        ]);
        let found = by_programs(
            &restored,
            (&before, &set(&["a"])),
            (&now, &set(&["b", "c", "d"])),
        );
        assert_eq!(found, set(&["a", "c", "d"]));
    }
}
