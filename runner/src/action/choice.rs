//! `reactMode: Free`: what a role is asked that picks its next action itself, and what follows from what it picks. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{Digest, snapshot::Message},
    language::Part,
    sop_definition::{Action, Role, Step, Work},
};

use super::draft::Draft;
use crate::{context::Place, role};

/// What a role says that has nothing more to do.
pub const DONE: &str = "done";
/// The place of a choice in keys and in the trace: no action can have this name.
pub const CHOICE: &str = "(choice)";
/// Actions of one attempt of a role that does not say how many.
pub const MAX_TURNS: u32 = 10;
/// Characters of a message that a choice shows.
const MAX_SHOWN: usize = 300;

/// What a role picked so far in an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picks {
    /// The actions that were done, in order.
    #[serde(default)]
    pub done: Vec<Pick>,
    /// The last request of a choice.
    pub turn: u32,
    /// Whether the last choice was refused, since it would have done the same again.
    #[serde(default)]
    pub refused: bool,
}

/// An action that was picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// Its name.
    pub action: String,
    /// The project when it had ended; none while it is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Digest>,
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
}

/// The schema of a choice among open actions.
pub fn schema(open: &[&Action]) -> Value {
    let names = open.iter().map(|action| action.name.as_str());
    let names: Vec<&str> = names.chain([DONE]).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["next"],
        "properties": {"next": {"type": "string", "enum": names}, "why": {"type": "string"}},
    })
}

/// The question what to do next. What stays the same over an attempt comes first.
pub fn draft(role: &Role, choosing: &Choosing<'_>, picks: &Picks) -> Draft {
    let Choosing { step, .. } = choosing;
    let mut user = vec![
        Part::words(format!("You are at work on the step {}, for this requirement:\n", step.name)),
        Part::value("idea", choosing.idea),
        Part::words("\n\nThe actions of the step:"),
    ];
    let actions = step.actions.iter().map(described);
    user.extend(actions.map(|words| Part::words(format!("\n- {words}"))));
    user.push(Part::words(format!(
        "\n\nPick the action that brings the step forward now, or {DONE} where nothing is left to do. Answer with one JSON object: \
         `next` is the name of the action or {DONE}, `why` says in a few words why."
    )));
    if !choosing.findings.is_empty() {
        user.push(Part::words("\n\nYour last attempt did not pass. What was found:\n"));
        user.push(Part::value("findings", choosing.findings));
    }
    let outputs = choosing.outputs.iter().map(|(place, there)| {
        let path = place.path.as_ref().or(place.glob.as_ref());
        let state = if *there { "is there" } else { "is missing" };
        format!("\n- {} ({}) {state}", place.name, path.map_or("", String::as_str))
    });
    let outputs: String = outputs.collect();
    if !outputs.is_empty() {
        user.push(Part::words(format!("\n\nWhat the step must hand over:{outputs}")));
    }
    if !choosing.said.is_empty() {
        user.push(Part::words("\n\nWhat was done so far, in this order:"));
    }
    for message in choosing.said {
        user.push(Part::words(format!("\n- {}: ", message.cause)));
        user.push(Part::value(format!("message {}", message.number), shown(message)));
    }
    if picks.refused {
        user.push(Part::words(
            "\n\nYour last choice was not done: nothing in the project has changed since that action ended, so it would do the same \
             again. Pick another action, or say that you are done.",
        ));
    }
    let open: Vec<&str> = choosing.open.iter().map(|action| action.name.as_str()).collect();
    user.push(Part::words(format!(
        "\n\nYou can pick now, {} more at most: {}, {DONE}.",
        choosing.left,
        open.join(", ")
    )));
    Draft {
        system: vec![Part::words(role::system(role))],
        user,
    }
}

/// An action in a few words.
fn described(action: &Action) -> String {
    let name = &action.name;
    match &action.repeat {
        Some(repeat) => {
            let inner: Vec<String> = repeat.actions.iter().map(|inner| doing(&inner.work)).collect();
            format!("{name}: for each of a list, {}", inner.join(", then "))
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
        format!("you are asked by the template {}, and your answer goes to {place}", prompt.template)
    } else if let Some(command) = &work.command {
        format!("runs `{}`", command.argv.join(" "))
    } else if let Some(tool) = &work.tool {
        format!("calls the tool {}", tool.name)
    } else if let Some(render) = &work.render {
        format!("writes {} from the template {}", render.path, render.template)
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

    fn step() -> Step {
        let action = |name: &str| Action {
            name: name.into(),
            ..Action::default()
        };
        Step {
            name: "fix".into(),
            actions: vec![action("read"), action("patch"), action("test")],
            ..Step::default()
        }
    }

    fn picks(done: &[(&str, &str)], refused: bool) -> Picks {
        let pick = |(action, after): &(&str, &str)| Pick {
            action: (*action).into(),
            after: Some(Digest::of(after)),
        };
        Picks {
            done: done.iter().map(pick).collect(),
            turn: 1,
            refused,
        }
    }

    #[test]
    fn what_would_do_the_same_again_is_refused_once() {
        for (done, refused, next, project, expected) in [
            (&[][..], false, "read", "a", Follows::Act(0)),
            (&[("read", "a")], false, "read", "a", Follows::Refuse),
            (&[("read", "a")], true, "read", "a", Follows::Stuck),
            (&[("read", "a")], true, "patch", "a", Follows::Act(1)),
            (&[("read", "a"), ("patch", "b")], false, "read", "b", Follows::Act(0)),
            // Another action in between that changed nothing is no reason to repeat the first.
            (&[("read", "a"), ("test", "a")], false, "read", "a", Follows::Refuse),
            (&[("test", "a"), ("patch", "b"), ("test", "b")], false, "test", "b", Follows::Refuse),
            (&[("test", "a"), ("patch", "b"), ("patch", "c")], false, "test", "c", Follows::Act(2)),
            (&[("read", "a")], true, "done", "a", Follows::Done),
        ] {
            let picks = picks(done, refused);
            let follows = picks.follows(&step(), next, &Digest::of(project));
            assert_eq!(follows, expected, "{done:?} {next}");
        }
        let twice = picks(&[("read", "a"), ("read", "b")], false);
        assert_eq!((twice.count("read"), twice.count("test")), (2, 0));
    }
}
