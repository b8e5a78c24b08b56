//! Endpoints of models, and what they cost.

use crate::{
    Money,
    agent_run::{KeyRef, LocalRef},
    check::defaults,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An endpoint of models.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.provider != 'replay' || has(self.replay)", "message": "an endpoint of provider replay needs the field replay"},
    {"rule": "self.provider == 'replay' || !has(self.replay)", "message": "the field replay belongs to endpoints of provider replay"},
    {"rule": "self.provider != 'azure' || has(self.baseUrl)", "message": "an endpoint of provider azure needs baseUrl, the address of the resource"}
]))]
pub struct Endpoint {
    /// Name of the endpoint.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which protocol it speaks.
    pub provider: Provider,
    /// Its address, http or https. Default: the public one of openai and groq. For azure the address of the resource,
    /// for ollama that of the server, both without a path of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://"))]
    pub base_url: Option<String>,
    /// The API version (azure), for example 2024-10-21: models are then asked by the paths of their deployments.
    /// Default: the v1 path, which needs none; `preview` asks for what v1 has in preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub api_version: Option<String>,
    /// The API key. It is mounted into the runner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Certificates (PEM) of a private authority that the endpoint's certificate is checked against, in a
    /// ConfigMap of the same namespace. Default: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<KeyRef>,
    /// Most seconds until a streamed answer begins, and between two pieces of it. Default: the timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub idle_timeout_seconds: Option<u32>,
    /// Most seconds of a request. Default: by environment 30, 60 or 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// What the alert on latency measures against, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub latency_target_seconds: Option<u32>,
    /// Most requests of one run in a time. A request waits for its turn: up to 15 s where another endpoint has the model,
    /// up to 120 s where none has; beyond that the next endpoint is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Where answers come from (replay).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Models it serves.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub models: Vec<Model>,
}

impl Endpoint {
    /// The model that is asked under a name or alias, the name first.
    pub fn model(&self, name: &str) -> Option<&Model> {
        let named = self.models.iter().find(|model| model.name == name);
        named.or_else(|| {
            let has = |model: &&Model| model.aliases.iter().any(|alias| alias == name);
            self.models.iter().find(has)
        })
    }
}

/// Which protocol an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// `OpenAI`, or anything that speaks its chat completions.
    #[default]
    Openai,
    /// Azure `OpenAI`.
    Azure,
    /// Ollama.
    Ollama,
    /// Groq.
    Groq,
    /// A cassette of recorded answers; no network.
    Replay,
}

impl Provider {
    /// The name as written in a spec and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Azure => "azure",
            Self::Ollama => "ollama",
            Self::Groq => "groq",
            Self::Replay => "replay",
        }
    }
}

/// Where recorded answers come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// ConfigMap in the same namespace; all its keys together are the cassette, compressed where they end with .gz.
    pub cassette_ref: LocalRef,
    /// What happens when a request differs from the recorded one. Default: strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ReplayMode>,
}

/// What happens when a request differs from the recorded one.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub enum ReplayMode {
    /// The run fails and shows the difference.
    #[default]
    Strict,
    /// What actions asked is answered as recorded, whether it differs or not: other gates judge recorded work. What judges are asked
    /// must be as recorded, or goes to the next endpoint.
    GatesOnly,
    /// What is as recorded is answered so; anything else goes to the next endpoint. The first difference is shown.
    RecordFromDifference,
}

/// Most calls in a time, of one run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Calls a minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_minute: u32,
    /// Calls at once after a pause. Default: perMinute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

/// A model and what it costs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Name as the provider knows it.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Names under which roles may ask for it, for example strong, fast, judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub aliases: Vec<String>,
    /// Name of the deployment (azure). Default: the model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub deployment: Option<String>,
    /// Tokens that a request and its answer may have together. Default: 128000. Must be set for ollama, which is told
    /// to hold as many (`num_ctx`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 100_000_000))]
    pub context_window: Option<u32>,
    /// Most tokens of an answer. Default: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_output_tokens: Option<u32>,
    /// What it can do: jsonSchema, tools, streaming, reasoning. Default: jsonSchema, tools and streaming. Without
    /// jsonSchema a model is told in words which schema its answer must match; without tools roles with tools do not ask
    /// it; with reasoning it gets no temperature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// US dollars per million input tokens, as a decimal string. Required where money is bounded, which it
    /// always is by the run's investment; "0" for a local model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_per_million: Option<Money>,
    /// US dollars per million cached input tokens. Default: inputPerMillion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_million: Option<Money>,
    /// US dollars per million output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_per_million: Option<Money>,
}

impl Model {
    /// Whether it has a capability.
    pub fn can(&self, what: &str) -> bool {
        match self.capabilities.as_slice() {
            [] => matches!(what, "jsonSchema" | "tools" | "streaming"),
            named => named.iter().any(|capability| capability == what),
        }
    }

    /// Tokens that a question and its answer may have together.
    pub fn window(&self) -> u32 {
        self.context_window.unwrap_or(defaults::CONTEXT_WINDOW)
    }

    /// Tokens that an answer may have.
    pub fn most_output(&self) -> u32 {
        self.max_output_tokens
            .unwrap_or(defaults::MAX_OUTPUT_TOKENS)
    }
}
