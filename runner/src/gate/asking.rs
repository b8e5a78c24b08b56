//! Asking judges: a request of its own for each, within the run's budget.

use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use serde_json::Value;
use sopwith_crds::{
    contract::{cassette::Key, report::What},
    sop_definition::{Gate, ReviewGate},
};

use super::{
    Bench, Judgement, failed, mismatches,
    review::{self, Judge, SYSTEM, Shown},
    trust,
};
use crate::{
    action::{prompt::unfenced, repairs::Repairs},
    attempt::{Spot, Stopped},
    engine::Engine,
    llm::{Ask, LlmError, codec::ChatMessage},
};

impl Engine {
    /// Has models judge; an error where they cannot be asked.
    pub(super) async fn review(
        &self,
        spot: Spot<'_>,
        gate: &Gate,
        review: &ReviewGate,
    ) -> Result<Judgement, Stopped> {
        let shown = match self.shown(spot, review)? {
            Ok(shown) => shown,
            Err(why) => return Ok(failed(why, "judges agree".to_owned())),
        };
        let question = review::question(review, &shown);
        let asked = review.judges();
        // One that is asked once answers the same again; several answers of one model are to differ.
        let twice = |model: &str| asked.iter().filter(|other| **other == model).count() > 1;
        let asks = asked.iter().zip(1..).map(|(model, judge)| Ask {
            key: Key {
                gate: gate.name.clone(),
                judge,
                ..spot.key()
            },
            model: (*model).to_owned(),
            messages: vec![
                ChatMessage::new("system", SYSTEM),
                ChatMessage::new("user", question.as_str()),
            ],
            temperature: (!twice(model)).then_some(0.0),
            max_output: None,
            schema: Some(("verdict".to_owned(), review::schema(review))),
            ..Ask::default()
        });
        let judges: Result<Vec<Judge>, LlmError> =
            join_all(asks.map(|ask| self.judge_by(review, ask)))
                .await
                .into_iter()
                .collect();
        let mut judgement = review::judge(review, &shown, &judges?);
        judgement.trust = self.tree.read(|tree| {
            let paths = shown.iter().map(|file| file.path.as_str());
            trust::of_files(paths, self.bench(&Value::Null, tree))
        });
        Ok(judgement)
    }

    /// The work, or why it cannot be judged. The outer error fails the run.
    fn shown(
        &self,
        spot: Spot<'_>,
        review: &ReviewGate,
    ) -> Result<Result<Vec<Shown>, String>, Stopped> {
        let context = self.context_of(spot);
        let patterns: Result<Vec<String>, _> = review
            .files
            .iter()
            .map(|pattern| self.templates.render_inline(pattern, &context))
            .collect();
        let patterns = patterns?;
        Ok(self
            .tree
            .read(|tree| work(self.bench(&context, tree), &review.artifacts, &patterns)))
    }

    /// Asks one judge; an error where the run cannot go on without an answer.
    async fn judge_by(&self, review: &ReviewGate, mut ask: Ask) -> Result<Judge, LlmError> {
        let answered = Mutex::new(ask.model.clone());
        let report = |what: What| {
            if let What::LlmRequest { model, status, .. } = &what
                && status == "ok"
            {
                answered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone_from(model);
            }
            self.reporter.record([what]);
        };
        let mut repairs = Repairs::default();
        let said = loop {
            let answer = match self.llm.ask(&mut ask, &report).await {
                Ok(answer) => answer,
                Err(
                    error
                    @ (LlmError::Incomplete(_) | LlmError::Filtered(_) | LlmError::Refused(_)),
                ) => break Err(error.to_string()),
                Err(error) => return Err(error),
            };
            let text = unfenced(&answer);
            let problems = mismatches(&review::schema(review), text);
            if problems.is_empty() {
                break review::answers(review, text);
            }
            if let Err(why) = repairs.again(&mut ask, answer, &problems) {
                break Err(format!("the answer {why}"));
            }
        };
        let model = answered
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(Judge { model, said })
    }
}

/// The files of artifacts and patterns, each once, in order.
fn work(bench: Bench<'_>, artifacts: &[String], patterns: &[String]) -> Result<Vec<Shown>, String> {
    let mut paths: Vec<String> = Vec::new();
    for name in artifacts {
        let place = bench.places.iter().find(|place| place.name == *name);
        let found = place
            .ok_or_else(|| format!("there is no artifact {name}"))?
            .paths(bench.tree)
            .map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Err(format!("artifact {name} is missing: it has no file"));
        }
        paths.extend(found);
    }
    for pattern in patterns {
        // The path of an item can look like a pattern: `pages/[id].tsx`.
        let found = match bench.tree.get(pattern) {
            Some(_) => vec![pattern.clone()],
            None => bench
                .tree
                .glob(pattern)
                .map_err(|error| error.to_string())?,
        };
        if found.is_empty() {
            return Err(format!("there is no file {pattern}"));
        }
        paths.extend(found);
    }
    let mut seen = Vec::new();
    for path in paths {
        if seen.iter().any(|shown: &Shown| shown.path == path) {
            continue;
        }
        let bytes = bench.tree.get(&path).map(|file| file.bytes.to_vec());
        let text = String::from_utf8(bytes.unwrap_or_default())
            .map_err(|_| format!("{path} is no text, so nobody can be asked about it"))?;
        seen.push(Shown { path, text });
    }
    Ok(seen)
}
