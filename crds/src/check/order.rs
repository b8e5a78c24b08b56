//! The order of steps, and what a step can rely on having been done.

use super::Finding;
use crate::sop_definition::Step;
use std::collections::BTreeSet;

/// The indices of the steps in the order in which they run: needs first, else as declared.
/// A cycle is the error, as `a → b → a`. Needs of unknown steps are left to [`super::sop`].
pub fn order(steps: &[Step]) -> Result<Vec<usize>, Finding> {
    let needs = needs(steps);
    let mut done = vec![false; steps.len()];
    let mut order = Vec::with_capacity(steps.len());
    while order.len() < steps.len() {
        let next =
            (0..steps.len()).find(|&at| !done[at] && needs[at].iter().all(|&need| done[need]));
        let Some(next) = next else {
            return Err(cycle(steps, &needs, &done));
        };
        done[next] = true;
        order.push(next);
    }
    Ok(order)
}

/// For each step the steps that have finished or been skipped whenever it begins: its needs, and theirs.
pub(super) fn ancestors(steps: &[Step]) -> Vec<BTreeSet<usize>> {
    let needs = needs(steps);
    (0..steps.len())
        .map(|step| {
            let mut found = BTreeSet::new();
            let mut open = needs[step].clone();
            while let Some(need) = open.pop() {
                if found.insert(need) {
                    open.extend(&needs[need]);
                }
            }
            found
        })
        .collect()
}

fn needs(steps: &[Step]) -> Vec<Vec<usize>> {
    let index = |name: &String| steps.iter().position(|step| &step.name == name);
    steps
        .iter()
        .map(|step| step.needs.iter().filter_map(index).collect())
        .collect()
}

/// Every step that is not done needs one that is not done, so following them leads into a cycle.
fn cycle(steps: &[Step], needs: &[Vec<usize>], done: &[bool]) -> Finding {
    let mut at = done.iter().position(|done| !done).unwrap_or(0);
    let mut trail: Vec<usize> = Vec::new();
    while !trail.contains(&at) {
        trail.push(at);
        at = needs[at]
            .iter()
            .copied()
            .find(|&need| !done[need])
            .unwrap_or(at);
    }
    let mut names: Vec<&str> = trail
        .iter()
        .skip_while(|&&step| step != at)
        .map(|&step| steps[step].name.as_str())
        .collect();
    // Told from the step that is declared first, whichever way it was found.
    let first = (0..names.len())
        .min_by_key(|&i| steps.iter().position(|step| step.name == names[i]))
        .unwrap_or(0);
    names.rotate_left(first);
    let start = names.first().copied().unwrap_or_default();
    names.push(start);
    Finding {
        path: format!("spec.steps[{start}].needs"),
        message: format!(
            "the steps need each other: {}; take one of these needs away",
            names.join(" → ")
        ),
    }
}
