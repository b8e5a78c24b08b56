//! What each provider says on the wire, for one and the same conversation.

use sopwith_crds::tool_policy::{Endpoint, Provider};

use crate::server::Reply;

/// A way of asking a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Openai,
    /// Azure by the paths of deployments.
    AzureDated,
    /// Azure by the v1 path.
    AzureV1,
    Groq,
    Ollama,
}

pub(crate) const ALL: [Dialect; 5] = [
    Dialect::Openai,
    Dialect::AzureDated,
    Dialect::AzureV1,
    Dialect::Groq,
    Dialect::Ollama,
];

const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

impl Dialect {
    pub(crate) const fn provider(self) -> Provider {
        match self {
            Self::Openai => Provider::Openai,
            Self::AzureDated | Self::AzureV1 => Provider::Azure,
            Self::Groq => Provider::Groq,
            Self::Ollama => Provider::Ollama,
        }
    }

    /// An endpoint at an address.
    pub(crate) fn endpoint(self, name: String, address: &str) -> Endpoint {
        let path = match self {
            Self::Openai => "/v1",
            Self::Groq => "/openai/v1",
            Self::AzureDated | Self::AzureV1 | Self::Ollama => "",
        };
        Endpoint {
            name,
            provider: self.provider(),
            base_url: Some(format!("{address}{path}")),
            api_version: (self == Self::AzureDated).then(|| "2024-10-21".into()),
            ..Endpoint::default()
        }
    }

    /// The line of a request.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::Openai => "POST /v1/chat/completions",
            Self::AzureDated => {
                "POST /openai/deployments/our-gpt/chat/completions?api-version=2024-10-21"
            }
            Self::AzureV1 | Self::Groq => "POST /openai/v1/chat/completions",
            Self::Ollama => "POST /api/chat",
        }
    }

    /// The header with a key.
    pub(crate) fn header(self, key: &str) -> String {
        match self {
            Self::AzureDated | Self::AzureV1 => format!("api-key: {key}"),
            _ => format!("authorization: Bearer {key}"),
        }
    }

    /// Name of the model in the body.
    pub(crate) const fn model(self) -> &'static str {
        match self {
            Self::AzureDated | Self::AzureV1 => "our-gpt",
            _ => "gpt",
        }
    }

    fn reply(self, pieces: &[&str]) -> Reply {
        let kind = if self == Self::Ollama { LINES } else { EVENTS };
        Reply::new(200, kind, pieces)
    }

    /// `Hello`, of which the first piece is there and the rest may follow.
    pub(crate) fn begun(self) -> Reply {
        match self {
            Self::Ollama => self.reply(&["{\"message\":{\"content\":\"Hel\"},\"done\":false}\n"]),
            _ => self.reply(&["data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n"]),
        }
    }

    /// `Hello`, streamed, with 20 tokens sent (8 of them cached) and 10 received (4 of them thinking, where it is told).
    pub(crate) fn good(self) -> Reply {
        self.ended("Hello", "stop", true)
    }

    /// A text, why it ended, and whether it is counted.
    pub(crate) fn ended(self, text: &str, reason: &str, counted: bool) -> Reply {
        let chat = "\"prompt_tokens\":20,\"completion_tokens\":10,\"prompt_tokens_details\":{\"cached_tokens\":8},\"completion_tokens_details\":{\"reasoning_tokens\":4}";
        let (first, rest) = text.split_at(text.len() / 2);
        let piece = |text: &str| match self {
            Self::Ollama => format!("{{\"message\":{{\"content\":\"{text}\"}},\"done\":false}}\n"),
            _ => format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"),
        };
        let end = match (self, counted) {
            (Self::Ollama, true) => format!(
                "{{\"message\":{{\"content\":\"\"}},\"done\":true,\"done_reason\":\"{reason}\",\"prompt_eval_count\":20,\"prompt_eval_cached_count\":8,\"eval_count\":10}}\n"
            ),
            (Self::Ollama, false) => {
                format!("{{\"done\":true,\"done_reason\":\"{reason}\"}}\n")
            }
            (Self::Groq, true) => format!(
                "data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}],\"x_groq\":{{\"id\":\"r\",\"usage\":{{{chat}}}}}}}\n\ndata: [DONE]\n\n"
            ),
            (_, true) => format!(
                "data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\ndata: {{\"choices\":[],\"usage\":{{{chat}}}}}\n\ndata: [DONE]\n\n"
            ),
            (_, false) => format!(
                "data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\ndata: [DONE]\n\n"
            ),
        };
        self.reply(&[&piece(first), &piece(rest), &end])
    }

    /// A call of `read_file` for `a.py`, streamed, counted as [`Self::good`].
    pub(crate) fn calls(self) -> Reply {
        let usage = "\"prompt_tokens\":20,\"completion_tokens\":10";
        match self {
            Self::Ollama => self.reply(&[
                "{\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"read_file\",\"arguments\":{\"path\":\"a.py\"}}}]},\"done\":false}\n",
                "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":20,\"eval_count\":10}\n",
            ]),
            // In one piece.
            Self::Groq => self.reply(&[
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"read_file\",\"arguments\":\"{\\\"path\\\":\\\"a.py\\\"}\"}}]}}]}\n\n",
                &format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"tool_calls\"}}],\"x_groq\":{{\"usage\":{{{usage}}}}}}}\n\ndata: [DONE]\n\n"),
            ]),
            // In pieces.
            _ => self.reply(&[
                "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"read_file\",\"arguments\":\"\"}}]}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"path\\\": \"}}]}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"a.py\\\"}\"}}]}}]}\n\n",
                &format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"tool_calls\"}}]}}\n\ndata: {{\"choices\":[],\"usage\":{{{usage}}}}}\n\ndata: [DONE]\n\n"),
            ]),
        }
    }

    /// Something that is no JSON.
    pub(crate) fn malformed(self) -> Reply {
        match self {
            Self::Ollama => self.reply(&["<html>\n"]),
            _ => self.reply(&["data: <html>\n\n"]),
        }
    }

    /// An error after the first piece.
    pub(crate) fn broken_off(self) -> Reply {
        match self {
            Self::Ollama => self.reply(&[
                "{\"message\":{\"content\":\"Hel\"},\"done\":false}\n",
                "{\"error\":\"the model crashed\"}\n",
            ]),
            _ => self.reply(&[
                "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n",
                "data: {\"error\":{\"message\":\"overloaded\"}}\n\n",
            ]),
        }
    }

    /// An error that repeats the key.
    pub(crate) fn error(self, status: u16, message: &str) -> Reply {
        match self {
            Self::Ollama => Reply::error(status, &format!("{{\"error\":\"{message}\"}}")),
            _ => Reply::error(
                status,
                &format!("{{\"error\":{{\"message\":\"{message}\"}}}}"),
            ),
        }
    }

    pub(crate) fn too_long(self) -> Reply {
        match self {
            Self::Ollama => self.error(400, "the prompt is longer than the context length currently available to the model; shorten the prompt"),
            _ => Reply::error(400, "{\"error\":{\"message\":\"This model's maximum context length is 1000 tokens.\",\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":\"context_length_exceeded\"}}"),
        }
    }

    pub(crate) fn schema_refused(self) -> Reply {
        match self {
            Self::Ollama => self.error(
                400,
                "invalid format: expected \\\"json\\\" or a valid JSON Schema object",
            ),
            Self::Groq => Reply::error(
                400,
                "{\"error\":{\"message\":\"This model does not support response format `json_schema`.\",\"type\":\"invalid_request_error\"}}",
            ),
            _ => Reply::error(
                400,
                "{\"error\":{\"message\":\"Invalid schema for response_format 'prd'\",\"type\":\"invalid_request_error\",\"param\":\"response_format\",\"code\":null}}",
            ),
        }
    }
}
