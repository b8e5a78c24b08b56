//! Asking models: budget before, wire protocol below, usage after.
//!
//! A request is reserved against the budget, sent to the first endpoint that has the model, tried again where that can
//! help, then given to the next endpoint. An answer that was cut is continued. Every request is reported.

pub mod address;
pub mod budget;
pub mod codec;
mod outcome;
mod recording;
pub mod replay;
pub mod retry_after;
pub mod transport;
mod whole;
pub mod window;

pub use whole::Said;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use sopwith_crds::{
    agent_run::Environment,
    check::defaults,
    contract::{
        cassette::{Interaction, Key},
        plan::RunPlan,
        report::What,
    },
    status::{FailureReason, Usage},
    tool_policy::{Endpoint, Model},
};
use tokio::sync::{Notify, Semaphore};

use crate::rate::Rate;

use self::{
    budget::{Budget, Exhausted, Reservation, Settlement},
    codec::{Answer, Callable, ChatMessage, Protocol, Question, SchemaForm},
    outcome::{After, MOST_PAUSE, TryError, never_fits, read_whole, settlement, status, usable},
    recording::Recording,
    transport::{RawAnswer, Transport},
};

/// A question to a model.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Which request of the run it is.
    pub key: Key,
    /// Name or alias of a model.
    pub model: String,
    /// System, user, and in repairs what was said since.
    pub messages: Vec<ChatMessage>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Most tokens of the answer; the model's own bound holds as well.
    pub max_output: Option<u32>,
    /// Name and JSON Schema of the answer.
    pub schema: Option<(String, serde_json::Value)>,
    /// What it can call. Models without the capability are not asked then.
    pub callable: Callable,
    /// Whether the answer is the rest of one: then no protocol can hold it to the schema.
    pub continues: bool,
}

/// Why no model answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// No endpoint has the model.
    #[error("no endpoint of the policy has a model named {0:?}; there are: {1}")]
    NoModel(String, String),
    /// The request does not fit the budget; it was not made.
    #[error(transparent)]
    Budget(#[from] Exhausted),
    /// The request differs from the recorded one, or there is none.
    #[error("{0}")]
    Replay(String),
    /// The answer is not whole.
    #[error("{0}")]
    Incomplete(String),
    /// A content filter withheld the question or the answer.
    #[error("the provider's content filter withheld the answer: {0}")]
    Filtered(String),
    /// The model refused.
    #[error("the model refused to answer: {0}")]
    Refused(String),
    /// The question does not fit into the window of any model of that name.
    #[error("the question is too long: {0}")]
    TooLong(String),
    /// Every endpoint failed.
    #[error("no model answered: {0}")]
    Failed(String),
}

impl LlmError {
    /// Why the run fails.
    pub const fn reason(&self) -> FailureReason {
        match self {
            Self::Budget(_) => FailureReason::BudgetExhausted,
            Self::NoModel(..) => FailureReason::PolicyDenied,
            Self::Replay(_)
            | Self::Incomplete(_)
            | Self::Filtered(_)
            | Self::Refused(_)
            | Self::TooLong(_)
            | Self::Failed(_) => FailureReason::ProviderFailed,
        }
    }
}

/// A model at an endpoint.
#[derive(Clone, Copy)]
struct Way<'a> {
    endpoint: &'a Endpoint,
    model: &'a Model,
    transport: &'a Transport,
    rate: &'a Rate,
    /// Whether no other endpoint follows.
    alone: bool,
}

/// Why an endpoint gave no answer.
enum Passed {
    /// The next one may.
    On { why: String, too_long: bool },
    /// Nobody else is asked.
    Stop(LlmError),
}

/// How often and how fast a request is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// Tries at one endpoint.
    pub tries: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(15),
            tries: 3,
        }
    }
}

/// An endpoint, the way to it, and how often it may be gone.
#[derive(Debug)]
struct Reached {
    endpoint: Endpoint,
    transport: Transport,
    rate: Rate,
}

/// The models that a run may ask.
#[derive(Debug)]
pub struct Llm {
    endpoints: Vec<Reached>,
    environment: Environment,
    budget: Mutex<Budget>,
    /// Tells who waits for room in the budget that a request ended.
    settled: Notify,
    at_once: Semaphore,
    pace: Pace,
    recording: Recording,
    /// Whether a difference from a recorded request was shown already.
    differed: AtomicBool,
}

impl Llm {
    /// The models of a plan, each endpoint with its transport.
    pub fn new(plan: &RunPlan, transports: Vec<Transport>, spent: Usage) -> Self {
        let endpoints = plan.llm.iter().zip(transports);
        let reached = |(endpoint, transport): (&Endpoint, Transport)| Reached {
            rate: Rate::new(endpoint.rate_limit.as_ref()),
            endpoint: endpoint.clone(),
            transport,
        };
        Self {
            endpoints: endpoints.map(reached).collect(),
            environment: plan.options.environment,
            budget: Mutex::new(Budget::new(budget::Limits::of(plan), spent)),
            settled: Notify::new(),
            at_once: Semaphore::new(plan.llm_concurrency.max(1) as usize),
            pace: Pace::default(),
            recording: Recording::default(),
            differed: AtomicBool::default(),
        }
    }

    /// The same with another pace.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// What this launch has used.
    pub fn used(&self) -> Usage {
        self.budget().launch().clone()
    }

    /// What all launches have used.
    pub fn spent(&self) -> Usage {
        self.budget().spent()
    }

    /// Books a call of a tool.
    pub fn tool_called(&self, failed: bool) {
        self.budget().tool_called(failed);
    }

    /// What was asked and answered since this was asked last.
    pub fn take_recorded(&self) -> Vec<Interaction> {
        self.recording.take()
    }

    /// Asks for one answer, at each endpoint that has the model until one gives it.
    async fn ask_part(
        &self,
        ask: &Ask,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Answer, LlmError> {
        let having = self.endpoints.iter().filter_map(|reached| {
            let model = reached.endpoint.model(&ask.model)?;
            let able = ask.callable.functions.is_empty() || model.can("tools");
            able.then_some((reached, model))
        });
        let having: Vec<_> = having.collect();
        let mut failures = Vec::new();
        let mut all_too_long = true;
        let mut first = None;
        for (index, (reached, model)) in having.iter().enumerate() {
            let Reached {
                endpoint,
                transport,
                rate,
            } = reached;
            let way = Way {
                endpoint,
                model,
                transport,
                rate,
                alone: index + 1 == having.len(),
            };
            if first.is_none() && never_fits(&asked(ask, way), model).is_none() {
                first = Some(*model);
            }
            match self.ask_endpoint(ask, way, report).await {
                Ok(answer) => {
                    let first = first.unwrap_or(model);
                    self.recording.keep(ask, first, transport, &answer);
                    return usable(answer, model);
                }
                Err(Passed::Stop(error)) => return Err(error),
                Err(Passed::On { why, too_long }) => {
                    tracing::warn!(endpoint = endpoint.name, model = model.name, %why, "no answer");
                    all_too_long &= too_long;
                    failures.push(format!("{}: {why}", endpoint.name));
                }
            }
        }
        let why = failures.join("; ");
        Err(match (failures.is_empty(), all_too_long) {
            (true, _) => LlmError::NoModel(ask.model.clone(), names(&self.endpoints)),
            (false, true) => LlmError::TooLong(why),
            (false, false) => LlmError::Failed(why),
        })
    }

    async fn ask_endpoint(
        &self,
        ask: &Ask,
        way: Way<'_>,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Answer, Passed> {
        let mut question = asked(ask, way);
        if let Some(why) = never_fits(&question, way.model) {
            return Err(Passed::On {
                why,
                too_long: true,
            });
        }
        let passes_on = way
            .transport
            .passes_on(way.endpoint, &ask.key, &question.body);
        if let Some(why) = passes_on {
            return Err(self.passed_on(ask, way, why, report));
        }
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.pace.first)
            .with_max_delay(self.pace.most)
            .with_max_times(self.pace.tries.saturating_sub(1))
            .build()
            .peekable();
        loop {
            let error = match self.request(ask, way, &question, report).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let next = pauses.peek().copied();
            let why = || error.told(way.endpoint, way.model);
            match error.after(next, self.pace.most, way.alone, &question) {
                After::Again(pause) => {
                    pauses.next();
                    tokio::time::sleep(pause).await;
                }
                After::InWords => {
                    tracing::warn!(
                        endpoint = way.endpoint.name,
                        model = way.model.name,
                        why = why(),
                        "the schema is told in words; without `jsonSchema` in the model's capabilities it would be at once"
                    );
                    let protocol = Protocol::of(way.endpoint.provider);
                    question = codec::question(ask, protocol, way.model, SchemaForm::Words);
                }
                after @ (After::Next | After::NextLarger) => {
                    return Err(Passed::On {
                        why: why(),
                        too_long: after == After::NextLarger,
                    });
                }
                After::Stop(error) => return Err(Passed::Stop(error)),
            }
        }
    }

    /// A recorded endpoint leaves a question to the next: the first difference is shown, since it explains those that follow.
    fn passed_on(
        &self,
        ask: &Ask,
        way: Way<'_>,
        why: String,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Passed {
        if way.alone {
            let name = &way.endpoint.name;
            return Passed::Stop(LlmError::Replay(format!(
                "{why}\nNo endpoint of the policy behind {name} has the model {:?}",
                ask.model
            )));
        }
        if !self.differed.swap(true, Ordering::Relaxed) {
            tracing::warn!(endpoint = way.endpoint.name, %why, "not as recorded: the next endpoint is asked from here");
            report(What::RequestDiffers {
                step: ask.key.step.clone(),
                difference: why.clone(),
            });
        }
        Passed::On {
            why,
            too_long: false,
        }
    }

    /// Makes one request within the budget, books and reports it.
    async fn request(
        &self,
        ask: &Ask,
        way: Way<'_>,
        question: &Question,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Result<Answer, TryError>, Passed> {
        let (endpoint, model) = (way.endpoint, way.model);
        self.turn(way).await?;
        let closed = |error: tokio::sync::AcquireError| LlmError::Failed(error.to_string());
        let turn = self.at_once.acquire().await;
        let _turn = turn.map_err(|error| Passed::Stop(closed(error)))?;
        let reservation = self.reserve(question, model).await;
        let held = Held {
            llm: self,
            model,
            reservation: Some(reservation.map_err(|error| Passed::Stop(error.into()))?),
        };
        let started = Instant::now();
        let tried = self.try_once(&ask.key, way, question).await;
        let tokens = held.settle(settlement(&tried), tried.is_err());
        report(What::LlmRequest {
            step: ask.key.step.clone(),
            endpoint: endpoint.name.clone(),
            provider: endpoint.provider,
            model: model.name.clone(),
            status: status(&tried),
            seconds: started.elapsed().as_secs_f64(),
            input_tokens: tokens.input,
            cached_input_tokens: tokens.cached,
            output_tokens: tokens.output,
            reasoning_tokens: tokens.reasoning,
        });
        Ok(tried)
    }

    /// Waits until the policy allows another request to an endpoint, as long as for one that asks to wait.
    async fn turn(&self, way: Way<'_>) -> Result<(), Passed> {
        let patience = if way.alone {
            MOST_PAUSE
        } else {
            self.pace.most
        };
        way.rate.turn(patience).await.map_err(|wait| Passed::On {
            why: format!(
                "its rateLimit allows the next request in {} s",
                wait.as_secs().max(1)
            ),
            too_long: false,
        })
    }

    /// Holds back what a request may cost at its worst. Where it does not fit beside the worst of requests under way, it waits
    /// for what they really cost: requests at once find room wherever the same ones find it in a row.
    async fn reserve(&self, question: &Question, model: &Model) -> Result<Reservation, Exhausted> {
        loop {
            let settled = self.settled.notified();
            {
                let mut budget = self.budget();
                let reserved = budget.reserve(question, model);
                if reserved.is_ok() || !budget.under_way() {
                    return reserved;
                }
            }
            settled.await;
        }
    }

    async fn try_once(
        &self,
        key: &Key,
        way: Way<'_>,
        question: &Question,
    ) -> Result<Answer, TryError> {
        let (endpoint, model) = (way.endpoint, way.model);
        let seconds = endpoint
            .timeout_seconds
            .unwrap_or_else(|| defaults::llm_timeout_seconds(self.environment));
        let total = Duration::from_secs(seconds.into());
        // An answer in one piece begins when all of it is there.
        let idle = endpoint
            .idle_timeout_seconds
            .filter(|_| question.streamed)
            .map_or(total, |seconds| Duration::from_secs(seconds.into()));
        let work = async {
            let at = (endpoint, model);
            let sent = way.transport.send(key, at, &question.body, idle);
            let answer = received(sent.await?, endpoint, idle).await?;
            read_whole(answer, question, endpoint.provider, model)
        };
        let tried = tokio::time::timeout(total, work).await;
        tried
            .unwrap_or(Err(TryError::Timeout(total)))
            .map_err(|error| error.masked(|text| way.transport.masked(text)))
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reservation that is settled at its full amount when the request is given up midway.
struct Held<'a> {
    llm: &'a Llm,
    model: &'a Model,
    reservation: Option<Reservation>,
}

impl Held<'_> {
    fn settle(mut self, settlement: Settlement, failed: bool) -> budget::Tokens {
        self.end(settlement, failed)
    }

    fn end(&mut self, settlement: Settlement, failed: bool) -> budget::Tokens {
        let Some(reservation) = self.reservation.take() else {
            return budget::Tokens::default();
        };
        let mut budget = self.llm.budget();
        let tokens = budget.settle(reservation, settlement, self.model, failed);
        drop(budget);
        self.llm.settled.notify_waiters();
        tokens
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.end(Settlement::Reserved, true);
    }
}

/// The question as an endpoint is asked it first.
fn asked(ask: &Ask, way: Way<'_>) -> Question {
    let form = if ask.continues {
        SchemaForm::Words
    } else {
        SchemaForm::Field
    };
    let protocol = Protocol::of(way.endpoint.provider);
    codec::question(ask, protocol, way.model, form)
}

async fn received(raw: RawAnswer, endpoint: &Endpoint, idle: Duration) -> Result<Answer, TryError> {
    if raw.status == 200 {
        return Ok(codec::read(raw, Protocol::of(endpoint.provider), idle).await?);
    }
    let (status, retry_after) = (raw.status, raw.retry_after);
    Err(TryError::Status {
        status,
        retry_after,
        problem: codec::problem(raw, idle).await,
    })
}

fn names(endpoints: &[Reached]) -> String {
    let models = endpoints
        .iter()
        .flat_map(|reached| &reached.endpoint.models);
    models
        .flat_map(|model| std::iter::once(&model.name).chain(&model.aliases))
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}
