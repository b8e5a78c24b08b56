//! `reactMode: Free`: what a role is asked that picks its next action itself, and what follows from what it picks. Pure.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{Digest, snapshot::Message},
    language::Part,
    sop_definition::{Action, ReactMode, Role, Step, Work},
};

use super::draft::Draft;
use crate::{context::Place, role};

/// Messages of the attempt that a choice shows: the newest.
const MOST_SHOWN: usize = 40;
/// Characters of a message that a choice shows.
const MAX_SHOWN: usize = 300;

/// What a role answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The name of an action, or that nothing is left to do.
    pub next: String,
    /// Its reason.
    #[serde(default)]
    pub why: String,
}

/// What a role picked so far in an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picks {
    /// The actions that were begun, in order.
    done: Vec<Pick>,
    /// Choices that were made.
    pub turns: u32,
    /// Requests that were made for them, repairs included.
    pub requests: u32,
    /// Whether the last choice was refused, since it would have done the same again.
    refused: bool,
}

/// An action that was picked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pick {
    action: String,
    /// The project when it had ended; none while it is at work.
    after: Option<Digest>,
}

/// What follows from a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The action of this number is done.
    Act(usize),
    /// The step goes on to its outputs and gates.
    Done,
    /// The role is told that it would do the same again.
    Refuse,
    /// It was told, and repeats itself: the attempt fails.
    Stuck,
}

impl Picks {
    /// What follows from a choice, the project being as it is now.
    pub fn follows(&self, step: &Step, next: &str, project: &Digest) -> Follows {
        let Some(index) = step.actions.iter().position(|action| action.name == next) else {
            return Follows::Done;
        };
        let last = self.done.iter().rev().find(|pick| pick.action == next);
        // Nothing changed since it ended: it would see and do the same.
        match last.is_some_and(|pick| pick.after.as_ref() == Some(project)) {
            false => Follows::Act(index),
            true if self.refused => Follows::Stuck,
            true => Follows::Refuse,
        }
    }

    /// Books that a choice was refused.
    pub const fn refuse(&mut self) {
        self.refused = true;
    }

    /// Books that an action is begun; gives which time that is, from 1.
    pub fn begin(&mut self, action: &str) -> u32 {
        self.refused = false;
        self.done.push(Pick {
            action: action.to_owned(),
            after: None,
        });
        self.count(action)
    }

    /// Books that the last action has ended, and left the project like this.
    pub fn ended(&mut self, project: Digest) {
        if let Some(last) = self.done.last_mut() {
            last.after = Some(project);
        }
    }

    /// How often an action was picked.
    pub fn count(&self, action: &str) -> u32 {
        let same = self.done.iter().filter(|pick| pick.action == action);
        u32::try_from(same.count()).unwrap_or(u32::MAX)
    }
}

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub struct Choosing<'a> {
    /// The step.
    pub step: &'a Step,
    /// The requirement of the run.
    pub idea: &'a str,
    /// The actions whose `when` holds.
    pub open: &'a [&'a Action],
    /// The outputs of the step, each with whether it is there.
    pub outputs: &'a [(&'a Place, bool)],
    /// What the attempt has said so far.
    pub said: &'a [&'a Message],
    /// What it has to mend.
    pub findings: &'a str,
    /// Actions that may still be picked.
    pub left: u32,
    /// In which form the role has to answer, where the protocol does not say it.
    pub form: Option<&'a str>,
}

/// The schema of a choice among open actions.
pub fn schema(open: &[&Action]) -> Value {
    let names = open.iter().map(|action| action.name.as_str());
    let names: Vec<&str> = names.chain([ReactMode::DONE]).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["next", "why"],
        "properties": {"next": {"type": "string", "enum": names}, "why": {"type": "string"}},
    })
}

/// The question what to do next. What stays the same over an attempt comes first.
pub fn draft(role: &Role, choosing: &Choosing<'_>, picks: &Picks) -> Draft {
    let Choosing { step, .. } = choosing;
    let done = ReactMode::DONE;
    let mut actions = String::new();
    for action in &step.actions {
        let _ = write!(actions, "\n- {}", told(action));
    }
    let mut user = vec![
        Part::words(format!(
            "You are at work on the step {}, for this requirement:\n",
            step.name
        )),
        Part::value("idea", choosing.idea),
        Part::words(format!(
            "\n\nThe actions of the step:{actions}\n\nPick the action that brings the step forward now, or {done} where nothing is left \
             to do: `next` is its name, or {done}; `why` says in a few words why."
        )),
    ];
    if let Some(form) = choosing.form {
        user.push(Part::words(format!("\n\n{form}")));
    }
    if !choosing.findings.is_empty() {
        user.push(Part::words(
            "\n\nYour last attempt did not pass. What was found:\n",
        ));
        user.push(Part::value("findings", choosing.findings));
    }
    if !choosing.outputs.is_empty() {
        user.push(Part::words(format!(
            "\n\nWhat the step must hand over:{}",
            handed_over(choosing.outputs)
        )));
    }
    if !choosing.said.is_empty() {
        user.push(Part::words("\n\nWhat was done so far, oldest first:"));
        user.push(Part::value("what was done", said(choosing.said)));
    }
    if picks.refused {
        user.push(Part::words(
            "\n\nYour last choice was not done: nothing in the project has changed since that action ended, so it would do the same \
             again. Pick another action, or say that you are done.",
        ));
    }
    let open: Vec<&str> = choosing
        .open
        .iter()
        .map(|action| action.name.as_str())
        .collect();
    user.push(Part::words(format!(
        "\n\nYou can pick now, {} more at most: {}, {done}.",
        choosing.left,
        open.join(", ")
    )));
    Draft {
        system: vec![Part::words(role::system(role))],
        user,
    }
}

fn handed_over(outputs: &[(&Place, bool)]) -> String {
    let mut text = String::new();
    for (place, there) in outputs {
        let path = place.path.as_ref().or(place.glob.as_ref());
        let path = path.map_or("", String::as_str);
        let state = if *there { "is there" } else { "is missing" };
        let _ = write!(text, "\n- {} ({path}) {state}", place.name);
    }
    text
}

fn said(messages: &[&Message]) -> String {
    let newest = messages.len().saturating_sub(MOST_SHOWN);
    let mut text = String::new();
    for message in &messages[newest..] {
        let item = message.item.iter().map(|item| format!(" {item}"));
        let item: String = item.collect();
        let _ = write!(text, "\n- {}{item}: {}", message.cause, shown(message));
    }
    text
}

/// An action in a few words: its own, or what it does.
fn told(action: &Action) -> String {
    let name = &action.name;
    if let Some(description) = &action.description {
        return format!("{name}: {}", description.trim());
    }
    match &action.repeat {
        Some(repeat) => {
            let inner: Vec<String> = repeat
                .actions
                .iter()
                .map(|inner| doing(&inner.work))
                .collect();
            format!("{name}: repeats: {}", inner.join("; then "))
        }
        None => format!("{name}: {}", doing(&action.work)),
    }
}

fn doing(work: &Work) -> String {
    if let Some(prompt) = &work.prompt {
        let writes = &prompt.writes;
        let place = match (&writes.artifact, &writes.path, &writes.files) {
            (Some(artifact), ..) => format!("the artifact {artifact}"),
            (None, Some(path), _) => path.clone(),
            (None, None, Some(patterns)) => format!("files like {}", patterns.join(", ")),
            (None, None, None) => "nowhere".to_owned(),
        };
        format!(
            "you are asked ({}), and answer into {place}",
            prompt.template
        )
    } else if let Some(command) = &work.command {
        format!("runs `{}`", command.argv.join(" "))
    } else if let Some(tool) = &work.tool {
        format!("calls the tool {}", tool.name)
    } else if let Some(render) = &work.render {
        format!(
            "writes {} from a template ({})",
            render.path, render.template
        )
    } else {
        "does nothing".to_owned()
    }
}

fn shown(message: &Message) -> String {
    let text = if message.wrote.is_empty() {
        message.content.clone()
    } else {
        format!("wrote {}", message.wrote.join(", "))
    };
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use sopwith_crds::sop_definition::{Command, Loop, LoopAction, Prompt, PromptWrites, Render};

    fn action(name: &str) -> Action {
        Action {
            name: name.into(),
            ..Action::default()
        }
    }

    fn step() -> Step {
        Step {
            name: "fix".into(),
            actions: vec![action("read"), action("patch"), action("test")],
            ..Step::default()
        }
    }

    fn picks(done: &[(&str, &str)], refused: bool) -> Picks {
        let mut picks = Picks::default();
        for (action, after) in done {
            picks.begin(action);
            picks.ended(Digest::of(after));
        }
        if refused {
            picks.refuse();
        }
        picks
    }

    #[test]
    fn what_would_do_the_same_again_is_refused_once() {
        for (done, refused, next, project, expected) in [
            (&[][..], false, "read", "a", Follows::Act(0)),
            (&[("read", "a")], false, "read", "a", Follows::Refuse),
            (&[("read", "a")], true, "read", "a", Follows::Stuck),
            (&[("read", "a")], true, "patch", "a", Follows::Act(1)),
            (
                &[("read", "a"), ("patch", "b")],
                false,
                "read",
                "b",
                Follows::Act(0),
            ),
            // Another action in between that changed nothing is no reason to repeat the first.
            (
                &[("read", "a"), ("test", "a")],
                false,
                "read",
                "a",
                Follows::Refuse,
            ),
            (
                &[("test", "a"), ("patch", "b"), ("test", "b")],
                false,
                "test",
                "b",
                Follows::Refuse,
            ),
            (
                &[("test", "a"), ("patch", "b"), ("patch", "c")],
                false,
                "test",
                "c",
                Follows::Act(2),
            ),
            (&[("read", "a")], true, "done", "a", Follows::Done),
        ] {
            let picks = picks(done, refused);
            let follows = picks.follows(&step(), next, &Digest::of(project));
            assert_eq!(follows, expected, "{done:?} {next}");
        }
    }

    #[test]
    fn picks_are_counted_and_another_action_makes_up_for_a_repetition() {
        let mut picks = picks(&[("read", "a")], true);
        assert_eq!((picks.begin("test"), picks.begin("read")), (1, 2));
        assert_eq!((picks.count("read"), picks.count("patch")), (2, 0));
        picks.ended(Digest::of("a"));
        assert_eq!(
            picks.follows(&step(), "read", &Digest::of("a")),
            Follows::Refuse
        );
    }

    #[test]
    fn a_choice_is_among_what_is_open() {
        let (read, test) = (action("read"), action("test"));
        assert_eq!(
            schema(&[&read, &test])["properties"]["next"]["enum"],
            json!(["read", "test", "done"])
        );
    }

    #[test]
    fn an_action_is_told_in_its_own_words_or_by_what_it_does() {
        let work = |work: Work| Action {
            work,
            ..action("a")
        };
        let prompt = |writes: PromptWrites| {
            work(Work {
                prompt: Some(Prompt {
                    template: "t".into(),
                    writes,
                    ..Prompt::default()
                }),
                ..Work::default()
            })
        };
        let command = Work {
            command: Some(Command {
                argv: vec!["make".into(), "test".into()],
                ..Command::default()
            }),
            ..Work::default()
        };
        let render = Work {
            render: Some(Render {
                template: "t".into(),
                path: "a.md".into(),
            }),
            ..Work::default()
        };
        let own = Action {
            description: Some("Looks. ".into()),
            ..work(command.clone())
        };
        let repeat = Action {
            repeat: Some(Loop {
                actions: [command.clone(), render.clone()]
                    .map(|work| LoopAction {
                        work,
                        ..LoopAction::default()
                    })
                    .into(),
                ..Loop::default()
            }),
            ..action("a")
        };
        let path = PromptWrites {
            path: Some("x".into()),
            ..PromptWrites::default()
        };
        for (action, expected) in [
            (own, "a: Looks."),
            (prompt(path), "a: you are asked (t), and answer into x"),
            (work(command), "a: runs `make test`"),
            (work(render), "a: writes a.md from a template (t)"),
            (
                repeat,
                "a: repeats: runs `make test`; then writes a.md from a template (t)",
            ),
        ] {
            assert_eq!(told(&action), expected);
        }
    }

    #[test]
    fn a_role_is_told_what_stays_the_same_first() {
        let step = step();
        let role = Role {
            name: "fixer".into(),
            ..Role::default()
        };
        let place = Place {
            name: "code".into(),
            step: "fix".into(),
            path: Some("a.py".into()),
            glob: None,
            schema: None,
            frozen: false,
        };
        let message = Message {
            number: 1,
            at: Timestamp::UNIX_EPOCH,
            sender: "fixer".into(),
            recipients: Vec::new(),
            cause: "fix/read".into(),
            attempt: 2,
            tool: None,
            item: None,
            verdict: None,
            content: "x".repeat(400),
            wrote: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
        };
        let open: Vec<&Action> = step.actions.iter().skip(1).collect();
        let choosing = Choosing {
            step: &step,
            idea: "mend it",
            open: &open,
            outputs: &[(&place, false)],
            said: &[&message],
            findings: "1 failed",
            left: 3,
            form: Some("Answer so."),
        };
        let draft = draft(&role, &choosing, &picks(&[], true));
        let user: String = draft.user.iter().map(|part| part.text.as_str()).collect();
        let expected = format!(
            "You are at work on the step fix, for this requirement:\nmend it\n\nThe actions of the step:\n- read: does nothing\n- patch: does \
             nothing\n- test: does nothing\n\nPick the action that brings the step forward now, or done where nothing is left to do: `next` is its \
             name, or done; `why` says in a few words why.\n\nAnswer so.\n\nYour last attempt did not pass. What was found:\n1 failed\n\nWhat the \
             step must hand over:\n- code (a.py) is missing\n\nWhat was done so far, oldest first:\n- fix/read: {}…\n\nYour last choice was not \
             done: nothing in the project has changed since that action ended, so it would do the same again. Pick another action, or say that \
             you are done.\n\nYou can pick now, 3 more at most: patch, test, done.",
            "x".repeat(300)
        );
        assert_eq!(user, expected);
    }
}
