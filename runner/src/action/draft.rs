//! A question to a model before it is fitted into the model's window: the procedure's own words, and the values in them.
//! Pure.
//!
//! What stays the same from one request to the next comes first, so that providers find it in their caches: the system
//! message, the template, then what its author left to Sopwith: the form of the answer, what earlier runs left, messages,
//! findings.

use serde_json::Value;
use sopwith_crds::{
    contract::{memory::Fact, snapshot::Message},
    language::{Part, TemplateError, Templates},
    sop_definition::{Prompt, Role},
};

use crate::{recall, role};

/// Messages of a question that has been fitted: the system's and the user's.
pub const MESSAGES: usize = 2;

/// What a role is told where its template does not show it itself.
#[derive(Debug, Clone, Default)]
pub struct Told<'a> {
    /// In which form it has to answer, where the protocol does not say it.
    pub form: Option<String>,
    /// What is recalled of earlier runs, nearest first.
    pub recalled: &'a [&'a Fact],
    /// What its memory holds, oldest first; nothing where it has none.
    pub messages: &'a [&'a Message],
    /// What the attempt has to mend.
    pub findings: &'a str,
}

/// A question in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// The system message.
    pub system: Vec<Part>,
    /// The first user message.
    pub user: Vec<Part>,
}

impl Draft {
    /// The question of a prompt.
    pub fn new(
        templates: &Templates,
        prompt: &Prompt,
        role: &Role,
        context: &Value,
        told: &Told<'_>,
    ) -> Result<Self, TemplateError> {
        let system = match &prompt.system {
            Some(template) => templates.render_parts(template, context)?,
            None => vec![Part::words(role::system(role))],
        };
        let mut draft = Self {
            system,
            user: templates.render_parts(&prompt.template, context)?,
        };
        if let Some(words) = &told.form {
            draft.begin(words);
        }
        let texts = || std::iter::once(&prompt.template).chain(&prompt.system);
        let shows = |value: &str| texts().any(|template| templates.shows(template, value));
        if !shows("recalled") {
            draft.add_recalled(told.recalled);
        }
        if !shows("messages") {
            let left = |message: &&&Message| {
                told.findings.is_empty() || !message.content.contains(told.findings)
            };
            let messages: Vec<&&Message> = told.messages.iter().filter(left).collect();
            draft.add_messages(&messages);
        }
        if !shows("findings") && !told.findings.is_empty() {
            draft.begin("Your last attempt did not pass. What was found:\n");
            draft.user.push(Part::value("findings", told.findings));
        }
        Ok(draft)
    }

    fn add_recalled(&mut self, facts: &[&Fact]) {
        if facts.is_empty() {
            return;
        }
        self.begin("What earlier runs of this project left, nearest first:");
        for (fact, number) in facts.iter().zip(1..) {
            self.user
                .push(Part::words(format!("\n\n{}\n", recall::origin(fact))));
            self.user
                .push(Part::value(format!("fact {number}"), &*fact.text));
        }
    }

    fn add_messages(&mut self, messages: &[&&Message]) {
        if messages.is_empty() {
            return;
        }
        self.begin("What you were told, oldest first:");
        for message in messages {
            let item = message.item.iter().map(|item| format!(" {item}"));
            let head = format!(
                "\n\n[{} in {}{}]",
                message.sender,
                message.cause,
                item.collect::<String>()
            );
            self.user.push(Part::words(head));
            if !message.wrote.is_empty() {
                let wrote = format!("\nwrote {}", message.wrote.join(", "));
                self.user.push(Part::words(wrote));
            }
            if !message.content.is_empty() {
                self.user.push(Part::words("\n"));
                let name = format!("message {}", message.number);
                self.user
                    .push(Part::value(name, message.content.trim_end()));
            }
        }
    }

    /// Begins a section behind what is there.
    fn begin(&mut self, words: &str) {
        while let Some(last) = self.user.last_mut() {
            let kept = last.text.trim_end().len();
            last.text.truncate(kept);
            if kept > 0 {
                break;
            }
            self.user.pop();
        }
        self.user.push(Part::words(format!("\n\n{words}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn joined(parts: &[Part]) -> String {
        parts.iter().map(|part| part.text.as_str()).collect()
    }

    fn message(number: u64, cause: &str, content: &str, wrote: &[&str]) -> Message {
        Message {
            number,
            at: Timestamp::UNIX_EPOCH,
            sender: "architect".into(),
            recipients: vec!["engineer".into()],
            cause: cause.into(),
            attempt: 1,
            item: (number == 2).then(|| "a.py".to_owned()),
            verdict: None,
            tool: None,
            content: content.into(),
            wrote: wrote.iter().map(|path| (*path).to_owned()).collect(),
            input_tokens: 0,
            output_tokens: 0,
        }
    }

    fn drafted(template: &str, system: Option<&str>, findings: &str) -> (String, String) {
        let texts = [("main", template), ("part", "{{ findings }}")]
            .into_iter()
            .chain(system.map(|text| ("system", text)));
        let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let messages = [
            message(1, "design/draft", "a design\n", &["docs/design.md"]),
            message(2, "code/write", "", &["a.py"]),
            message(
                3,
                "code/tests",
                "command/tests Failed: 1 failed\nt fails",
                &[],
            ),
        ];
        let fact = Fact {
            run: "game-1".into(),
            sender: "sopwith".into(),
            source: "idea".into(),
            text: "a game of cards".into(),
        };
        let context =
            json!({"idea": "a game", "findings": findings, "messages": [], "recalled": []});
        let prompt = Prompt {
            system: system.map(|_| "system".to_owned()),
            template: "main".into(),
            ..Prompt::default()
        };
        let role = Role {
            name: "engineer".into(),
            ..Role::default()
        };
        let told = Told {
            form: Some("Answer so.".to_owned()),
            recalled: &[&fact],
            messages: &messages.iter().collect::<Vec<_>>(),
            findings,
        };
        let templates = Templates::new(&texts.collect()).unwrap();
        let draft = Draft::new(&templates, &prompt, &role, &context, &told).unwrap();
        (joined(&draft.system), joined(&draft.user))
    }

    #[test]
    fn what_a_template_does_not_show_stands_behind_it() {
        let (system, user) = drafted("Write {{ idea }}.\n\n", None, "");
        assert_eq!(system, "You are engineer.");
        assert_eq!(
            user,
            "Write a game.\n\nAnswer so.\n\nWhat earlier runs of this project left, nearest first:\n\n[run game-1, sopwith in idea]\na game of cards\n\n\
             What you were told, oldest first:\n\n[architect in design/draft]\nwrote docs/design.md\na design\n\n\
             [architect in code/write a.py]\nwrote a.py\n\n[architect in code/tests]\ncommand/tests Failed: 1 failed\nt fails"
        );
    }

    #[test]
    fn what_has_to_be_mended_is_told_once_and_last() {
        let (_, user) = drafted("Write.", None, "t fails");
        assert!(
            user.ends_with(
                "wrote a.py\n\nYour last attempt did not pass. What was found:\nt fails"
            ),
            "{user}"
        );
        assert_eq!(user.matches("t fails").count(), 1, "{user}");
    }

    #[test]
    fn what_a_template_shows_is_not_told_again() {
        for (template, system) in [
            ("{% for m in messages %}{% endfor %}{{ findings }}", None),
            ("{{ messages | length }}{% include 'part' %}", None),
            ("{{ findings }}", Some("{{ messages }}")),
        ] {
            let template = format!("{template}{{% for fact in recalled %}}{{% endfor %}}");
            let (_, user) = drafted(&template, system, "t fails");
            assert!(!user.contains("earlier runs"), "{user}");
            assert!(!user.contains("What you were told"), "{user}");
            assert_eq!(user.matches("t fails").count(), 1, "{user}");
        }
    }
}
