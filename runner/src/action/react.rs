//! `reactMode: Free`: before each action the role's model picks the next, until it says that it is done or has no turn left.
//!
//! What was picked is not kept in snapshots: an attempt that is begun again after a kill asks again, as for all its work.

use sopwith_crds::{
    check::defaults,
    contract::{Digest, cassette::Key, report::What, snapshot::Message},
    sop_definition::{Action, ReactMode, Role, Step},
    status::FailureReason,
};

use super::{
    choice::{self, Choice, Choosing, Follows, Picks},
    form::Form,
    repairs::Repairs,
    spent::Spent,
};
use crate::{
    attempt::{Spot, Stopped},
    context::Place,
    engine::Engine,
    gate::short,
    llm::Ask,
    messages::Said,
    tree::Tree,
};

impl Engine {
    /// The role of a step, where it picks the actions itself.
    pub(crate) fn picking(&self, step: &Step) -> Option<Role> {
        let roles = self.plan.roles.iter();
        let mut own = roles.filter(|role| Some(&role.name) == step.role.as_ref());
        own.find(|role| role.picks()).cloned()
    }

    /// Does what the role picks, and has judged what failed in an earlier attempt and was not picked again.
    pub(crate) async fn react(&mut self, spot: Spot<'_>, role: &Role) -> Result<(), Stopped> {
        let step = spot.step;
        if self.state().inherited(&step.name) {
            return self.judge_inherited(spot).await;
        }
        let most = role.max_turns.unwrap_or(defaults::FREE_TURNS);
        let begun = self.record.messages.len();
        let mut picks = Picks::default();
        while picks.turns < most {
            let open = self.open(spot)?;
            if open.is_empty() {
                return self.judge_left(spot, &picks).await;
            }
            picks.turns += 1;
            let left = most - picks.turns + 1;
            let spent = Spent::default();
            let choice = self
                .choose(spot, role, &open, (begun, left), &mut picks, &spent)
                .await?;
            let follows = picks.follows(step, &choice.next, &self.project());
            self.tell_choice(spot, role, &choice, follows, &spent);
            match follows {
                Follows::Done => return self.judge_left(spot, &picks).await,
                Follows::Refuse => picks.refuse(),
                Follows::Stuck => return Err(stuck(spot, role, &choice.next)),
                Follows::Act(index) => {
                    let action = &step.actions[index];
                    let pick = Some(picks.begin(&action.name));
                    let at = Spot { pick, ..spot };
                    self.act(at.of_action(index, action), action, true).await?;
                    picks.ended(self.project());
                }
            }
        }
        self.judge_left(spot, &picks).await?;
        self.outputs_are_there(step)
            .map_err(|stopped| match stopped {
                Stopped::Failed(reason, message) => {
                    let over = format!(
                        "{message}; the {most} turns of role {} are over (maxTurns of the role)",
                        role.name
                    );
                    Stopped::Failed(reason, over)
                }
                other => other,
            })
    }

    /// The actions that can be picked now.
    fn open<'a>(&self, spot: Spot<'a>) -> Result<Vec<&'a Action>, Stopped> {
        let mut open = Vec::new();
        for (index, action) in spot.step.actions.iter().enumerate() {
            if self.wanted(spot.of_action(index, action), action.when.as_deref())? {
                open.push(action);
            }
        }
        Ok(open)
    }

    /// Asks for the next action. `begun` is the first message of the attempt, `left` how many actions may still be picked.
    async fn choose(
        &self,
        spot: Spot<'_>,
        role: &Role,
        open: &[&Action],
        (begun, left): (usize, u32),
        picks: &mut Picks,
        spent: &Spent,
    ) -> Result<Choice, Stopped> {
        let form = Form::matching(&self.plan, ReactMode::CHOICE, &choice::schema(open));
        let words = form.words();
        let outputs = self.outputs_of(spot.step);
        let outputs: Vec<(&Place, bool)> = outputs
            .iter()
            .map(|(place, there)| (place, *there))
            .collect();
        let own = format!("{}/{}", spot.step.name, ReactMode::CHOICE);
        let said = self.record.messages[begun..].iter();
        let said: Vec<&Message> = said
            .filter(|message| message.tool.is_none() && message.cause != own)
            .collect();
        let choosing = Choosing {
            step: spot.step,
            idea: &self.plan.options.idea,
            open,
            outputs: &outputs,
            said: &said,
            findings: spot.findings,
            left,
            form: words.as_deref(),
        };
        let draft = choice::draft(role, &choosing, picks);
        let model = role.model.as_ref().unwrap_or(&self.plan.options.model);
        let mut ask = Ask {
            key: Key {
                step: spot.step.name.clone(),
                action: ReactMode::CHOICE.to_owned(),
                attempt: spot.attempt,
                ..Key::default()
            },
            model: model.clone(),
            temperature: role.temperature.as_ref().and_then(|text| text.parse().ok()),
            max_output: role.max_output_tokens,
            schema: form.schema(),
            ..Ask::default()
        };
        let report = |what: What| {
            spent.count(&what);
            self.reporter.record([what]);
        };
        let mut repairs = Repairs::default();
        loop {
            picks.requests += 1;
            ask.key.turn = picks.requests;
            self.fit(&mut ask, &draft)?;
            let answer = self.llm.ask(&mut ask, &report).await?;
            // A long one takes more than one.
            picks.requests = ask.key.turn;
            let read = form.read(&answer).and_then(|text| {
                serde_json::from_str::<Choice>(&text).map_err(|error| vec![error.to_string()])
            });
            let problems = match read {
                Ok(choice) => return Ok(choice),
                Err(problems) => problems,
            };
            let key = ask.key.clone();
            repairs.again(&mut ask, answer, &problems).map_err(|why| {
                let message = format!("the answer to {key} {why}");
                Stopped::Failed(FailureReason::GateFailed, message)
            })?;
        }
    }

    /// Says in the trace and in the report what was picked, and what follows.
    fn tell_choice(
        &mut self,
        spot: Spot<'_>,
        role: &Role,
        choice: &Choice,
        follows: Follows,
        spent: &Spent,
    ) {
        let next = &choice.next;
        let picked = match follows {
            Follows::Act(_) => format!("picked {next}"),
            Follows::Done => "is done".to_owned(),
            Follows::Refuse | Follows::Stuck => format!(
                "picked {next} again, which was not done: nothing in the project has changed since"
            ),
        };
        let content = match choice.why.trim() {
            "" => picked,
            why => format!("{picked}: {why}"),
        };
        let said = Said {
            sender: &role.name,
            source: ReactMode::CHOICE,
            content: content.clone(),
            tokens: spent.tokens(),
            ..Said::default()
        };
        self.say(spot, said);
        self.reporter.record([What::ActionEnded {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            action: ReactMode::CHOICE.to_owned(),
            item: None,
            message: short(&format!("{} {content}", role.name)),
        }]);
    }

    /// What failed in an earlier attempt has to pass, whether its action was picked again or not.
    async fn judge_left(&mut self, spot: Spot<'_>, picks: &Picks) -> Result<(), Stopped> {
        for (index, action) in spot.step.actions.iter().enumerate() {
            let at = Spot {
                pick: Some(1),
                ..spot
            }
            .of_action(index, action);
            if picks.count(&action.name) == 0 && self.has_unmet(at) {
                self.act(at, action, false).await?;
            }
        }
        Ok(())
    }

    /// An earlier run did the step: the gates of what its role picked are judged again.
    async fn judge_inherited(&mut self, spot: Spot<'_>) -> Result<(), Stopped> {
        for (index, action) in spot.step.actions.iter().enumerate() {
            let at = Spot {
                pick: Some(1),
                ..spot
            }
            .of_action(index, action);
            let below = format!("{}/", at.name());
            let mut messages = self.record.messages.iter();
            if messages.any(|one| one.cause == at.name() || one.cause.starts_with(&below)) {
                self.act(at, action, false).await?;
            }
        }
        Ok(())
    }

    fn outputs_of(&self, step: &Step) -> Vec<(Place, bool)> {
        let own = self.places.iter().filter(|place| place.step == step.name);
        self.tree.read(|tree| {
            own.map(|place| {
                let there = place.paths(tree).is_ok_and(|paths| !paths.is_empty());
                (place.clone(), there)
            })
            .collect()
        })
    }

    fn project(&self) -> Digest {
        Digest::of_json(&self.tree.read(Tree::entries))
    }
}

fn stuck(spot: Spot<'_>, role: &Role, action: &str) -> Stopped {
    let message = format!(
        "role {} picked {}/{action} again and again, though nothing in the project had changed since, and it was told so; change its \
         prompts, or use reactMode: ByOrder",
        role.name, spot.step.name
    );
    Stopped::Failed(FailureReason::GateFailed, message)
}
