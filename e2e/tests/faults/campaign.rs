//! A campaign: the cases that an unbroken run asks for, several at a time, and what they came to.

use crate::{
    case::{Came, play},
    scenario::Scenario,
};
use anyhow::{Result, anyhow, bail, ensure};
use futures::{StreamExt as _, stream};
use sopwith_e2e::{
    api_proxy::fault::{AtEvent, AtRead, AtWrite, EventKey, Fault},
    operator_process::Site,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::Instant,
};

/// How many runs are played at a time. They wait more than they work.
const LANES: usize = 10;
/// How often a case is played whose fault did not happen: some writes depend on what comes first.
const TRIES: u32 = 3;
/// Of so many cases one may have a fault that never happens. Two changes of a status may become one write, and an event about a
/// run's end may come after its end was seen. More would mean that the unbroken run no longer tells what to try.
const MAY_MISS: usize = 8;

/// A scenario with a fault in it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The run.
    pub(crate) scenario: Scenario,
    /// The fault.
    pub(crate) fault: Fault,
}

/// What came of a case.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It ended as the unbroken run did.
    Same(Box<Came>),
    /// It ended otherwise, or not at all.
    Other(anyhow::Error),
    /// The fault did not happen.
    NotFired,
}

/// Says something at once, also where tests are told to be silent.
pub(crate) fn say(text: &str) {
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A fault at each write of the unbroken run, or at each from the plan on. Renewals of the lease are left out: they come by
/// the clock, one like the other, and what an operator without a lease may do is another test's.
pub(crate) fn at_each_write(scenario: Scenario, unbroken: &Came, whole: bool) -> Vec<Case> {
    let writes = unbroken.calls.iter().map(|call| &call.key);
    let writes = writes.skip_while(|key| !whole && key.resource != "configmaps");
    let writes = writes.filter(|key| key.is_write());
    let writes = writes.filter(|key| key.resource != "leases" || key.verb == "create");
    writes
        .flat_map(|key| AtWrite::ALL.map(|what| Fault::Write(key.clone(), what)))
        .map(|fault| Case { scenario, fault })
        .collect()
}

/// A fault at each read of the unbroken run; of those that are repeated, by the clock or by a relist, at the first.
pub(crate) fn at_each_read(scenario: Scenario, unbroken: &Came) -> Vec<Case> {
    let reads = unbroken.calls.iter().map(|call| &call.key);
    let reads = reads.filter(|key| !key.is_write() && key.nth == 1);
    reads
        .flat_map(|key| AtRead::ALL.map(|what| Fault::Read(key.clone(), what)))
        .map(|fault| Case { scenario, fault })
        .collect()
}

/// For each watched kind: each event dropped once; and held back, expired, cut and listed anew in the middle.
pub(crate) fn at_each_watch(scenario: Scenario, unbroken: &Came, kinds: &[&str]) -> Vec<Case> {
    let mut faults = Vec::new();
    for kind in kinds {
        let events = unbroken.watched.iter().map(|(key, _)| key);
        let events: Vec<&EventKey> = events.filter(|key| key.resource == *kind).collect();
        let beginning = EventKey {
            resource: (*kind).to_owned(),
            nth: 0,
        };
        let middle = events
            .get(events.len() / 2)
            .map_or(beginning, |key| (*key).clone());
        for what in [
            AtEvent::Held,
            AtEvent::Expired,
            AtEvent::Cut,
            AtEvent::Relisted,
        ] {
            faults.push(Fault::Watch(middle.clone(), what));
        }
        let dropped = events.into_iter().cloned();
        faults.extend(dropped.map(|key| Fault::Watch(key, AtEvent::Dropped)));
    }
    let case = |fault| Case { scenario, fault };
    faults.into_iter().map(case).collect()
}

/// Whether a case belongs to the short form.
pub(crate) fn is_short(case: &Case) -> bool {
    match &case.fault {
        Fault::Write(key, _) => {
            ["configmaps", "jobs", "agentruns/status"].contains(&key.resource.as_str())
        }
        Fault::Watch(key, AtEvent::Dropped) => {
            ["agentruns", "jobs"].contains(&key.resource.as_str())
        }
        Fault::Watch(..) | Fault::Read(..) => false,
    }
}

/// Plays cases, several at a time, and holds each against the unbroken run of its scenario.
pub(crate) async fn run(
    site: &Site,
    cases: Vec<Case>,
    unbroken: &BTreeMap<Scenario, Came>,
) -> Result<()> {
    let begun = Instant::now();
    let all = cases.len();
    let mut done = stream::iter(cases)
        .map(|case| async move {
            let expected = unbroken.get(&case.scenario);
            let verdict = match expected {
                Some(expected) => judge(site, &case, expected).await,
                None => Verdict::Other(anyhow!("its scenario was not played")),
            };
            (case, verdict)
        })
        .buffer_unordered(LANES);
    let mut verdicts = Vec::new();
    while let Some((case, verdict)) = done.next().await {
        let number = verdicts.len() + 1;
        say(&format!("{number:4}/{all} {}", line(&case, &verdict)));
        verdicts.push((case, verdict));
    }
    summary(&verdicts, unbroken, begun);
    let failed: Vec<String> = verdicts
        .iter()
        .filter_map(|(case, verdict)| match verdict {
            Verdict::Same(_) | Verdict::NotFired => None,
            Verdict::Other(error) => Some(format!("=== {}\n{error:#}", name(case))),
        })
        .collect();
    let missed = verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::NotFired));
    let missed: Vec<String> = missed.map(|(case, _)| name(case)).collect();
    ensure!(
        missed.len() * MAY_MISS <= all,
        "of {all} faults {} never happened:\n{}",
        missed.len(),
        missed.join("\n")
    );
    if !failed.is_empty() {
        bail!(
            "{} of {all} cases failed:\n{}",
            failed.len(),
            failed.join("\n")
        );
    }
    Ok(())
}

async fn judge(site: &Site, case: &Case, expected: &Came) -> Verdict {
    for _ in 0..TRIES {
        match play(site, case.scenario, Some(case.fault.clone())).await {
            Ok(came) if !came.fired => {}
            Ok(came) if came.ending == expected.ending => return Verdict::Same(Box::new(came)),
            Ok(came) => {
                return Verdict::Other(anyhow!(
                    "it came to\n{:#}\nand not to\n{:#}",
                    came.ending,
                    expected.ending
                ));
            }
            Err(error) => return Verdict::Other(error),
        }
    }
    Verdict::NotFired
}

/// Name of a case, by which it can be asked for.
pub(crate) fn name(case: &Case) -> String {
    format!("{}: {}", case.scenario.as_str(), case.fault)
}

fn line(case: &Case, verdict: &Verdict) -> String {
    let said = match verdict {
        Verdict::Same(came) => format!(
            "same in {:.1} s, {} starts",
            came.took.as_secs_f64(),
            came.starts
        ),
        Verdict::Other(error) => {
            let cause = error.root_cause().to_string();
            let text: String = cause.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("OTHER: {}", text.chars().take(300).collect::<String>())
        }
        Verdict::NotFired => "NOT FIRED".to_owned(),
    };
    format!("{}: {said}", name(case))
}

/// Faults by kind and what came of them, and what happened to Events on the way.
fn summary(verdicts: &[(Case, Verdict)], unbroken: &BTreeMap<Scenario, Came>, begun: Instant) {
    let mut kinds: BTreeMap<(&str, &str), [u32; 6]> = BTreeMap::new();
    for (case, verdict) in verdicts {
        let row = kinds
            .entry((case.scenario.as_str(), case.fault.kind()))
            .or_default();
        row[0] += 1;
        match verdict {
            Verdict::Same(came) => {
                row[1] += 1;
                if let Some(expected) = unbroken.get(&case.scenario) {
                    let (lost, doubled) = events(&expected.events, &came.events);
                    row[3] += lost;
                    row[4] += doubled;
                }
            }
            Verdict::Other(_) => row[2] += 1,
            Verdict::NotFired => row[5] += 1,
        }
    }
    say(
        "scenario     fault            tried  same  other  never happened  Events lost  Events told twice",
    );
    for ((scenario, kind), [tried, same, other, lost, doubled, missed]) in &kinds {
        say(&format!(
            "{scenario:12} {kind:16} {tried:5} {same:5} {other:6} {missed:15} {lost:12} {doubled:18}"
        ));
    }
    let places: BTreeSet<String> = verdicts
        .iter()
        .map(|(case, _)| match &case.fault {
            Fault::Write(key, _) | Fault::Read(key, _) => {
                format!("{} {key}", case.scenario.as_str())
            }
            Fault::Watch(key, _) => format!("{} {key}", case.scenario.as_str()),
        })
        .collect();
    say(&format!(
        "{} faults at {} places in {:.0} s",
        verdicts.len(),
        places.len(),
        begun.elapsed().as_secs_f64()
    ));
}

/// How many Events of the unbroken run were not told, and how many were told more often.
fn events(expected: &BTreeMap<String, i32>, told: &BTreeMap<String, i32>) -> (u32, u32) {
    let count = |key: &String| told.get(key).copied().unwrap_or(0);
    let lost = expected.iter().filter(|(key, often)| count(key) < **often);
    let doubled = expected.iter().filter(|(key, often)| count(key) > **often);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (number(lost.count()), number(doubled.count()))
}
