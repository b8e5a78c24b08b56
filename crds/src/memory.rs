//! Long-term memory: what a run leaves for later runs of its project, and what of it is recalled. Pure.
//!
//! A run that succeeded leaves its idea, the last word of each role on each action, and what gates found on the way. What is
//! recalled is chosen by its words: Okapi BM25 (k₁ = 1.2, b = 0.75) over the words that a fact shares with what it is to be
//! about, where a word counts the more the fewer facts have it. Facts as near as each other come newest first.

use crate::{
    contract::{
        VERSION,
        memory::{Fact, Facts},
        plan::RunPlan,
        snapshot::{Message, SYSTEM},
    },
    sop_definition::ReactMode,
    status::Verdict,
};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Where the idea comes from, as facts name it.
const IDEA: &str = "idea";
/// Most facts that a run leaves.
pub const MAX_FACTS: usize = 64;
/// Most characters of a fact.
const MAX_CHARACTERS: usize = 500;
/// Most facts that are frozen into a plan.
pub const MAX_RECALLED: usize = 64;
/// Most bytes of their texts.
pub const MAX_RECALLED_BYTES: usize = 24 * 1024;
/// Most runs of a project whose facts are kept: the newest.
pub const MAX_RUNS: usize = 64;
/// Most facts that a role is told of for one prompt.
pub const MAX_TOLD: usize = 8;
/// Shortest word that counts, in characters.
const SHORTEST: usize = 3;
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// What a run leaves that succeeded at a time.
pub fn left(plan: &RunPlan, messages: &[Message], at: Timestamp) -> Facts {
    Facts {
        version: VERSION,
        namespace: plan.run.namespace.clone(),
        project: plan.options.project_name.clone(),
        run: plan.run.name.clone(),
        uid: plan.run.uid.clone(),
        at,
        facts: facts(plan, messages),
    }
}

/// The facts of a run that succeeded, from its trace.
fn facts(plan: &RunPlan, messages: &[Message]) -> Vec<Fact> {
    let role = |sender: &str| plan.roles.iter().any(|role| role.name == sender);
    let choice = format!("/{}", ReactMode::CHOICE);
    // Neither what a tool answered nor what a role picked is what it made of it.
    let said = |message: &&Message| message.tool.is_none() && !message.cause.ends_with(&choice);
    let messages: Vec<&Message> = messages.iter().filter(said).collect();
    // The last word on an action, or on an item of it, is what was handed over.
    let last: BTreeMap<(&str, Option<&str>), u64> = messages
        .iter()
        .filter(|message| role(&message.sender))
        .map(|message| {
            (
                (message.cause.as_str(), message.item.as_deref()),
                message.number,
            )
        })
        .collect();
    let wanted = |message: &&&Message| {
        let key = (message.cause.as_str(), message.item.as_deref());
        message.verdict == Some(Verdict::Failed) || last.get(&key) == Some(&message.number)
    };
    let idea = Fact {
        run: plan.run.name.clone(),
        sender: SYSTEM.to_owned(),
        source: IDEA.to_owned(),
        text: short(&plan.options.idea),
    };
    let mut seen = BTreeSet::new();
    let of_messages = messages.iter().filter(wanted).map(|message| Fact {
        run: plan.run.name.clone(),
        sender: message.sender.clone(),
        source: message.cause.clone(),
        text: short(&told(message)),
    });
    std::iter::once(idea)
        .chain(of_messages)
        .filter(|fact| {
            !fact.text.is_empty() && seen.insert((fact.source.clone(), fact.text.clone()))
        })
        .take(MAX_FACTS)
        .collect()
}

fn told(message: &Message) -> String {
    if message.wrote.is_empty() {
        return message.content.clone();
    }
    format!("wrote {}: {}", message.wrote.join(", "), message.content)
}

fn short(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= MAX_CHARACTERS {
        return text;
    }
    let cut: String = text.chars().take(MAX_CHARACTERS - 1).collect();
    format!("{cut}…")
}

/// What a plan recalls of the earlier runs of its project: the facts that are nearest to its idea, and then the newest, as far as
/// there is room.
pub fn recalled(earlier: &[Facts], idea: &str) -> Vec<Fact> {
    let mut runs: Vec<&Facts> = earlier.iter().collect();
    runs.sort_by(|one, other| (other.at, &other.uid).cmp(&(one.at, &one.uid)));
    let facts: Vec<Fact> = runs.into_iter().flat_map(|run| run.facts.clone()).collect();
    let mut room = MAX_RECALLED_BYTES;
    let nearest = nearest(&facts, idea, "", false).into_iter();
    let fitting = nearest.filter(|fact| {
        let fits = fact.text.len() <= room;
        room -= if fits { fact.text.len() } else { 0 };
        fits
    });
    fitting.take(MAX_RECALLED).cloned().collect()
}

/// The facts that are about something, nearest first, at most `most`. Those of the same step count as if they shared one rare
/// word more.
pub fn about<'a>(facts: &'a [Fact], words: &str, step: &str, most: usize) -> Vec<&'a Fact> {
    let mut nearest = nearest(facts, words, step, true);
    nearest.truncate(most);
    nearest
}

fn nearest<'a>(facts: &'a [Fact], about: &str, step: &str, related: bool) -> Vec<&'a Fact> {
    let documents: Vec<Vec<String>> = facts.iter().map(|fact| words(&fact.text)).collect();
    let total: usize = documents.iter().map(Vec::len).sum();
    let average = (number(total) / number(documents.len().max(1))).max(1.0);
    let mut having: BTreeMap<&str, usize> = BTreeMap::new();
    for document in &documents {
        let distinct: BTreeSet<&str> = document.iter().map(String::as_str).collect();
        for word in distinct {
            *having.entry(word).or_default() += 1;
        }
    }
    let rarity = |having: usize| {
        let (all, having) = (number(facts.len()), number(having));
        ((all - having + 0.5) / (having + 0.5) + 1.0).ln()
    };
    let asked: BTreeSet<String> = words(about).into_iter().collect();
    let mut scored: Vec<(f64, &Fact)> = facts
        .iter()
        .zip(&documents)
        .map(|(fact, document)| {
            let length = K1 * (1.0 - B + B * number(document.len()) / average);
            let score: f64 = asked
                .iter()
                .map(|word| {
                    let count = number(document.iter().filter(|own| *own == word).count());
                    let having = having.get(word.as_str()).copied().unwrap_or(0);
                    rarity(having) * count * (K1 + 1.0) / (count + length)
                })
                .sum();
            let same_step = !step.is_empty() && fact.step() == step;
            (score + if same_step { rarity(1) } else { 0.0 }, fact)
        })
        .filter(|(score, _)| !related || *score > 0.0)
        .collect();
    // Stable: what is as near keeps its order, newest first.
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    scored.into_iter().map(|(_, fact)| fact).collect()
}

/// A count of facts or words: far below what a float holds exactly.
#[allow(clippy::cast_precision_loss, reason = "counts of facts and words")]
const fn number(count: usize) -> f64 {
    count as f64
}

/// The words of a text: letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= SHORTEST)
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contract::plan::RunOptions, sop_definition::Role};

    fn message(number: u64, sender: &str, cause: &str, content: &str) -> Message {
        Message {
            number,
            at: Timestamp::UNIX_EPOCH,
            sender: sender.into(),
            recipients: Vec::new(),
            cause: cause.into(),
            attempt: 1,
            tool: None,
            item: None,
            verdict: None,
            content: content.into(),
            wrote: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
        }
    }

    fn plan() -> RunPlan {
        RunPlan {
            run: crate::contract::plan::RunIdentity {
                name: "game-1".into(),
                ..Default::default()
            },
            roles: vec![Role {
                name: "writer".into(),
                ..Role::default()
            }],
            options: RunOptions {
                idea: "A card\ngame".into(),
                ..RunOptions::default()
            },
            ..RunPlan::default()
        }
    }

    fn fact(source: &str, text: &str) -> Fact {
        Fact {
            run: "r".into(),
            sender: "writer".into(),
            source: source.into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_run_leaves_its_idea_what_was_handed_over_and_what_gates_found() {
        let mut messages = vec![
            message(1, "writer", "write/draft", "the first word"),
            message(2, SYSTEM, "write/right", "expression/right Failed: no"),
            message(3, "writer", "write/draft", "the last word"),
            message(4, SYSTEM, "write/right", "expression/right Passed: holds"),
            message(5, SYSTEM, "write/run", "ran true"),
            message(6, "writer", "write/files", &"x".repeat(600)),
            message(7, "writer", "write/react", "picked files"),
            message(8, "writer", "write/draft", "read_file a.txt"),
        ];
        messages[7].tool = Some("read_file".into());
        messages[1].verdict = Some(Verdict::Failed);
        messages[3].verdict = Some(Verdict::Passed);
        messages[2].wrote = vec!["a.txt".into()];
        let left: Vec<(String, String)> = facts(&plan(), &messages)
            .into_iter()
            .map(|fact| {
                assert_eq!(fact.run, "game-1");
                (fact.source, fact.text)
            })
            .collect();
        let expected = [
            ("idea", "A card game"),
            ("write/right", "expression/right Failed: no"),
            ("write/draft", "wrote a.txt: the last word"),
            ("write/files", &format!("{}…", "x".repeat(499))),
        ];
        assert_eq!(
            left,
            expected.map(|(source, text)| (source.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn what_a_run_leaves_is_bounded_and_says_nothing_twice() {
        let many: Vec<Message> = (0..200)
            .map(|n| message(n, "writer", &format!("s/a{n}"), &format!("word {n}")))
            .collect();
        assert_eq!(facts(&plan(), &many).len(), MAX_FACTS);
        let mut same = vec![
            message(1, SYSTEM, "s/g", "x"),
            message(2, SYSTEM, "s/g", "x"),
        ];
        for one in &mut same {
            one.verdict = Some(Verdict::Failed);
        }
        assert_eq!(facts(&plan(), &same).len(), 2);
    }

    #[test]
    fn the_nearest_facts_come_first() {
        let facts = [
            fact(
                "code/write",
                "The deck has 52 cards, and the ace counts 11.",
            ),
            fact("code/write", "The player moves with the arrow keys."),
            fact("test/lint", "Unused import os in cards.py"),
            fact("idea", "A snake game"),
        ];
        let order = |words: &str, step: &str| {
            about(&facts, words, step, 3)
                .iter()
                .map(|fact| facts.iter().position(|other| other == *fact).unwrap())
                .collect::<Vec<_>>()
        };
        for (words, step, expected) in [
            ("Let an ace count 1 as well", "", &[0][..]),
            ("cards", "", &[2, 0]),
            // A word of a short fact says more than the step.
            ("a new snake", "test", &[3, 2]),
            ("arrows", "test", &[2]),
            ("nothing of it", "", &[]),
            ("CARDS and ARROW keys, snake", "", &[1, 3, 0]),
        ] {
            assert_eq!(order(words, step), expected, "{words}");
        }
    }

    #[test]
    fn a_plan_recalls_the_nearest_then_the_newest_as_far_as_there_is_room() {
        let run = |uid: &str, at: i64, texts: &[String]| Facts {
            version: 1,
            namespace: "n".into(),
            project: "p".into(),
            run: uid.into(),
            uid: uid.into(),
            at: Timestamp::from_second(at).unwrap(),
            facts: texts.iter().map(|text| fact("s/a", text)).collect(),
        };
        let texts = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let earlier = [
            run("old", 1, &texts(&["about cards", "old words"])),
            run("new", 2, &texts(&["new words", "more words"])),
        ];
        let recall = |earlier: &[Facts]| {
            let facts = recalled(earlier, "a game of cards");
            facts.into_iter().map(|fact| fact.text).collect::<Vec<_>>()
        };
        assert_eq!(
            recall(&earlier),
            ["about cards", "new words", "more words", "old words"]
        );
        let long: Vec<String> = (0..100)
            .map(|n| format!("{n:03} {}", "y".repeat(490)))
            .collect();
        let recalled = recall(&[run("long", 3, &long), run("old", 1, &texts(&["cards"]))]);
        assert_eq!(recalled[0], "cards");
        let bytes: usize = recalled.iter().map(String::len).sum();
        assert!(
            bytes <= MAX_RECALLED_BYTES && bytes > MAX_RECALLED_BYTES - 500,
            "{bytes}"
        );
        assert_eq!(recall(&[]), [""; 0]);
    }
}
