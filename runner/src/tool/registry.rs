//! The functions that a role may call: which it is shown, and how it finds the others. Pure.

use std::cmp::Reverse;

use serde_json::Value;
use sopwith_crds::tool_policy::{Builtin, Tool, wire_name};

use crate::llm::codec::Function;

/// Most functions that a role is shown at once where it can search for the others.
const SHOWN: usize = 16;
/// Most functions that a search finds.
const FOUND: usize = 8;
/// Most characters of a description that a search shows.
const MAX_LINE: usize = 200;

/// A function that can be called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// The tool that it is, or is part of.
    pub(crate) tool: Tool,
    /// Of a class-like tool, its name there.
    pub(crate) function: Option<String>,
    /// What a model is told of it.
    pub(crate) told: Function,
}

impl Known {
    /// A function of a tool, with its own documentation and the schema of its arguments.
    pub(crate) fn new(tool: &Tool, function: Option<&str>, own: String, schema: Value) -> Self {
        // The policy's words come first: a server cannot talk a model into anything with its own.
        let description = match (&tool.description, function) {
            (Some(words), Some(_)) if !own.is_empty() => format!("{words}\n{own}"),
            (Some(words), _) => words.clone(),
            (None, _) => own,
        };
        Self {
            tool: tool.clone(),
            function: function.map(str::to_owned),
            told: Function {
                name: wire_name(&tool.name, function),
                description,
                parameters: schema,
            },
        }
    }

    /// Whether it is a program in a workbench.
    pub(crate) const fn is_program(&self) -> bool {
        self.tool.command.is_some()
    }

    /// `NAME`, or `NAME/FUNCTION`.
    pub(crate) fn label(&self) -> String {
        match &self.function {
            Some(function) => format!("{}/{function}", self.tool.name),
            None => self.tool.name.clone(),
        }
    }

    /// How well it fits words that were searched for; 0: not at all.
    fn score(&self, words: &[String]) -> usize {
        let name = self.told.name.to_lowercase();
        let parts: Vec<&str> = name.split(['_', '-']).collect();
        let description = self.told.description.to_lowercase();
        let of = |word: &String| {
            let tagged = self.tool.tags.iter().any(|tag| tag.to_lowercase() == *word);
            [
                (name == *word, 8),
                (parts.contains(&word.as_str()), 4),
                (tagged, 4),
                (name.contains(word.as_str()), 2),
                (description.contains(word.as_str()), 1),
            ]
            .into_iter()
            .filter_map(|(fits, points)| fits.then_some(points))
            .sum::<usize>()
        };
        words.iter().map(of).sum()
    }
}

/// What a role may call in one conversation. All of it can be called; what is shown, the model knows of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Offer {
    known: Vec<Known>,
    shown: Vec<bool>,
}

impl Offer {
    /// Everything is shown, unless it is much and the role can search: then only Sopwith's own tools at first.
    pub(crate) fn new(known: Vec<Known>) -> Self {
        let searches = known
            .iter()
            .any(|known| known.tool.builtin == Some(Builtin::SearchTools));
        let all = known.len() <= SHOWN || !searches;
        let shown = known
            .iter()
            .map(|known| all || known.tool.builtin.is_some())
            .collect();
        Self { known, shown }
    }

    /// Whether there is nothing to call.
    pub(crate) const fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The functions that are shown.
    pub(crate) fn functions(&self) -> Vec<Function> {
        self.known
            .iter()
            .zip(&self.shown)
            .filter(|(_, shown)| **shown)
            .map(|(known, _)| known.told.clone())
            .collect()
    }

    /// A function by the name that models call it.
    pub(crate) fn find(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.told.name == name)
    }

    /// The names that models can call, for messages.
    pub(crate) fn names(&self) -> String {
        let names = self.known.iter().map(|known| known.told.name.as_str());
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// Looks for functions; what is found is shown from then on. Gives what the model is told.
    pub(crate) fn search(&mut self, query: &str) -> String {
        let words: Vec<String> = query
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let mut scored: Vec<(usize, usize)> = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.tool.builtin != Some(Builtin::SearchTools))
            .map(|(index, known)| (known.score(&words), index))
            .filter(|(score, _)| *score > 0)
            .collect();
        scored.sort_by_key(|(score, index)| (Reverse(*score), *index));
        let total = scored.len();
        scored.truncate(FOUND);
        if scored.is_empty() {
            return "no tool fits these words; try others, or fewer".to_owned();
        }
        let more = if total > FOUND {
            format!("; the best {FOUND} are shown")
        } else {
            String::new()
        };
        let mut told = format!("{total} tools fit{more}. They can be called now:\n");
        for (_, index) in scored {
            self.shown[index] = true;
            let Function {
                name, description, ..
            } = &self.known[index].told;
            // The policy's words are the same for all functions of a tool: its own come behind them.
            let line: Vec<&str> = description.split_whitespace().collect();
            let line: String = line.join(" ").chars().take(MAX_LINE).collect();
            told.extend([name.as_str(), ": ", &line, "\n"]);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn builtin(builtin: Builtin) -> Known {
        let tool = Tool {
            name: builtin.as_str().into(),
            builtin: Some(builtin),
            ..Tool::default()
        };
        Known::new(&tool, None, builtin.description().into(), builtin.schema())
    }

    fn function(name: &str, own: &str, tag: &str) -> Known {
        let tool = Tool {
            name: "tracker".into(),
            tags: vec![tag.into()],
            ..Tool::default()
        };
        Known::new(&tool, Some(name), own.into(), json!({"type": "object"}))
    }

    fn many(count: usize) -> Vec<Known> {
        (0..count)
            .map(|number| function(&format!("f{number}"), "does something", "misc"))
            .collect()
    }

    fn shown(offer: &Offer) -> Vec<String> {
        offer
            .functions()
            .into_iter()
            .map(|function| function.name)
            .collect()
    }

    #[test]
    fn a_role_is_shown_all_it_has_unless_it_is_much_and_it_can_search() {
        let few = [vec![builtin(Builtin::SearchTools)], many(15)].concat();
        assert_eq!(shown(&Offer::new(few)).len(), 16);
        assert_eq!(shown(&Offer::new(many(40))).len(), 40);
        let much = [
            vec![builtin(Builtin::SearchTools), builtin(Builtin::ReadFile)],
            many(15),
        ]
        .concat();
        let offer = Offer::new(much);
        assert_eq!(shown(&offer), ["search_tools", "read_file"]);
        // What is not shown can be called nevertheless: it was granted.
        assert!(offer.find("tracker__f3").is_some());
        assert!(offer.find("tracker__f99").is_none());
    }

    #[test]
    fn a_search_goes_over_names_descriptions_and_tags_and_shows_what_it_found() {
        let mut known = vec![builtin(Builtin::SearchTools)];
        known.extend(many(20));
        known.push(function(
            "find_issue",
            "Looks for issues by text.",
            "issues",
        ));
        known.push(function(
            "create_issue",
            "Makes an issue.\nLong words.",
            "issues",
        ));
        known.push(function("issue", "An issue by number.", "issues"));
        known.push(function("close", "Closes what is done.", "issues"));
        let mut offer = Offer::new(known);
        assert_eq!(
            offer.search("Create an ISSUE!"),
            "3 tools fit. They can be called now:\ntracker__create_issue: Makes an issue. Long words.\ntracker__issue: An issue by number.\ntracker__find_issue: Looks for issues by text.\n"
        );
        assert_eq!(shown(&offer).len(), 4);
        assert!(
            offer
                .search("issues")
                .contains("tracker__close: Closes what is done.")
        );
        assert!(
            offer
                .search("tracker")
                .starts_with("24 tools fit; the best 8 are shown.")
        );
        assert!(offer.search("weather").starts_with("no tool fits"));
        assert!(offer.search("").starts_with("no tool fits"));
    }

    #[test]
    fn the_policys_words_stand_before_a_servers() {
        let mut tool = Tool {
            name: "tracker".into(),
            description: Some("Our tracker.".into()),
            ..Tool::default()
        };
        let told = |tool: &Tool, function: Option<&str>, own: &str| {
            Known::new(tool, function, own.into(), json!({}))
                .told
                .description
        };
        assert_eq!(told(&tool, Some("find"), "Finds."), "Our tracker.\nFinds.");
        assert_eq!(told(&tool, Some("find"), ""), "Our tracker.");
        assert_eq!(told(&tool, None, "Finds."), "Our tracker.");
        tool.description = None;
        assert_eq!(told(&tool, None, "Finds."), "Finds.");
    }
}
