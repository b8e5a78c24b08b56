//! Gates that failed and have not passed since. A failed gate never ends in success: no `when` can leave it out any more, nor the
//! step that it belongs to. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sopwith_crds::status::Verdict;

/// The gates, by `step/gate`, with the action they belong to and the item of a loop: `step/loop/action/gate[item]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unmet(BTreeSet<String>);

/// A gate, or an action with its gates, in its place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The step.
    pub step: &'a str,
    /// `gate` or `action/gate`; of an action, its name.
    pub path: &'a str,
    /// The item of a loop.
    pub item: Option<&'a str>,
}

impl Place<'_> {
    fn key(&self) -> String {
        let item = self
            .item
            .map_or_else(String::new, |item| format!("[{item}]"));
        format!("{}/{}{item}", self.step, self.path)
    }
}

impl Unmet {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Books a verdict.
    pub fn book(&mut self, gate: Place<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Failed => self.0.insert(gate.key()),
            Verdict::Passed | Verdict::Waived => self.0.remove(&gate.key()),
            Verdict::Pending | Verdict::Skipped => false,
        };
    }

    /// Whether a gate is among them.
    pub fn has(&self, gate: Place<'_>) -> bool {
        self.0.contains(&gate.key())
    }

    /// Whether a gate of an action is; of an action of a loop, for its item only.
    pub fn in_action(&self, action: Place<'_>) -> bool {
        let item = action.item.map(|item| format!("[{item}]"));
        let begin = format!("{}/{}/", action.step, action.path);
        self.0.iter().any(|key| {
            key.starts_with(&begin) && item.as_ref().is_none_or(|item| key.ends_with(item))
        })
    }

    /// Whether a gate of a step is.
    pub fn in_step(&self, step: &str) -> bool {
        let begin = format!("{step}/");
        self.0.iter().any(|key| key.starts_with(&begin))
    }

    /// A step passed: what failed of items that are no more is not asked for again.
    pub fn forget(&mut self, step: &str) {
        let begin = format!("{step}/");
        self.0.retain(|key| !key.starts_with(&begin));
    }

    /// Takes over what another made of `before`.
    pub fn merge(&mut self, before: &Self, after: &Self) {
        self.0
            .retain(|key| after.0.contains(key) || !before.0.contains(key));
        self.0.extend(after.0.difference(&before.0).cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(step: &'a str, path: &'a str, item: Option<&'a str>) -> Place<'a> {
        Place { step, path, item }
    }

    #[test]
    fn a_gate_that_failed_is_unmet_until_it_passes() {
        let mut unmet = Unmet::default();
        let gate = place("code", "files/write/lint", Some("a.py"));
        for (verdict, expected) in [
            (Verdict::Skipped, false),
            (Verdict::Failed, true),
            (Verdict::Pending, true),
            (Verdict::Skipped, true),
            (Verdict::Passed, false),
            (Verdict::Failed, true),
            (Verdict::Waived, false),
        ] {
            unmet.book(gate, verdict);
            assert_eq!(unmet.has(gate), expected, "{verdict:?}");
            assert_eq!(unmet.is_empty(), !expected);
        }
    }

    #[test]
    fn what_a_gate_belongs_to_is_known() {
        let mut unmet = Unmet::default();
        unmet.book(
            place("code", "files/write/lint", Some("a.py")),
            Verdict::Failed,
        );
        unmet.book(place("test", "unit", None), Verdict::Failed);
        for (step, action, item, expected) in [
            ("code", "files", None, true),
            ("code", "files/write", Some("a.py"), true),
            ("code", "files/write", Some("b.py"), false),
            ("code", "files/writ", Some("a.py"), false),
            ("code", "file", None, false),
            ("test", "unit", None, false),
        ] {
            assert_eq!(
                unmet.in_action(place(step, action, item)),
                expected,
                "{action} {item:?}"
            );
        }
        assert!(unmet.in_step("code") && unmet.in_step("test") && !unmet.in_step("cod"));
        unmet.forget("code");
        assert!(!unmet.in_step("code") && unmet.in_step("test"));
    }

    #[test]
    fn what_several_made_of_one_is_put_together() {
        let gate = |name: &'static str| place("s", name, None);
        let mut before = Unmet::default();
        before.book(gate("a"), Verdict::Failed);
        before.book(gate("b"), Verdict::Failed);
        let (mut one, mut other, mut all) = (before.clone(), before.clone(), before.clone());
        one.book(gate("a"), Verdict::Passed);
        other.book(gate("c"), Verdict::Failed);
        all.merge(&before, &one);
        all.merge(&before, &other);
        assert!(!all.has(gate("a")) && all.has(gate("b")) && all.has(gate("c")));
    }
}
