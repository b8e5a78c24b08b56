//! One launch of a run: asks the machine what is next, has it done, and reports it.
//!
//! The order of writes at the end of a step: blobs, snapshot, report; the next step begins when the report is stored. So
//! a finished step is one that the gateway acknowledged, and a killed runner repeats at most the step it was at.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sopwith_crds::{
    agent_run,
    check::defaults,
    contract::{
        Digest,
        plan::RunPlan,
        report::{Next, Outcome, StepEnd, What},
    },
    language::{Since, Templates},
    sop_definition::Step,
    status::{Failure, FailureReason, Usage, Verdict},
};

use crate::{
    action::command::Benches,
    attempt::{Decided, Lap, Stopped},
    base::{Beginning, Outset},
    context::{Moment, Place, SharedTree, at, places},
    ending::End,
    gate::{Said, approval::answer},
    git::{history::History, remote::Remote},
    guard::Guard,
    incremental,
    llm::Llm,
    messages::remembered,
    recall,
    report::{Reporter, Stop},
    snapshot::{Begun, Blobs, Record},
    sop::{Decision, Happened, State, Wait, Way, apply, next, restores, way},
    tool::Toolbox,
    trail,
};

/// What a launch works with.
pub struct Engine {
    pub(crate) plan: Arc<RunPlan>,
    pub(crate) plan_digest: Digest,
    pub(crate) places: Vec<Place>,
    pub(crate) templates: Templates,
    pub(crate) tree: SharedTree,
    pub(crate) llm: Arc<Llm>,
    pub(crate) tools: Toolbox,
    pub(crate) benches: Benches,
    pub(crate) reporter: Reporter,
    pub(crate) blobs: Blobs,
    pub(crate) record: Record,
    pub(crate) history: History,
    pub(crate) guard: Guard,
    pub(crate) remote: Option<Remote>,
    pub(crate) snapshot: Option<Digest>,
    pub(crate) pending: Vec<What>,
    /// In a fork: verdicts, which are told in the order of the items.
    pub(crate) verdicts: Option<Vec<What>>,
    pub(crate) decisions: Vec<agent_run::Decision>,
    pub(crate) begun: Instant,
    pub(crate) worked_before: u64,
    pub(crate) round_told: u32,
}

/// What an engine is made from.
pub struct Parts {
    /// The plan.
    pub plan: Arc<RunPlan>,
    /// The models.
    pub llm: Arc<Llm>,
    /// The tools.
    pub tools: Toolbox,
    /// The workbenches.
    pub benches: Benches,
    /// The reports.
    pub reporter: Reporter,
    /// The blobs.
    pub blobs: Blobs,
    /// The snapshot to resume from.
    pub resume: Option<Digest>,
    /// What to begin with, where there is no snapshot to resume from.
    pub beginning: Option<Beginning>,
    /// The way to the run's repository.
    pub remote: Option<Remote>,
    /// What people decided on the gate at which the snapshot waits.
    pub decisions: Vec<agent_run::Decision>,
    /// What has to be reported first.
    pub first: Vec<What>,
}

/// How an attempt was booked.
struct Booked {
    /// For people.
    message: String,
    /// For the report.
    next: Next,
    /// The step to whose beginning the project goes back.
    restore: Option<String>,
}

impl Engine {
    /// An engine at the beginning of a launch. An error is why the run fails at once.
    pub async fn new(parts: Parts) -> Result<Self, Failure> {
        let Parts {
            plan,
            llm,
            tools,
            benches,
            reporter,
            mut blobs,
            resume,
            beginning,
            remote,
            decisions,
            first,
        } = parts;
        let failed = |reason: FailureReason, message: String| Failure {
            reason,
            step: None,
            message,
        };
        let plan_digest = Digest::of_json(&*plan);
        let tree = SharedTree::default();
        let templates = Templates::new(&plan.templates)
            .map_err(|error| failed(FailureReason::InvalidPlan, error.to_string()))?
            .with_files(tree.clone());
        let places = places(&plan, &templates)
            .map_err(|error| failed(FailureReason::InvalidPlan, error.to_string()))?;
        let repository = plan.repository.as_ref();
        let mut guard = Guard::new(repository.and_then(|repository| repository.deliver.as_ref()))
            .map_err(|error| failed(FailureReason::InvalidPlan, error.to_string()))?;
        let outset = Outset::of(&plan, &mut blobs, resume.as_ref(), beginning, &tree).await;
        let Outset { record, history } =
            outset.map_err(|message| failed(FailureReason::Internal, message))?;
        tools.limits.at_least(&record.machine.tool_calls);
        guard.keep(history.kept().to_vec());
        let guard = guard.with_own(&plan.layout);
        tree.hide(guard.own());
        // A round that began in an earlier launch was told then.
        let round_told = if resume.is_some() {
            record.machine.state.round
        } else {
            0
        };
        let worked_before = record.machine.worked_seconds;
        Ok(Self {
            plan,
            plan_digest,
            places,
            templates,
            tree,
            llm,
            tools,
            benches,
            reporter,
            blobs,
            record,
            history,
            guard,
            remote,
            snapshot: resume,
            pending: first,
            verdicts: None,
            decisions,
            begun: Instant::now(),
            worked_before,
            round_told,
        })
    }

    /// Works until the launch ends.
    pub async fn run(&mut self) -> End {
        if self.snapshot.is_none()
            && let Err(end) = self.prepare().await
        {
            return end;
        }
        loop {
            match next(&self.plan, &self.record.machine.state) {
                Decision::Succeeded => return self.succeeded().await,
                Decision::Failed(failure) => return self.end(Outcome::Failed, Some(failure)).await,
                Decision::Step(index) => {
                    if let Some(stop) = self.reporter.stop() {
                        return self.stop(stop).await;
                    }
                    if let Some(end) = self.step(index).await {
                        return end;
                    }
                }
                Decision::Wait(wait) => {
                    let Some(answer) = answer(&wait, &self.decisions) else {
                        return self.end(Outcome::Waiting, None).await;
                    };
                    if let Some(stop) = self.reporter.stop() {
                        return self.stop(stop).await;
                    }
                    if let Some(end) = self.resume(Decided { wait, answer }).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Considers a step: skips it, or attempts it.
    async fn step(&mut self, index: usize) -> Option<End> {
        let plan = Arc::clone(&self.plan);
        let step = &plan.steps[index];
        match self.may_begin(step) {
            Ok(true) => {}
            Ok(false) => {
                let condition = step.when.as_deref().unwrap_or_default();
                self.pending.push(What::StepSkipped {
                    step: step.name.clone(),
                    message: format!("not asked for: {condition}"),
                });
                self.happened(&Happened::Skipped {
                    step: step.name.clone(),
                });
                return None;
            }
            Err((reason, message)) => {
                self.happened(&Happened::Failed {
                    step: step.name.clone(),
                    reason,
                    message,
                });
                return None;
            }
        }
        if self.state().inherited(&step.name) && self.outputs_are_there(step).is_err() {
            self.happened(&Happened::NotInherited {
                step: step.name.clone(),
            });
        }
        let findings = self.record.machine.state.step(&step.name).findings;
        self.note_start(step);
        self.happened(&Happened::Started {
            step: step.name.clone(),
        });
        self.record.machine.said = Said::default();
        let of_step = format!("{}/", step.name);
        self.record
            .gates
            .retain(|gate, _| !gate.starts_with(&of_step));
        let (round, attempt) = (self.state().round, self.state().step(&step.name).attempts);
        if round != self.round_told {
            self.round_told = round;
            self.pending.push(What::RoundStarted { round });
        }
        self.note_attempt(step);
        self.pending.push(What::StepStarted {
            step: step.name.clone(),
            attempt,
        });
        self.work_on(step, attempt, &findings, None).await
    }

    /// Notes what the project is at the beginning of an attempt.
    fn note_attempt(&mut self, step: &Step) {
        let machine = &mut self.record.machine;
        let at = self.snapshot.clone();
        let now = self.tree.read(Clone::clone);
        if machine.starts.get(&step.name) == Some(&at) {
            self.tree.remember(Since::Step, now.clone());
        }
        self.tree.remember(Since::Attempt, now);
        machine.begun = Some(Begun {
            step: step.name.clone(),
            at,
        });
    }

    /// Takes an attempt up again that a person has decided on.
    async fn resume(&mut self, decided: Decided) -> Option<End> {
        let plan = Arc::clone(&self.plan);
        let Wait {
            step: name,
            attempt,
            ..
        } = &decided.wait;
        let Some(step) = plan.steps.iter().find(|step| step.name == *name) else {
            self.happened(&Happened::Failed {
                step: name.clone(),
                reason: FailureReason::InvalidPlan,
                message: format!("the plan has no step {name}, which waited"),
            });
            return None;
        };
        let findings = self.record.machine.state.step(name).findings;
        self.happened(&Happened::Resumed { step: name.clone() });
        self.pending.push(What::StepResumed {
            step: name.clone(),
            attempt: *attempt,
        });
        self.work_on(step, *attempt, &findings, Some(&decided))
            .await
    }

    async fn work_on(
        &mut self,
        step: &Step,
        attempt: u32,
        findings: &str,
        decided: Option<&Decided>,
    ) -> Option<End> {
        if let Err(end) = self.deliver().await {
            return Some(end);
        }
        let before = self.llm.used();
        let stopped = match self.bounded(step, attempt, findings, decided).await {
            Ok(stopped) => stopped,
            Err(stop) => return Some(self.stop(stop).await),
        };
        if let Some(Stopped::Lost(why)) = &stopped {
            tracing::error!(%why, "the launch cannot go on");
            return Some(self.interrupted().await);
        }
        self.finish(step, attempt, stopped, &before).await
    }

    /// An attempt within its time, the run's, and until the launch must stop.
    async fn bounded(
        &mut self,
        step: &Step,
        attempt: u32,
        findings: &str,
        decided: Option<&Decided>,
    ) -> Result<Option<Stopped>, Stop> {
        let reporter = self.reporter.clone();
        let seconds = step
            .timeout_seconds
            .unwrap_or(defaults::STEP_TIMEOUT_SECONDS);
        let deadline = self.plan.options.deadline_seconds;
        let left = self.time_left();
        let work = tokio::time::timeout(
            Duration::from_secs(seconds.into()),
            self.attempt(step, attempt, findings, decided),
        );
        tokio::select! {
            biased;
            stop = reporter.stopped() => Err(stop),
            () = tokio::time::sleep(left) => Ok(Some(Stopped::Failed(
                FailureReason::DeadlineExceeded,
                format!("the run's {} s of working time are over (spec.deadlineSeconds)", deadline.unwrap_or_default()),
            ))),
            ended = work => Ok(match ended {
                Ok(result) => result.err(),
                Err(_) => Some(Stopped::Failed(
                    FailureReason::StepTimeout,
                    format!("the attempt took longer than {seconds} s (timeoutSeconds of the step)"),
                )),
            }),
        }
    }

    /// Books how an attempt ended, or where it waits: state, snapshot, report. The report goes out with what follows.
    async fn finish(
        &mut self,
        step: &Step,
        attempt: u32,
        stopped: Option<Stopped>,
        before: &Usage,
    ) -> Option<End> {
        let (stopped, commit) = match stopped {
            None => {
                self.keep_list();
                match self.commit(step, attempt) {
                    Ok(commit) => (None, commit),
                    Err(fault) => (Some(Stopped::internal(&fault)), None),
                }
            }
            stopped => (stopped, None),
        };
        let passed = stopped.is_none();
        let Booked {
            message,
            next,
            restore,
        } = self.book(step, attempt, stopped);
        let artifacts = self.artifacts(step);
        if let Some(to) = restore
            && let Err(end) = self.take_back(&to).await
        {
            return Some(end);
        }
        if let Next::Backtrack { .. } = &next {
            self.thaw();
            self.forget_starts();
        } else if passed {
            self.freeze(step);
            self.record.machine.unmet.forget(&step.name);
        }
        self.record.machine.worked_seconds = self.worked();
        let snapshot = match self.save().await {
            Ok(snapshot) => snapshot,
            Err(end) => return Some(end),
        };
        let verdict = match &next {
            _ if passed => Verdict::Passed,
            Next::Wait(_) => Verdict::Pending,
            _ => Verdict::Failed,
        };
        self.pending.push(What::StepEnded {
            end: Box::new(StepEnd {
                step: step.name.clone(),
                attempt,
                verdict,
                message: crate::gate::short(&message),
                usage: since(before, &self.llm.used()),
                artifacts,
                commit,
                snapshot,
                next,
            }),
        });
        None
    }

    /// What happened, for the machine; what to say of it, and what comes next.
    fn book(&mut self, step: &Step, attempt: u32, stopped: Option<Stopped>) -> Booked {
        let name = step.name.clone();
        let failed = |reason, message: String| Happened::Failed {
            step: name.clone(),
            reason,
            message,
        };
        let mut question = None;
        let (happened, message) = match stopped {
            None => (
                Happened::Passed { step: name.clone() },
                self.handed_over(step),
            ),
            Some(Stopped::Gate { fault, asked }) => {
                let message = fault.message.clone();
                question = asked;
                (Happened::GateFailed(*fault), message)
            }
            Some(Stopped::Steered(fault, way)) => {
                let message = fault.message.clone();
                let fault = *fault;
                (Happened::Steered { fault, way }, message)
            }
            Some(Stopped::Asks(asked)) => {
                let message = asked.question.clone();
                let (wait, next) = self.wait(&name, attempt, &asked);
                self.happened(&Happened::Waits(wait));
                return Booked {
                    message,
                    next,
                    restore: None,
                };
            }
            Some(Stopped::Failed(reason, message)) => (failed(reason, message.clone()), message),
            Some(Stopped::Lost(why)) => (failed(FailureReason::Internal, why.clone()), why),
        };
        let way = way(&self.plan, self.state(), &happened);
        let restore = restores(&self.plan, self.state(), &happened);
        self.happened(&happened);
        let next = match (way, question) {
            (Way::Proceed, _) => Next::Proceed,
            (Way::Retry, _) => Next::Retry,
            (Way::Backtrack { to }, _) => Next::Backtrack { to },
            (Way::Fail(_), _) => Next::Fail,
            (Way::Ask, Some(asked)) => {
                let (wait, next) = self.wait(&name, attempt, &asked);
                self.happened(&Happened::Waits(wait));
                next
            }
            (Way::Ask, None) => {
                let message = format!(
                    "{message}; nobody can be asked in a loop, or between actions that a role picks"
                );
                self.happened(&failed(FailureReason::GateFailed, message));
                Next::Fail
            }
        };
        Booked {
            message,
            next,
            restore,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.record.machine.state
    }

    fn happened(&mut self, happened: &Happened) {
        let way = way(&self.plan, self.state(), happened);
        let entry = trail::entry(self.state(), happened, &way);
        self.record.trail.extend(entry);
        self.record.machine.state = apply(&self.plan, self.state(), happened);
    }

    /// What is left of the run's working time.
    pub(crate) fn time_left(&self) -> Duration {
        let deadline = self.plan.options.deadline_seconds;
        deadline.map_or(Duration::MAX, |deadline| {
            Duration::from_secs(u64::from(deadline).saturating_sub(self.worked()))
        })
    }

    fn worked(&self) -> u64 {
        self.worked_before + self.begun.elapsed().as_secs()
    }

    /// What expressions and templates see.
    pub(crate) fn context(
        &self,
        step: &Step,
        attempt: u32,
        findings: &str,
        lap: Option<Lap<'_>>,
    ) -> serde_json::Value {
        let role = step
            .role
            .as_ref()
            .and_then(|name| self.plan.roles.iter().find(|role| role.name == *name));
        let moment = Moment {
            role,
            findings,
            round: self.state().round,
            attempt,
            messages: role.map_or_else(Vec::new, |role| remembered(&self.record.messages, role)),
            recalled: recall::of_step(&self.plan, step, findings),
            lap: lap.map(|lap| (lap.pass, lap.retry)),
            item: lap
                .and_then(|lap| lap.item)
                .map(|item| (item.name, item.value)),
        };
        let machine = &self.record.machine;
        let base = self.record.baseline.as_ref().map(|line| &line.tree);
        let (mut context, incremental) = self.tree.read(|tree| {
            let context = at(&self.plan, step, &self.places, tree, &moment);
            let about = machine.incremental.as_ref();
            let incremental = incremental::seen(about, &self.plan.layout, base, tree);
            (context, incremental)
        });
        if let Some(object) = context.as_object_mut() {
            object.insert("incremental".to_owned(), incremental);
            let measures = self.record.machine.measures.seen(&self.plan);
            object.insert("measures".to_owned(), measures);
        }
        context
    }

    /// Reports a verdict, or keeps it until it is its turn.
    pub(crate) fn report_verdict(&mut self, verdict: What) {
        match &mut self.verdicts {
            Some(verdicts) => verdicts.push(verdict),
            None => self.reporter.record([verdict]),
        }
    }
}

/// What was used between two looks at the books.
pub(crate) fn since(before: &Usage, after: &Usage) -> Usage {
    Usage {
        llm_requests: after.llm_requests - before.llm_requests,
        llm_errors: after.llm_errors - before.llm_errors,
        input_tokens: after.input_tokens - before.input_tokens,
        output_tokens: after.output_tokens - before.output_tokens,
        total_tokens: after.total_tokens - before.total_tokens,
        cost: after.cost.saturating_sub(before.cost),
        tool_calls: after.tool_calls - before.tool_calls,
        tool_failures: after.tool_failures - before.tool_failures,
    }
}
