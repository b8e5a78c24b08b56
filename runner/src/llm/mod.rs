//! Asking models: budget before, wire protocol below, usage after.
//!
//! A request is reserved against the budget, sent to the first endpoint that has the model, tried again where that can
//! help, then given to the next endpoint. Every request is reported.

pub mod budget;
pub mod codec;
pub mod replay;
pub mod transport;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use sopwith_crds::{
    agent_run::Environment,
    contract::{cassette::Key, plan::RunPlan, report::What},
    status::Usage,
    tool_policy::{Endpoint, Model},
};
use tokio::sync::Semaphore;

use self::{
    budget::{Budget, Exhausted, Reservation, Settlement},
    codec::{Answer, ChatMessage, ReadError},
    transport::{Transport, TransportError},
};

/// Longest pause that an endpoint's `Retry-After` can ask for.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// A question to a model.
#[derive(Debug, Clone)]
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
    /// Every endpoint failed.
    #[error("no model answered: {0}")]
    Failed(String),
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

/// The models that a run may ask.
#[derive(Debug)]
pub struct Llm {
    endpoints: Vec<(Endpoint, Transport)>,
    environment: Environment,
    budget: Mutex<Budget>,
    at_once: Semaphore,
    pace: Pace,
}

impl Llm {
    /// The models of a plan, each endpoint with its transport.
    pub fn new(plan: &RunPlan, transports: Vec<Transport>, spent: Usage) -> Self {
        Self {
            endpoints: plan.llm.iter().cloned().zip(transports).collect(),
            environment: plan.options.environment,
            budget: Mutex::new(Budget::new(budget::Limits::of(plan), spent)),
            at_once: Semaphore::new(plan.llm_concurrency.max(1) as usize),
            pace: Pace::default(),
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

    /// Asks. `report` is told of every request.
    pub async fn ask(
        &self,
        ask: &Ask,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Answer, LlmError> {
        let mut failures = Vec::new();
        for (endpoint, transport) in &self.endpoints {
            let Some(model) = model_of(endpoint, &ask.model) else {
                continue;
            };
            match self
                .ask_endpoint(ask, endpoint, model, transport, report)
                .await
            {
                Err(LlmError::Failed(why)) => failures.push(format!("{}: {why}", endpoint.name)),
                other => return other,
            }
        }
        if failures.is_empty() {
            return Err(LlmError::NoModel(ask.model.clone(), names(&self.endpoints)));
        }
        Err(LlmError::Failed(failures.join("; ")))
    }

    async fn ask_endpoint(
        &self,
        ask: &Ask,
        endpoint: &Endpoint,
        model: &Model,
        transport: &Transport,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Answer, LlmError> {
        let body = codec::body(ask, model);
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.pace.first)
            .with_max_delay(self.pace.most)
            .with_max_times(self.pace.tries.saturating_sub(1))
            .build();
        loop {
            let turn = self
                .at_once
                .acquire()
                .await
                .map_err(|error| LlmError::Failed(error.to_string()))?;
            let reservation = self.budget().reserve(&body, model)?;
            let held = Held {
                llm: self,
                model,
                reservation: Some(reservation),
            };
            let started = Instant::now();
            let tried = self.try_once(&ask.key, endpoint, transport, &body).await;
            let settlement = settlement(&tried);
            let tokens = held.settle(settlement, tried.is_err());
            report(What::LlmRequest {
                step: ask.key.step.clone(),
                endpoint: endpoint.name.clone(),
                provider: endpoint.provider,
                model: model.name.clone(),
                status: tried
                    .as_ref()
                    .map_or_else(TryError::status, |_| "ok".to_owned()),
                seconds: started.elapsed().as_secs_f64(),
                input_tokens: tokens.input,
                cached_input_tokens: tokens.cached,
                output_tokens: tokens.output,
            });
            let error = match tried {
                Ok(answer) => return whole(answer, model),
                Err(error) => error,
            };
            if let TryError::Transport(TransportError::Difference(why)) = error {
                return Err(LlmError::Replay(why));
            }
            match pauses.next() {
                Some(pause) if error.worth_another() => {
                    let asked = error.retry_after().unwrap_or_default().min(MOST_PAUSE);
                    drop(turn);
                    tokio::time::sleep(pause.max(asked)).await;
                }
                _ => return Err(LlmError::Failed(error.to_string())),
            }
        }
    }

    async fn try_once(
        &self,
        key: &Key,
        endpoint: &Endpoint,
        transport: &Transport,
        body: &serde_json::Value,
    ) -> Result<Answer, TryError> {
        let total = endpoint.timeout_seconds.map_or_else(
            || timeout_of(self.environment),
            |s| Duration::from_secs(s.into()),
        );
        let idle = endpoint
            .idle_timeout_seconds
            .map_or(total, |s| Duration::from_secs(s.into()));
        let work = async {
            let raw = transport.send(key, body, idle).await?;
            if raw.status != 200 {
                let (status, retry_after) = (raw.status, raw.retry_after);
                let message = codec::problem(raw, idle).await;
                return Err(TryError::Status {
                    status,
                    retry_after,
                    message,
                });
            }
            Ok(codec::read(raw, idle).await?)
        };
        tokio::time::timeout(total, work)
            .await
            .unwrap_or(Err(TryError::Timeout(total)))
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
        let reservation = self.reservation.take();
        reservation.map_or_else(budget::Tokens::default, |reservation| {
            self.llm
                .budget()
                .settle(reservation, settlement, self.model, failed)
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.llm
                .budget()
                .settle(reservation, Settlement::Reserved, self.model, true);
        }
    }
}

/// What one try ended with.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("HTTP {status}: {message}")]
    Status {
        status: u16,
        retry_after: Option<Duration>,
        message: String,
    },
    #[error("no whole answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl TryError {
    fn status(&self) -> String {
        match self {
            Self::Status { status, .. } => status.to_string(),
            Self::Timeout(_)
            | Self::Transport(TransportError::Idle(_))
            | Self::Read(ReadError::Idle(_)) => "timeout".into(),
            Self::Transport(TransportError::Difference(_)) => "difference".into(),
            Self::Transport(_) | Self::Read(ReadError::Cut(_)) => "connection".into(),
            Self::Read(_) => "protocol".into(),
        }
    }

    fn worth_another(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Timeout(_) | Self::Read(_) => true,
            Self::Transport(error) => error.worth_another(),
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What is booked: what the provider counted; nothing where it refused; else what was reserved.
const fn settlement(tried: &Result<Answer, TryError>) -> Settlement {
    match tried {
        Ok(Answer {
            usage: Some(tokens),
            ..
        }) => Settlement::Counted(*tokens),
        Ok(_) | Err(TryError::Timeout(_) | TryError::Read(_)) => Settlement::Reserved,
        Err(TryError::Transport(error)) => match error {
            TransportError::Idle(_) => Settlement::Reserved,
            _ => Settlement::Nothing,
        },
        Err(TryError::Status { .. }) => Settlement::Nothing,
    }
}

fn whole(answer: Answer, model: &Model) -> Result<Answer, LlmError> {
    match answer.finish.as_deref() {
        Some("length") => Err(LlmError::Incomplete(format!(
            "the answer of {} was cut at its most tokens: raise maxOutputTokens of the role or of the model in the policy, or ask for less",
            model.name
        ))),
        Some("content_filter") => Err(LlmError::Incomplete(format!(
            "the content filter of {} withheld the answer",
            model.name
        ))),
        _ => Ok(answer),
    }
}

fn timeout_of(environment: Environment) -> Duration {
    Duration::from_secs(match environment {
        Environment::Dev => 30,
        Environment::Staging => 60,
        Environment::Prod => 90,
    })
}

/// The model of this name or alias, the name first.
pub fn model_of<'a>(endpoint: &'a Endpoint, name: &str) -> Option<&'a Model> {
    let named = endpoint.models.iter().find(|model| model.name == name);
    named.or_else(|| {
        endpoint
            .models
            .iter()
            .find(|model| model.aliases.iter().any(|alias| alias == name))
    })
}

fn names(endpoints: &[(Endpoint, Transport)]) -> String {
    let models = endpoints.iter().flat_map(|(endpoint, _)| &endpoint.models);
    models
        .flat_map(|model| std::iter::once(&model.name).chain(&model.aliases))
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}
