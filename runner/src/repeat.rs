//! Loops: actions that are repeated over a list, until a condition holds, or both.
//!
//! An item is begun, passed over until the condition holds or no pass is left, and judged. Where a gate of it fails and its rules
//! say Retry, it is begun again with what was found, within the same attempt of the step.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sopwith_crds::{
    check::defaults,
    contract::report::What,
    language::Expression,
    sop_definition::{FailureRule, Gate, Loop, Workspace},
    status::FailureReason,
};

use crate::{
    attempt::{Item, Lap, Spot, Stopped, holds, timed},
    context::label,
    engine::Engine,
    gate::short,
    sop::{ItemRules, item_again},
};

/// The name of a loop's item where `as` gives none.
const ITEM: &str = "item";

impl Engine {
    /// Does all that a loop asks for.
    pub(crate) async fn repeat(&mut self, spot: Spot<'_>, repeat: &Loop) -> Result<(), Stopped> {
        let Some(list) = &repeat.for_each else {
            return self.item(spot, repeat, None).await;
        };
        let values = self.list(spot, list)?;
        let labels = labels(&values);
        let name = repeat.item_name.as_deref().unwrap_or(ITEM);
        let items = values
            .iter()
            .zip(&labels)
            .map(|(value, label)| Item { name, value, label });
        let at_once = repeat.parallel.unwrap_or(1);
        if at_once > 1 {
            let items: Vec<Item<'_>> = items.collect();
            return self.side_by_side(spot, repeat, &items, at_once).await;
        }
        for item in items {
            self.item(spot, repeat, Some(item)).await?;
        }
        Ok(())
    }

    /// Works on one item until its gates pass, or its rules have it begun again no more.
    pub(crate) async fn item(
        &mut self,
        spot: Spot<'_>,
        repeat: &Loop,
        item: Option<Item<'_>>,
    ) -> Result<(), Stopped> {
        let before = restores(repeat).then(|| {
            let programs = self.record.machine.by_programs.clone();
            (self.tree.read(Clone::clone), programs)
        });
        let mut used = ItemRules::new();
        let mut findings = spot.findings.to_owned();
        let mut retry = 0;
        loop {
            let lap = Lap {
                item,
                retry,
                pass: 1,
            };
            let at = Spot {
                findings: &findings,
                lap: Some(lap),
                ..spot
            };
            let mut fault = match self.passes(at, lap, repeat).await {
                Err(Stopped::Gate { fault, .. }) => fault,
                other => return other,
            };
            let Some(workspace) = item_again(self.state(), &mut used, &mut fault) else {
                return Err(Stopped::Gate { fault, asked: None });
            };
            if let (Workspace::Restore, Some((tree, programs))) = (workspace, &before) {
                self.tree.write(|now| now.clone_from(tree));
                self.record.machine.by_programs.clone_from(programs);
            }
            findings = together(spot.findings, &fault.findings);
            retry += 1;
        }
    }

    /// Passes over an item, then its gates.
    async fn passes(&mut self, spot: Spot<'_>, lap: Lap<'_>, repeat: &Loop) -> Result<(), Stopped> {
        let most = self.most(spot, repeat)?;
        let mut last = spot;
        for pass in 1..=most {
            last = Spot {
                lap: Some(Lap { pass, ..lap }),
                ..spot
            };
            for inner in &repeat.actions {
                let path = format!("{}/{}", spot.action, inner.name);
                let spot = Spot {
                    action: &path,
                    ..last
                };
                if self.wanted(spot, inner.when.as_deref())? {
                    let seconds = inner.timeout_seconds;
                    timed(spot, seconds, self.work(spot, &inner.work)).await?;
                } else if !self.has_unmet(spot) {
                    continue;
                }
                self.gates(spot, &inner.gates, 0).await?;
            }
            if let Some(until) = &repeat.until {
                let held = self.held(last, until)?;
                if held || pass == most {
                    self.tell_passes(last, pass, held);
                }
                if held {
                    break;
                }
            }
        }
        if most > 0 {
            self.gates(last, &repeat.gates, 0).await?;
        }
        Ok(())
    }

    fn tell_passes(&self, spot: Spot<'_>, passes: u32, held: bool) {
        let count = if passes == 1 { "pass" } else { "passes" };
        let ended = if held { "holds" } else { "does not hold yet" };
        self.reporter.record([What::ActionEnded {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            action: spot.action.to_owned(),
            item: spot.label(),
            message: format!("{passes} {count}; until {ended}"),
        }]);
    }

    fn list(&self, spot: Spot<'_>, text: &str) -> Result<Vec<Value>, Stopped> {
        match self.value(spot, "forEach", text)? {
            Value::Array(items) => Ok(items),
            other => Err(wrong(
                spot,
                "forEach",
                &format!("must give a list, but gives {}", short(&other.to_string())),
            )),
        }
    }

    /// The most passes over an item.
    fn most(&self, spot: Spot<'_>, repeat: &Loop) -> Result<u32, Stopped> {
        let Some(text) = &repeat.max else {
            return Ok(repeat.until.as_ref().map_or(1, |_| defaults::LOOP_PASSES));
        };
        let value = self.value(spot, "max", text)?;
        passes(&value).ok_or_else(|| {
            let given = short(&value.to_string());
            let most = defaults::MAX_LOOP_PASSES;
            wrong(
                spot,
                "max",
                &format!(
                    "must give a whole number from 0 to {most}, or -1 for {most}, but gives {given}"
                ),
            )
        })
    }

    fn held(&self, spot: Spot<'_>, until: &str) -> Result<bool, Stopped> {
        holds(until, &self.context_of(spot))
            .map_err(|error| wrong(spot, "until", &error.to_string()))
    }

    fn value(&self, spot: Spot<'_>, field: &str, text: &str) -> Result<Value, Stopped> {
        let context = self.context_of(spot);
        let value = Expression::compile(text).and_then(|expression| expression.evaluate(&context));
        value.map_err(|error| wrong(spot, field, &error.to_string()))
    }
}

fn wrong(spot: Spot<'_>, field: &str, why: &str) -> Stopped {
    let message = format!("{field} of {}: {why}", spot.name());
    Stopped::Failed(FailureReason::InvalidPlan, message)
}

/// Passes as a loop's `max` gives them; none where it is no such number.
fn passes(value: &Value) -> Option<u32> {
    match value.as_i64()? {
        -1 => Some(defaults::MAX_LOOP_PASSES),
        given => u32::try_from(given)
            .ok()
            .filter(|given| *given <= defaults::MAX_LOOP_PASSES),
    }
}

/// Whether an item may have to go back to what it began with.
fn restores(repeat: &Loop) -> bool {
    let of_actions = repeat.actions.iter().flat_map(|action| &action.gates);
    let rules = |gate: &'_ Gate| gate.on_failure.iter().any(restoring);
    of_actions.chain(&repeat.gates).any(rules)
}

fn restoring(rule: &FailureRule) -> bool {
    rule.workspace == Some(Workspace::Restore)
}

/// What the step has to mend, then what its item has to.
fn together(step: &str, item: &str) -> String {
    match (step, item) {
        ("", only) | (only, "") => only.to_owned(),
        (step, item) => format!("{step}\n\n{item}"),
    }
}

/// The names of items in keys and messages: of several that would have the same one, the second has ` (2)` behind it.
fn labels(values: &[Value]) -> Vec<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let own: Vec<String> = values.iter().map(label).collect();
    let mut taken: BTreeSet<String> = own.iter().cloned().collect();
    own.into_iter()
        .map(|label| {
            let count = seen.entry(label.clone()).or_default();
            *count += 1;
            let mut name = label.clone();
            while *count > 1 {
                name = format!("{label} ({count})");
                if taken.insert(name.clone()) {
                    break;
                }
                *count += 1;
            }
            name
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_item_has_a_name_of_its_own() {
        let named = |values: Value| labels(values.as_array().unwrap());
        assert_eq!(named(json!(["a", {"path": "b"}, 3])), ["a", "b", "3"]);
        assert_eq!(
            named(json!(["a", "a (2)", {"name": "a"}, "a"])),
            ["a", "a (2)", "a (3)", "a (4)"]
        );
    }

    #[test]
    fn passes_are_bounded_whatever_a_loop_asks_for() {
        for (given, expected) in [
            (json!(0), Some(0)),
            (json!(7), Some(7)),
            (json!(100), Some(100)),
            (json!(-1), Some(100)),
            (json!(101), None),
            (json!(-2), None),
            (json!(1.5), None),
            (json!("3"), None),
            (json!(true), None),
        ] {
            assert_eq!(passes(&given), expected, "{given}");
        }
    }

    #[test]
    fn what_an_item_has_to_mend_follows_what_the_step_has_to() {
        for (step, item, expected) in [
            ("", "", ""),
            ("a", "", "a"),
            ("", "b", "b"),
            ("a", "b", "a\n\nb"),
        ] {
            assert_eq!(together(step, item), expected);
        }
    }
}
