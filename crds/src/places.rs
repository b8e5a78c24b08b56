//! The places of a project: MetaGPT's layout, and who keeps what is in each of them. The one table that checker, runner and
//! documentation go by.

use std::collections::BTreeMap;

/// Who keeps what is in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// People may edit it: what they edit is an input of the next run.
    People,
    /// Steps derive it from what people may edit: an edit by hand is reported, and lost when it is derived again.
    Steps,
    /// Sopwith itself: neither people nor steps write it.
    System,
    /// Nobody: it is of one run only, and never delivered.
    Nobody,
}

impl Keeper {
    /// Whether people may edit it, as documentation says it.
    pub const fn editable(self) -> &'static str {
        match self {
            Self::People => "yes",
            Self::Steps | Self::System | Self::Nobody => "no",
        }
    }
}

/// A place of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name, as in `layout.NAME`.
    pub name: &'static str,
    /// Where it is, unless the procedure says otherwise; `{{ project.name }}` stands for the project's name.
    pub path: &'static str,
    /// Who keeps it.
    pub keeper: Keeper,
    /// What it holds.
    pub what: &'static str,
}

const fn place(
    name: &'static str,
    path: &'static str,
    keeper: Keeper,
    what: &'static str,
) -> Place {
    Place {
        name,
        path,
        keeper,
        what,
    }
}

/// The place of the file that says which file depends on which.
pub const DEPENDENCIES: &str = "dependencies";
/// The place of the requirement of an incremental run.
pub const REQUIREMENT: &str = "requirement";
/// The place of the bug report of an incremental run.
pub const BUGFIX: &str = "bugfix";

/// All places.
#[rustfmt::skip]
pub const PLACES: [Place; 20] = [
    place(DEPENDENCIES, ".dependencies.json", Keeper::System, "which file depends on which, and the digest of each as the last run left it"),
    place(REQUIREMENT, "docs/requirement.txt", Keeper::System, "the new requirement of an incremental run; steps merge it into `prds`"),
    place(BUGFIX, "docs/bugfix.txt", Keeper::System, "the bug report of an incremental run"),
    place("prds", "docs/prds", Keeper::People, "product requirements"),
    place("systemDesigns", "docs/system_designs", Keeper::People, "designs"),
    place("tasks", "docs/tasks", Keeper::People, "tasks"),
    place("codeSummaries", "docs/code_summaries", Keeper::People, "summaries of the code"),
    place("competitiveAnalysis", "resources/competitive_analysis", Keeper::Steps, "charts of similar products"),
    place("dataApiDesign", "resources/data_api_design", Keeper::Steps, "class diagrams"),
    place("seqFlow", "resources/seq_flow", Keeper::Steps, "sequence diagrams"),
    place("systemDesign", "resources/system_design", Keeper::Steps, "designs as models wrote them"),
    place("prd", "resources/prd", Keeper::Steps, "product requirements as models wrote them"),
    place("apiSpecAndTasks", "resources/api_spec_and_tasks", Keeper::Steps, "API and tasks as models wrote them"),
    place("codePlanAndChange", "resources/code_plan_and_change", Keeper::Steps, "plans of changes"),
    place("codeSummary", "resources/code_summary", Keeper::Steps, "summaries as models wrote them"),
    place("graphs", "resources/graph_repo", Keeper::Steps, "graphs of the code"),
    place("source", "{{ project.name }}", Keeper::People, "code"),
    place("tests", "tests", Keeper::People, "tests"),
    place("testOutputs", "test_outputs", Keeper::Steps, "results of tests"),
    place("tmp", "tmp", Keeper::Nobody, "what is of one run only"),
];

/// Who keeps a file: as the place says that names it best, and people where none does. Of places that a procedure adds it is
/// people, too.
pub fn keeper(layout: &BTreeMap<String, String>, path: &str) -> Keeper {
    let within = |place: &str| {
        path.strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let named = layout
        .iter()
        .filter(|(_, place)| within(place.trim_end_matches('/')))
        .max_by_key(|(_, place)| place.trim_end_matches('/').len());
    let known = named.and_then(|(name, _)| PLACES.iter().find(|place| place.name == name));
    known.map_or(Keeper::People, |place| place.keeper)
}

/// Whether a file goes where a project is delivered to.
pub fn is_delivered(layout: &BTreeMap<String, String>, path: &str) -> bool {
    keeper(layout, path) != Keeper::Nobody
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::defaults;
    use rstest::rstest;

    #[rstest]
    #[case(".dependencies.json", Keeper::System)]
    #[case("docs/requirement.txt", Keeper::System)]
    #[case("docs/bugfix.txt", Keeper::System)]
    #[case("docs/bugfix.txt.bak", Keeper::People)]
    #[case("docs/prd/game.md", Keeper::People)]
    #[case("docs/prds/game.md", Keeper::People)]
    #[case("resources/prd/game.json", Keeper::Steps)]
    #[case("resources/prd.json", Keeper::People)]
    #[case("game/main.py", Keeper::People)]
    #[case("README.md", Keeper::People)]
    #[case("tests/test_main.py", Keeper::People)]
    #[case("tests/generated/data.py", Keeper::People)]
    #[case("test_outputs/junit.xml", Keeper::Steps)]
    #[case("tmp/x", Keeper::Nobody)]
    #[case("quality/report.md", Keeper::People)]
    fn each_file_has_a_keeper(#[case] path: &str, #[case] expected: Keeper) {
        let own = [("quality".to_owned(), "quality".to_owned())].into();
        assert_eq!(keeper(&defaults::layout(&own, "game"), path), expected);
        assert_eq!(
            is_delivered(&defaults::layout(&own, "game"), path),
            expected != Keeper::Nobody
        );
    }

    #[test]
    fn places_can_be_moved_and_the_longest_counts() {
        let moved = [
            ("prds".to_owned(), "docs/prd".to_owned()),
            ("tmp".to_owned(), "docs/prd/tmp/".to_owned()),
            ("dependencies".to_owned(), "sopwith.json".to_owned()),
        ];
        let layout = defaults::layout(&moved.into(), "game");
        for (path, expected) in [
            ("docs/prd/a.md", Keeper::People),
            ("docs/prd/tmp/a.md", Keeper::Nobody),
            ("sopwith.json", Keeper::System),
            (".dependencies.json", Keeper::People),
            ("tmp/x", Keeper::People),
        ] {
            assert_eq!(keeper(&layout, path), expected, "{path}");
        }
    }
}
