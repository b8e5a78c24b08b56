//! Paths that no step may write: what the system keeps, what a delivery must not touch, and what stays in the source repository
//! as it is. Pure.
//!
//! Told at the write, to the model where it can mend it, and looked at again before each commit.

use std::collections::BTreeMap;

use sopwith_crds::{
    contract::plan::Deliver,
    delivery::{DeniedPaths, PatternMistake},
    places::{Keeper, PLACES},
};

use crate::git::source::Kept;

/// Paths that no step may write.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    kept: Vec<Kept>,
    denied: Option<DeniedPaths>,
    /// Files that the system keeps.
    own: Vec<String>,
}

impl Guard {
    /// What a plan's delivery denies; none: it delivers nothing.
    pub fn new(deliver: Option<&Deliver>) -> Result<Self, PatternMistake> {
        let denied = deliver.map(|rules| DeniedPaths::new(&rules.deny_paths, &rules.allow_paths));
        Ok(Self {
            kept: Vec::new(),
            denied: denied.transpose()?,
            own: Vec::new(),
        })
    }

    /// The same with the files that the system keeps in a project of this layout.
    #[must_use]
    pub fn with_own(mut self, layout: &BTreeMap<String, String>) -> Self {
        let own = PLACES.iter().filter(|place| place.keeper == Keeper::System);
        self.own = own
            .filter_map(|place| layout.get(place.name).cloned())
            .collect();
        self
    }

    /// What of the source repository is not part of the project.
    pub fn keep(&mut self, kept: Vec<Kept>) {
        self.kept = kept;
    }

    /// The files that the system keeps.
    pub fn own(&self) -> &[String] {
        &self.own
    }

    /// Whether the system keeps a file.
    pub fn is_own(&self, path: &str) -> bool {
        self.own.iter().any(|own| own == path)
    }

    /// Why a step may not write a path, and what to do about it; none where it may.
    pub fn refusal(&self, path: &str) -> Option<String> {
        if self.is_own(path) {
            return Some(format!(
                "the path {path:?} is kept by the system, and no step may write it; write somewhere else"
            ));
        }
        self.undeliverable(path)
    }

    /// Whether everything can be part of what is delivered.
    pub const fn is_open(&self) -> bool {
        self.kept.is_empty() && self.denied.is_none()
    }

    /// Whether the policy denies a path.
    pub fn is_denied(&self, path: &str) -> bool {
        self.denying(path).is_some()
    }

    fn denying(&self, path: &str) -> Option<String> {
        let pattern = self.denied.as_ref()?.denying(path)?;
        Some(pattern.to_string())
    }

    /// Why a path cannot be part of what is delivered, whoever writes it.
    pub fn undeliverable(&self, path: &str) -> Option<String> {
        if let Some(kept) = self.kept.iter().find(|kept| kept.in_the_way_of(path)) {
            return Some(format!(
                "the path {path:?} cannot be written: {:?} is a {} in the repository and stays as it is; write somewhere else",
                kept.path,
                kept.why.as_str()
            ));
        }
        let pattern = self.denying(path)?;
        Some(format!(
            "the path {path:?} may not be delivered (it matches {pattern}); leave it as it is, or have it named in deliver.allowPaths of \
             the ToolPolicy"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::source::Why;

    #[test]
    fn what_is_kept_or_denied_is_refused_with_the_way_out() {
        let rules = Deliver {
            branch: "x".into(),
            deny_paths: vec!["deploy/**".into()],
            allow_paths: vec![".github/workflows/docs.yml".into()],
        };
        let mut guard = Guard::new(Some(&rules)).unwrap();
        let kept = |path: &str, why| Kept {
            path: path.into(),
            why,
        };
        guard.keep(vec![
            kept("vendor/lib", Why::Submodule),
            kept("docs/link", Why::Link),
        ]);
        let table = [
            ("src/main.py", None),
            (".github/workflows/docs.yml", None),
            (".github/workflows/ci.yml", Some(".github/workflows/**")),
            ("deploy/prod.yaml", Some("deploy.allowPaths")),
            ("vendor/lib", Some("\"vendor/lib\" is a submodule")),
            ("vendor/lib/x.py", Some("\"vendor/lib\" is a submodule")),
            ("vendor", Some("\"vendor/lib\" is a submodule")),
            ("vendor/library.py", None),
            ("docs/link", Some("\"docs/link\" is a symbolic link")),
        ];
        for (path, expected) in table {
            let found = guard.refusal(path);
            assert_eq!(found.is_some(), expected.is_some(), "{path} {found:?}");
            let expected =
                expected.map(|text| text.replace("deploy.allowPaths", "deliver.allowPaths"));
            assert!(
                expected.is_none_or(|text| found.is_some_and(|found| found.contains(&text))),
                "{path}"
            );
        }
        let layout = [("bugfix", "docs/bugfix.txt"), ("prds", "docs/prds")];
        let layout = layout.map(|(name, path)| (name.to_owned(), path.to_owned()));
        let own = Guard::new(None).unwrap().with_own(&layout.into());
        for (path, expected) in [
            ("docs/bugfix.txt", true),
            ("docs/prds/a.md", false),
            ("docs/requirement.txt", false),
        ] {
            assert_eq!(own.refusal(path).is_some(), expected, "{path}");
            assert_eq!(own.undeliverable(path), None, "{path}");
        }
        let free = Guard::new(None).unwrap();
        assert_eq!(
            free.refusal(".github/workflows/ci.yml"),
            None,
            "nothing is delivered"
        );
    }
}
