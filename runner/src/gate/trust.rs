//! How far evidence can be trusted: what programs in a workbench say is said beside the code under judgement. Pure.

use std::collections::BTreeMap;

use sopwith_crds::{
    contract::trail::{Entry, Passage},
    language::Expression,
    sop_definition::Gate,
    status::{Trust, Verdict},
    tool_policy::{Evidence, gate_matches},
};

use super::{Bench, Judgement};

/// The trust in the value of an expression: that in the least of what it refers to.
pub(super) fn of_expression(text: &str, bench: Bench<'_>) -> Trust {
    let Ok(expression) = Expression::compile(text) else {
        return Trust::External;
    };
    let references = expression.references().iter();
    let trusts = references.map(|path| {
        let member = path.get(1).map(String::as_str);
        match (path.first().map(String::as_str), member) {
            (Some("measures"), Some(name)) => of_measure(name, bench),
            (Some("artifacts"), Some(name)) => of_artifact(name, bench),
            // Of measures and artifacts: written so that nobody can say which, so it may be any.
            (Some("reports" | "exitCode"), _) | (Some("measures" | "artifacts"), None) => {
                Trust::InProcess
            }
            _ => Trust::External,
        }
    });
    least(trusts)
}

/// The trust in an artifact: what programs have written can be made up by the code that ran in them.
pub(super) fn of_artifact(name: &str, bench: Bench<'_>) -> Trust {
    let places = bench.places.iter().filter(|place| place.name == name);
    let mut paths = places.flat_map(|place| place.paths(bench.tree).unwrap_or_default());
    of_path(paths.any(|path| bench.programs.contains(&path)))
}

/// The trust in files.
pub(super) fn of_files<'a>(paths: impl IntoIterator<Item = &'a str>, bench: Bench<'_>) -> Trust {
    of_path(paths.into_iter().any(|path| bench.programs.contains(path)))
}

fn of_measure(name: &str, bench: Bench<'_>) -> Trust {
    least(bench.measures.of(name).iter().map(|taken| taken.trust))
}

const fn of_path(by_program: bool) -> Trust {
    if by_program {
        Trust::InProcess
    } else {
        Trust::External
    }
}

fn least(trusts: impl Iterator<Item = Trust>) -> Trust {
    trusts.fold(Trust::External, Ord::min)
}

/// A verdict on evidence that the policy does not trust enough is none.
pub(super) fn enough(rules: Option<&Evidence>, gate: &Gate, judgement: Judgement) -> Judgement {
    let meant = |rules: &&Evidence| {
        let mut gates = rules.gates.iter();
        gates.any(|pattern| gate_matches(pattern, gate.kind, &gate.name))
    };
    let Some(rules) = rules.filter(meant) else {
        return judgement;
    };
    let (asked, is) = (rules.minimum_trust, judgement.trust);
    if !judgement.passed || is >= asked {
        return judgement;
    }
    let (asked, is) = (asked.as_str(), is.as_str());
    Judgement {
        passed: false,
        findings: format!(
            "The policy asks for evidence of this gate that is {asked}; what it judged by is {is}: a program wrote it in a workbench, \
beside the code under judgement."
        ),
        observed: format!("{}; the evidence is {is}, not {asked}", judgement.observed),
        ..judgement
    }
}

/// What of the evidence that a policy asks for is not there at the end of a run; none where it is complete.
pub(crate) fn missing(rules: &Evidence, trail: &[Entry]) -> Option<String> {
    let mut last: BTreeMap<(&str, &str), (&Entry, bool)> = BTreeMap::new();
    for entry in trail {
        if let Passage::Judged {
            gate,
            verdict,
            trust,
            by,
            ..
        } = &entry.what
        {
            let human = *verdict == Verdict::Waived || by.is_some();
            let trusted = human || trust.is_some_and(|trust| trust >= rules.minimum_trust);
            let good = trusted && matches!(verdict, Verdict::Passed | Verdict::Waived);
            last.insert((&entry.step, gate), (entry, good));
        }
    }
    let there = |pattern: &&String| {
        last.values().any(|(entry, good)| match &entry.what {
            Passage::Judged { gate, kind, .. } => {
                let own = gate.rsplit('/').next().unwrap_or_default();
                *good && gate_matches(pattern, *kind, own)
            }
            _ => false,
        })
    };
    let missing: Vec<&str> = rules
        .gates
        .iter()
        .filter(|pattern| !there(pattern))
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "the policy asks for evidence that is {} of {}, and no such gate has passed in this run: each was skipped, or its step was",
            rules.minimum_trust.as_str(),
            missing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gate::tests::place,
        measures::{Measures, Taken},
        tree::Tree,
    };
    use serde_json::{Value, json};
    use sopwith_crds::sop_definition::GateKind;

    #[test]
    fn what_programs_said_or_wrote_is_said_beside_the_code_under_judgement() {
        let mut tree = Tree::default();
        for path in ["doc.json", "made.json"] {
            tree.write(path, bytes::Bytes::from_static(b"{}"), false)
                .unwrap();
        }
        let mut measures = Measures::default();
        for (name, trust) in [("told", Trust::InProcess), ("seen", Trust::External)] {
            let taken = Taken {
                attempt: 1,
                round: 1,
                value: 1.into(),
                trust,
            };
            measures.add(name, taken);
        }
        let places = [place("doc", "doc.json"), place("made", "made.json")];
        let programs = ["made.json".to_owned()].into();
        let bench = Bench {
            context: &Value::Null,
            places: &places,
            tree: &tree,
            schemas: &BTreeMap::new(),
            programs: &programs,
            measures: &measures,
        };
        for (text, expected) in [
            ("round == 1", Trust::External),
            ("artifacts.doc.json.a == 1", Trust::External),
            ("artifacts.made.json.a == 1", Trust::InProcess),
            (
                "artifacts.doc.exists && artifacts.made.exists",
                Trust::InProcess,
            ),
            ("artifacts[idea].exists", Trust::InProcess),
            ("reports.unit.tests > 0", Trust::InProcess),
            ("exitCode == 0", Trust::InProcess),
            ("measures.told.last() == 1", Trust::InProcess),
            ("measures.seen.last() == 1", Trust::External),
            ("measures.none.size() == 0", Trust::External),
        ] {
            assert_eq!(of_expression(text, bench), expected, "{text}");
        }
        assert_eq!(of_files(["doc.json"], bench), Trust::External);
        assert_eq!(of_files(["doc.json", "made.json"], bench), Trust::InProcess);
    }

    fn rules(minimum: Trust) -> Evidence {
        Evidence {
            minimum_trust: minimum,
            gates: vec!["expression/good".into(), "approval/*".into()],
        }
    }

    #[test]
    fn a_gate_that_a_policy_means_passes_by_evidence_that_it_trusts() {
        for (name, passed, trust, expected) in [
            ("good", true, Trust::External, true),
            ("good", true, Trust::InProcess, false),
            ("good", false, Trust::External, false),
            ("other", true, Trust::InProcess, true),
        ] {
            let gate = Gate {
                name: name.into(),
                kind: GateKind::Expression,
                ..Gate::default()
            };
            let judgement = Judgement {
                passed,
                trust,
                observed: "holds".into(),
                evidence: json!({}),
                threshold: String::new(),
                findings: String::new(),
                document: None,
            };
            let rules = rules(Trust::External);
            let judgement = enough(Some(&rules), &gate, judgement);
            assert_eq!(judgement.passed, expected, "{name} {passed} {trust:?}");
        }
    }

    #[test]
    fn evidence_is_complete_once_every_gate_that_is_meant_has_passed_last() {
        let judged = |gate: &str, kind, verdict, trust, by: Option<&str>| Entry {
            step: "s".into(),
            attempt: 1,
            round: 1,
            what: Passage::Judged {
                gate: gate.into(),
                kind,
                verdict,
                trust: Some(trust),
                by: by.map(str::to_owned),
            },
        };
        let good = |verdict, trust| judged("do/good", GateKind::Expression, verdict, trust, None);
        let signed = || {
            judged(
                "sign",
                GateKind::Approval,
                Verdict::Passed,
                Trust::Human,
                Some("j"),
            )
        };
        let waived = judged(
            "do/good",
            GateKind::Expression,
            Verdict::Waived,
            Trust::InProcess,
            Some("j"),
        );
        for (trail, lacks) in [
            (vec![good(Verdict::Passed, Trust::External), signed()], None),
            (vec![waived, signed()], None),
            (vec![], Some("expression/good, approval/*")),
            (vec![signed()], Some("of expression/good,")),
            (
                vec![good(Verdict::Skipped, Trust::External), signed()],
                Some("expression/good"),
            ),
            (
                vec![good(Verdict::Passed, Trust::InProcess), signed()],
                Some("expression/good"),
            ),
            (
                vec![
                    good(Verdict::Passed, Trust::External),
                    good(Verdict::Failed, Trust::External),
                    signed(),
                ],
                Some("expression/good"),
            ),
        ] {
            let missing = missing(&rules(Trust::External), &trail);
            let told = missing.as_deref().unwrap_or_default();
            assert_eq!(missing.is_some(), lacks.is_some(), "{trail:?}");
            assert!(told.contains(lacks.unwrap_or_default()), "{told}");
        }
    }
}
