//! Whose a path of the project is. Pure.
//!
//! The SOP says it with the outputs of its steps. A step writes what is its own and what is nobody's: so who writes the
//! code cannot edit the tests by which it is judged, although both are files of one tree.

use crate::{
    context::Place,
    tree::{TreeError, matcher},
};

/// The other steps whose a path is, if it is not this step's too; each step is named once, in the order of the SOP.
///
/// An output with a path owns it before any pattern does; among patterns the one counts whose part before the first
/// wildcard is the longest: `tests/**/*.py` before `**/*.py`. Where two are as exact as each other, both own it.
pub fn others<'a>(path: &str, step: &str, places: &'a [Place]) -> Result<Vec<&'a str>, TreeError> {
    let mut best = 0;
    let mut owners: Vec<&str> = Vec::new();
    for place in places {
        let exactness = exactness(path, place)?;
        if exactness == 0 || exactness < best {
            continue;
        }
        if exactness > best {
            best = exactness;
            owners.clear();
        }
        if owners.last() != Some(&place.step.as_str()) {
            owners.push(&place.step);
        }
    }
    if owners.contains(&step) {
        owners.clear();
    }
    Ok(owners)
}

/// How exactly a place names a path; 0 where it does not.
fn exactness(path: &str, place: &Place) -> Result<usize, TreeError> {
    if let Some(own) = &place.path {
        return Ok(if own == path { usize::MAX } else { 0 });
    }
    let Some(glob) = &place.glob else {
        return Ok(0);
    };
    if !matcher(glob)?.is_match(path) {
        return Ok(0);
    }
    let literal = glob.find(['*', '?', '[', '{']).unwrap_or(glob.len());
    Ok(literal + 1)
}

/// Says that a path is not this step's to write.
pub fn refusal(path: &str, owners: &[&str]) -> String {
    format!(
        "the path {path:?} belongs to the outputs of {}, and nobody else may write it",
        owners.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(step: &str, path: Option<&str>, glob: Option<&str>) -> Place {
        Place {
            name: format!("of-{step}"),
            step: step.into(),
            path: path.map(str::to_owned),
            glob: glob.map(str::to_owned),
            schema: None,
            frozen: false,
        }
    }

    #[test]
    fn a_path_is_whose_output_names_it_best() {
        let places = [
            place("plan", Some("docs/plan.md"), None),
            place("code", None, Some("**/*.py")),
            place("code", None, Some("docs/**")),
            place("test", None, Some("tests/**/*.py")),
            place("test", Some("tests/data.json"), None),
            place("more", None, Some("tests/**/*.py")),
        ];
        for (path, step, expected) in [
            ("app/main.py", "code", &[][..]),
            ("app/main.py", "test", &["code"][..]),
            ("tests/test_app.py", "code", &["test", "more"]),
            ("tests/test_app.py", "test", &[]),
            ("tests/test_app.py", "more", &[]),
            ("tests/conftest.py", "code", &["test", "more"]),
            ("conftest.py", "code", &[]),
            ("tests/data.json", "code", &["test"]),
            ("docs/plan.md", "code", &["plan"]),
            ("docs/other.md", "code", &[]),
            ("README.md", "code", &[]),
            ("README.md", "plan", &[]),
        ] {
            assert_eq!(
                others(path, step, &places).unwrap(),
                expected,
                "{path} {step}"
            );
        }
        assert!(others("a", "code", &[place("x", None, Some("["))]).is_err());
        assert_eq!(
            refusal("tests/a.py", &["test", "more"]),
            "the path \"tests/a.py\" belongs to the outputs of test and more, and nobody else may write it"
        );
    }
}
