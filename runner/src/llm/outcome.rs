//! What one request ended with, what is booked for it, and what is done next. Pure.

use std::time::Duration;

use sopwith_crds::tool_policy::{Endpoint, Model, Provider};

use super::{
    LlmError,
    address::deployment,
    budget::{Settlement, Tokens},
    codec::{Answer, Finish, Question, ReadError, problem::Kind, problem::Problem},
    transport::TransportError,
};

/// Longest pause that an endpoint can ask for.
pub(super) const MOST_PAUSE: Duration = Duration::from_secs(120);
/// Bytes of text that make a token at the least, over a whole question: prose and code have 3 to 5, long words 7.
const MOST_BYTES_PER_TOKEN: u64 = 8;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TryError {
    #[error("HTTP {status}: {}{}", .problem.message, asks(*.retry_after))]
    Status {
        status: u16,
        retry_after: Option<Duration>,
        problem: Problem,
    },
    #[error("no whole answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "the server counted {} tokens of a question of {bytes} bytes: it left out a part without a word",
        .counted.input
    )]
    Truncated { counted: Tokens, bytes: u64 },
}

fn asks(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| {
        format!(" (asks to wait {} s)", pause.as_secs())
    })
}

/// What is done after a request without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// It is made again after this pause.
    Again(Duration),
    /// It is made again at once, the schema in words.
    InWords,
    /// The next endpoint is asked.
    Next,
    /// The next endpoint is asked, which may have a larger window.
    NextLarger,
    /// Nobody else is asked.
    Stop(LlmError),
}

impl TryError {
    /// The same, the provider's words passed through `mask`.
    pub(super) fn masked(self, mask: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Status {
                status,
                retry_after,
                problem,
            } => Self::Status {
                status,
                retry_after,
                problem: Problem {
                    message: mask(&problem.message),
                    ..problem
                },
            },
            Self::Read(ReadError::Provider(words)) => Self::Read(ReadError::Provider(mask(&words))),
            Self::Read(ReadError::Form(words)) => Self::Read(ReadError::Form(mask(&words))),
            other => other,
        }
    }

    /// The status that is reported, one of a few.
    pub(super) fn status(&self) -> String {
        match self {
            Self::Status { problem, .. } if problem.kind == Kind::Filtered => "filtered".into(),
            Self::Status { status, .. } => status.to_string(),
            Self::Timeout(_)
            | Self::Transport(TransportError::Idle(_))
            | Self::Read(ReadError::Idle(_)) => "timeout".into(),
            Self::Transport(TransportError::Difference(_)) => "difference".into(),
            Self::Transport(_) | Self::Read(ReadError::Cut(_)) => "connection".into(),
            Self::Read(_) => "protocol".into(),
            Self::Truncated { .. } => "truncated".into(),
        }
    }

    /// What is done next. `backoff` is the next pause where there is one left, and its most; `alone` says that no other
    /// endpoint follows.
    pub(super) fn after(
        &self,
        backoff: Option<Duration>,
        most: Duration,
        alone: bool,
        question: &Question,
    ) -> After {
        if let Self::Transport(TransportError::Difference(why)) = self {
            return After::Stop(LlmError::Replay(why.clone()));
        }
        if let Self::Status { problem, .. } = self {
            match problem.kind {
                Kind::Schema if question.schema_in_field => return After::InWords,
                Kind::TooLong => return After::NextLarger,
                Kind::Quota | Kind::NoCalls => return After::Next,
                // Whoever would answer nevertheless is not looked for.
                Kind::Filtered => {
                    return After::Stop(LlmError::Filtered(problem.message.clone()));
                }
                Kind::Schema | Kind::Call | Kind::Other => {}
            }
        }
        if matches!(self, Self::Truncated { .. }) {
            return After::NextLarger;
        }
        let Some(backoff) = backoff.filter(|_| self.passes()) else {
            return After::Next;
        };
        let asked = self.retry_after().unwrap_or_default();
        // Another endpoint is sooner there than one that wants to be left alone for long.
        if asked > if alone { MOST_PAUSE } else { most } {
            return After::Next;
        }
        After::Again(backoff.max(asked))
    }

    /// Whether the same request may get an answer later.
    const fn passes(&self) -> bool {
        match self {
            Self::Status {
                status, problem, ..
            } => {
                matches!(problem.kind, Kind::Call) || matches!(status, 408 | 425 | 429 | 500..=599)
            }
            Self::Timeout(_) | Self::Read(_) => true,
            Self::Transport(error) => error.worth_another(),
            Self::Truncated { .. } => false,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The error, and what people can do about it.
    pub(super) fn told(&self, endpoint: &Endpoint, model: &Model) -> String {
        match self.remedy(endpoint, model) {
            Some(remedy) => format!("{self}; {remedy}"),
            None => self.to_string(),
        }
    }

    fn remedy(&self, endpoint: &Endpoint, model: &Model) -> Option<String> {
        let Self::Status {
            status, problem, ..
        } = self
        else {
            return matches!(self, Self::Truncated { .. }).then(|| too_long(model));
        };
        match (status, problem.kind) {
            (_, Kind::TooLong) => Some(too_long(model)),
            (_, Kind::NoCalls) => Some(format!(
                "roles with tools need a model that can call them: name what {} can do in its capabilities, without tools",
                model.name
            )),
            (_, Kind::Quota) => Some("the account has no credit left: top it up".into()),
            (401 | 403, _) => Some(match &endpoint.secret_ref {
                Some(key) => format!(
                    "check the key `{}` of the Secret {} and what it may use",
                    key.key, key.name
                ),
                None => "no key was sent: set secretRef".into(),
            }),
            (404, _) => Some(match endpoint.provider {
                Provider::Ollama => {
                    format!("pull the model into the server: ollama pull {}", model.name)
                }
                Provider::Azure => format!(
                    "check that the resource has a deployment {}, and baseUrl and apiVersion",
                    deployment(model)
                ),
                _ => format!(
                    "check that the provider has a model {}, and baseUrl",
                    model.name
                ),
            }),
            _ => None,
        }
    }
}

fn too_long(model: &Model) -> String {
    format!(
        "give the role a model with a larger contextWindow than the {} of {}, or let its template show less",
        model.window(),
        model.name
    )
}

/// Why a question cannot fit into a model's window, however well its text is packed into tokens.
pub(super) fn never_fits(question: &Question, model: &Model) -> Option<String> {
    let least = question.bytes() / MOST_BYTES_PER_TOKEN;
    let window = u64::from(model.window());
    (least + question.most_output > window).then(|| {
        format!(
            "a question of at least {least} tokens and an answer of up to {} do not fit into a window of {window}: it was not asked; {}",
            question.most_output,
            too_long(model)
        )
    })
}

/// The answer, unless the server counted so little that it cannot have read the whole question. Only Ollama drops what
/// does not fit, and only a question that may not fit is looked at.
pub(super) fn read_whole(
    answer: Answer,
    question: &Question,
    provider: Provider,
    model: &Model,
) -> Result<Answer, TryError> {
    let (bytes, window) = (question.bytes(), u64::from(model.window()));
    let Some(counted) = answer
        .usage
        .filter(|_| provider == Provider::Ollama && bytes > window)
    else {
        return Ok(answer);
    };
    let full = counted.input + 1 >= window;
    if full || bytes / counted.input.max(1) >= MOST_BYTES_PER_TOKEN {
        return Err(TryError::Truncated { counted, bytes });
    }
    Ok(answer)
}

/// The status of a request that ended.
pub(super) fn status(tried: &Result<Answer, TryError>) -> String {
    match tried {
        Ok(answer) => match answer.finish {
            Finish::Whole | Finish::Cut => "ok".into(),
            Finish::Filtered => "filtered".into(),
            Finish::Refused(_) => "refused".into(),
        },
        Err(error) => error.status(),
    }
}

/// What is booked: what the provider counted; nothing where it refused; else what was reserved.
pub(super) const fn settlement(tried: &Result<Answer, TryError>) -> Settlement {
    match tried {
        Ok(Answer {
            usage: Some(tokens),
            ..
        })
        | Err(TryError::Truncated {
            counted: tokens, ..
        }) => Settlement::Counted(*tokens),
        Ok(_)
        | Err(
            TryError::Timeout(_) | TryError::Read(_) | TryError::Transport(TransportError::Idle(_)),
        ) => Settlement::Reserved,
        Err(TryError::Transport(_) | TryError::Status { .. }) => Settlement::Nothing,
    }
}

/// An answer that says what was asked for, or that breaks off and can be continued.
pub(super) fn usable(answer: Answer, model: &Model) -> Result<Answer, LlmError> {
    match &answer.finish {
        Finish::Whole | Finish::Cut => Ok(answer),
        Finish::Filtered => Err(LlmError::Filtered(format!("{} broke off", model.name))),
        Finish::Refused(words) => Err(LlmError::Refused(words.chars().take(500).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(bytes: usize) -> Question {
        Question {
            body: json!("x".repeat(bytes.saturating_sub(2))),
            most_output: 100,
            streamed: true,
            schema_in_field: true,
        }
    }

    fn refusal(status: u16, retry_after: Option<u64>, kind: Kind) -> TryError {
        TryError::Status {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            problem: Problem {
                kind,
                message: "m".into(),
            },
        }
    }

    #[test]
    fn what_is_done_next_follows_what_went_wrong() {
        let second = Duration::from_secs(1);
        let again = |seconds| After::Again(Duration::from_secs(seconds));
        let stopped = After::Stop(LlmError::Filtered("m".into()));
        // The refusal, whether a pause is left, whether no endpoint follows.
        let table = [
            (refusal(500, None, Kind::Other), true, false, again(1)),
            (refusal(500, None, Kind::Other), false, true, After::Next),
            (refusal(429, Some(7), Kind::Other), true, false, again(7)),
            (
                refusal(429, Some(20), Kind::Other),
                true,
                false,
                After::Next,
            ),
            (refusal(429, Some(20), Kind::Other), true, true, again(20)),
            (
                refusal(429, Some(121), Kind::Other),
                true,
                true,
                After::Next,
            ),
            (refusal(429, None, Kind::Quota), true, true, After::Next),
            (refusal(401, None, Kind::Other), true, true, After::Next),
            (refusal(404, None, Kind::Other), true, true, After::Next),
            (refusal(400, None, Kind::Call), true, true, again(1)),
            (refusal(400, None, Kind::NoCalls), true, true, After::Next),
            (refusal(400, None, Kind::Schema), true, true, After::InWords),
            (
                refusal(400, None, Kind::TooLong),
                true,
                true,
                After::NextLarger,
            ),
            (refusal(400, None, Kind::Filtered), true, false, stopped),
            (TryError::Timeout(second), true, true, again(1)),
            (
                TryError::Read(ReadError::Cut("c".into())),
                true,
                true,
                again(1),
            ),
            (
                TryError::Transport(TransportError::Setup("s".into())),
                true,
                true,
                After::Next,
            ),
        ];
        for (error, left, alone, expected) in table {
            let backoff = left.then_some(second);
            let most = Duration::from_secs(15);
            assert_eq!(
                error.after(backoff, most, alone, &question(9)),
                expected,
                "{error:?}"
            );
        }
        // Once told in words, a schema cannot be what is refused.
        let mut words = question(9);
        words.schema_in_field = false;
        let refused = refusal(400, None, Kind::Schema);
        assert_eq!(
            refused.after(Some(second), second, true, &words),
            After::Next
        );
    }

    #[test]
    fn what_cannot_fit_is_not_asked() {
        let model = Model {
            context_window: Some(1100),
            ..Model::default()
        };
        assert_eq!(never_fits(&question(8000), &model), None);
        assert!(
            never_fits(&question(8008), &model)
                .unwrap()
                .contains("a question of at least 1001 tokens")
        );
    }

    #[test]
    fn a_count_that_cannot_be_of_the_whole_question_is_seen() {
        let model = Model {
            context_window: Some(4096),
            ..Model::default()
        };
        let truncated = |provider, bytes, input| {
            let usage = Some(Tokens {
                input,
                ..Tokens::default()
            });
            let answer = Answer {
                usage: usage.filter(|tokens| tokens.input > 0),
                ..Answer::default()
            };
            read_whole(answer, &question(bytes), provider, &model).is_err()
        };
        // Bytes of the question, tokens that were counted: 2050 is the half that servers keep.
        for (bytes, input, expected) in [
            (16_000, 3_900, false),
            (16_400, 4_095, true),
            (16_400, 4_096, true),
            (20_000, 2_050, true),
            (4_000, 400, false),
            (20_000, 0, false),
        ] {
            assert_eq!(
                truncated(Provider::Ollama, bytes, input),
                expected,
                "{bytes} {input}"
            );
            assert!(!truncated(Provider::Openai, bytes, input));
        }
    }

    #[test]
    fn people_are_told_what_to_do() {
        let endpoint = |provider| Endpoint {
            provider,
            secret_ref: Some(sopwith_crds::agent_run::KeyRef {
                name: "provider".into(),
                key: "api-key".into(),
            }),
            ..Endpoint::default()
        };
        let model = Model {
            name: "gpt".into(),
            deployment: Some("ours".into()),
            context_window: Some(4096),
            ..Model::default()
        };
        let table = [
            (
                Provider::Openai,
                refusal(401, None, Kind::Other),
                "HTTP 401: m; check the key `api-key` of the Secret provider and what it may use",
            ),
            (
                Provider::Openai,
                refusal(404, None, Kind::Other),
                "HTTP 404: m; check that the provider has a model gpt, and baseUrl",
            ),
            (
                Provider::Azure,
                refusal(404, None, Kind::Other),
                "HTTP 404: m; check that the resource has a deployment ours, and baseUrl and apiVersion",
            ),
            (
                Provider::Ollama,
                refusal(404, None, Kind::Other),
                "HTTP 404: m; pull the model into the server: ollama pull gpt",
            ),
            (
                Provider::Groq,
                refusal(429, Some(300), Kind::Other),
                "HTTP 429: m (asks to wait 300 s)",
            ),
            (
                Provider::Openai,
                refusal(429, None, Kind::Quota),
                "HTTP 429: m; the account has no credit left: top it up",
            ),
            (
                Provider::Groq,
                refusal(400, None, Kind::TooLong),
                "HTTP 400: m; give the role a model with a larger contextWindow than the 4096 of gpt, or let its template show less",
            ),
        ];
        for (provider, error, expected) in table {
            assert_eq!(error.told(&endpoint(provider), &model), expected);
        }
    }
}
