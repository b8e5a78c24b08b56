//! The beginning of an incremental run, in its first launch before any step: the idea is classified and put where the iteration
//! goes on from, and what people edited is told. The first snapshot has all of it, so later launches go the same way.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{
        Digest,
        plan::{RunPlan, Source},
        report::{Outcome, What},
        snapshot::{Message, SYSTEM},
    },
    places::{BUGFIX, DEPENDENCIES, REQUIREMENT},
    status::{Failure, FailureReason},
};

use super::{
    Incremental,
    classify::{self, ACTION, Answer},
    edits::{Edits, edits},
    written,
};
use crate::{
    action::{repairs::Repairs, spent::Spent},
    ending::End,
    engine::Engine,
};

/// Most edited files that a message names.
const MOST_NAMED: usize = 200;

impl Engine {
    /// Does all of it, where the run is incremental; an error is the end of the launch.
    pub(crate) async fn begin_incremental(&mut self) -> Result<(), End> {
        let plan = Arc::clone(&self.plan);
        if !plan.options.incremental {
            return Ok(());
        }
        if let Some(failure) = self.unfit(&plan) {
            return Err(self.end(Outcome::Failed, Some(failure)).await);
        }
        let idea = Digest::of(&plan.options.idea);
        let earlier = self.record.machine.incremental.take();
        let (kept, earlier) = match earlier {
            Some(earlier) if earlier.idea == idea => (Some(earlier), None),
            earlier => (None, earlier),
        };
        let found = match kept {
            Some(kept) => kept,
            None => self.classified(&plan, idea, earlier).await?,
        };
        let path = self.tree.write(|tree| written(&plan, found.kind, tree));
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                let failure = failed(
                    FailureReason::InvalidPlan,
                    format!(
                        "the idea cannot be written into the project: {error}; give the places requirement and bugfix of the procedure's layout other paths"
                    ),
                );
                return Err(self.end(Outcome::Failed, Some(failure)).await);
            }
        };
        self.pending.push(What::Classified {
            found: Box::new(found.told(path)),
        });
        self.record.machine.incremental = Some(found);
        Ok(())
    }

    /// Why the run cannot be incremental, seen before money is spent.
    fn unfit(&self, plan: &RunPlan) -> Option<Failure> {
        let file = &plan.options.reqa_file;
        if !file.is_empty() && self.tree.read(|tree| tree.get(file).is_none()) {
            let base = self.record.baseline.as_ref();
            let from = base.map_or_else(String::new, |base| format!(" from {}", base.base.origin));
            return Some(failed(
                FailureReason::ProjectUnavailable,
                format!(
                    "spec.reqaFile is {file:?}, and the project{from} has no such file; name one of its files, from the project's root"
                ),
            ));
        }
        let own = [DEPENDENCIES, REQUIREMENT, BUGFIX].into_iter();
        let mut own = own.filter_map(|name| plan.layout.get(name));
        let refusal = own.find_map(|path| self.guard.undeliverable(path))?;
        Some(failed(
            FailureReason::PolicyDenied,
            format!("an incremental run keeps a file there: {refusal}"),
        ))
    }

    /// Asks what the idea is, and looks what people edited; `earlier` is what a run found from whose state this one begins.
    async fn classified(
        &mut self,
        plan: &RunPlan,
        idea: Digest,
        earlier: Option<Incremental>,
    ) -> Result<Incremental, End> {
        // Who looks at the run sees that it has begun.
        self.deliver().await?;
        let (answer, tokens) = self.ask_kind(plan).await?;
        let found = match earlier {
            Some(earlier) => Some(earlier.edits),
            // Nobody can edit what Sopwith kept since.
            None if matches!(plan.source, Some(Source::Run { .. })) => Some(Edits::default()),
            None => self.tree.read(|tree| edits(tree, &plan.layout)),
        };
        let Answer { kind, reason } = answer;
        let (own, _) = super::places(kind);
        let path = plan.layout.get(own).cloned().unwrap_or_default();
        self.note(
            ACTION,
            format!("{}: {reason}", kind.as_str()),
            vec![path],
            tokens,
        );
        self.note("edits", said(found.as_ref()), Vec::new(), (0, 0));
        Ok(Incremental {
            idea,
            kind,
            reason,
            edits: found.unwrap_or_default(),
        })
    }

    /// The answer of a model, and the tokens it took.
    async fn ask_kind(&mut self, plan: &RunPlan) -> Result<(Answer, (u64, u64)), End> {
        let reporter = self.reporter.clone();
        let asked = tokio::time::timeout(self.time_left(), self.kind_asked_for(plan));
        let asked = tokio::select! {
            biased;
            stop = reporter.stopped() => return Err(self.stop(stop).await),
            asked = asked => asked,
        };
        let failure = match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => failed(
                FailureReason::DeadlineExceeded,
                "the run's working time was over before its idea was classified (spec.deadlineSeconds)".to_owned(),
            ),
        };
        Err(self.end(Outcome::Failed, Some(failure)).await)
    }

    async fn kind_asked_for(&self, plan: &RunPlan) -> Result<(Answer, (u64, u64)), Failure> {
        let spent = Spent::default();
        let report = |what: What| {
            spent.count(&what);
            self.reporter.record([what]);
        };
        let mut ask = classify::question(plan);
        let mut repairs = Repairs::default();
        loop {
            let said = self.llm.ask(&mut ask, &report).await.map_err(|error| {
                failed(
                    error.reason(),
                    format!("the idea could not be classified: {error}"),
                )
            })?;
            let problems = match classify::read(&said) {
                Ok(answer) => return Ok((answer, spent.tokens())),
                Err(problems) => problems,
            };
            let key = ask.key.clone();
            repairs.again(&mut ask, said, &problems).map_err(|why| {
                let message = format!("the answer to {key} {why}");
                failed(FailureReason::GateFailed, message)
            })?;
        }
    }

    /// Adds to the trace what the system itself found out.
    fn note(&mut self, action: &str, content: String, wrote: Vec<String>, tokens: (u64, u64)) {
        self.record.add(Message {
            number: 0,
            at: Timestamp::now(),
            sender: SYSTEM.to_owned(),
            recipients: Vec::new(),
            cause: format!("{SYSTEM}/{action}"),
            attempt: 1,
            tool: None,
            item: None,
            verdict: None,
            content,
            wrote,
            input_tokens: tokens.0,
            output_tokens: tokens.1,
        });
    }
}

const fn failed(reason: FailureReason, message: String) -> Failure {
    Failure {
        reason,
        step: None,
        message,
    }
}

/// What people edited, for who reads the trace.
fn said(edits: Option<&Edits>) -> String {
    let Some(edits) = edits else {
        return "the project has no list of how a run left its files (.dependencies.json): what people edited is not known"
            .to_owned();
    };
    let mut lines = Vec::new();
    for (what, edits) in [
        ("edited by hand, an input of this run", &edits.edited),
        (
            "edited by hand although it is derived, and no source of anything",
            &edits.derived,
        ),
    ] {
        let named = edits.iter().take(MOST_NAMED);
        lines.extend(named.map(|edit| format!("{} {}: {what}", edit.path, edit.change.as_str())));
        if edits.len() > MOST_NAMED {
            lines.push(format!("{} more files: {what}", edits.len() - MOST_NAMED));
        }
    }
    if lines.is_empty() {
        "nothing was edited by hand since the last run".to_owned()
    } else {
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::incremental::{Change, Edit};

    #[test]
    fn the_trace_says_of_each_edited_file_what_becomes_of_it() {
        let edit = |path: &str, change| Edit {
            path: path.into(),
            change,
        };
        let edits = Edits {
            edited: vec![edit("game/a.py", Change::Changed)],
            derived: vec![edit("resources/prd/a.json", Change::Removed)],
        };
        assert_eq!(
            said(Some(&edits)),
            "game/a.py changed: edited by hand, an input of this run\n\
             resources/prd/a.json removed: edited by hand although it is derived, and no source of anything"
        );
        assert_eq!(
            said(Some(&Edits::default())),
            "nothing was edited by hand since the last run"
        );
        assert!(said(None).contains("not known"));
        let many = Edits {
            edited: vec![edit("x", Change::Added); MOST_NAMED + 3],
            derived: Vec::new(),
        };
        assert!(said(Some(&many)).ends_with("3 more files: edited by hand, an input of this run"));
    }
}
