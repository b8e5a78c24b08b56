//! What a question needs: a plan with endpoints, keys in files, a model client.

use std::{sync::Mutex, time::Duration};

use serde_json::json;
use sopwith_crds::{
    Money,
    agent_run::KeyRef,
    contract::{cassette::Key, plan::RunPlan, report::What},
    status::Usage,
    tool_policy::{Endpoint, Model},
};
use sopwith_runner::llm::{
    Ask, Llm, LlmError, Pace,
    codec::ChatMessage,
    transport::{Places, Transport},
};

pub(crate) const KEY: &str = "very-secret-0123456789abcdef";

pub(crate) struct Room {
    pub(crate) plan: RunPlan,
    pub(crate) places: Places,
    folder: tempfile::TempDir,
}

/// A model of 1000 tokens of window and 100 of answer, at 10 and 30 dollars per million.
pub(crate) fn model() -> Model {
    let price = |text: &str| text.parse::<Money>().ok();
    Model {
        name: "gpt".into(),
        deployment: Some("our-gpt".into()),
        aliases: vec!["strong".into()],
        context_window: Some(1000),
        max_output_tokens: Some(100),
        input_per_million: price("10"),
        cached_input_per_million: price("5"),
        output_per_million: price("30"),
        ..Model::default()
    }
}

impl Room {
    /// A plan with these endpoints, each with a key, a model, a timeout of 4 s and an idle one of 2 s.
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("provider")).unwrap();
        std::fs::write(folder.path().join("provider/key"), format!("{KEY}\n")).unwrap();
        let endpoints = endpoints.into_iter().map(|endpoint| Endpoint {
            secret_ref: Some(KeyRef {
                name: "provider".into(),
                key: "key".into(),
            }),
            timeout_seconds: Some(4),
            idle_timeout_seconds: Some(2),
            models: vec![model()],
            ..endpoint
        });
        let mut plan = RunPlan {
            llm: endpoints.collect(),
            ..RunPlan::default()
        };
        plan.options.investment = "1".parse().unwrap();
        let places = Places {
            secrets: folder.path().to_owned(),
            config: folder.path().to_owned(),
        };
        Self {
            plan,
            places,
            folder,
        }
    }

    /// Writes a certificate and lets the first endpoint be checked against it.
    pub(crate) fn trust(&mut self, certificate: &str) {
        std::fs::write(self.folder.path().join("provider/ca.crt"), certificate).unwrap();
        self.plan.llm[0].ca_ref = Some(KeyRef {
            name: "provider".into(),
            key: "ca.crt".into(),
        });
    }

    pub(crate) fn llm(&self) -> Llm {
        let transports = self
            .plan
            .llm
            .iter()
            .map(|endpoint| Transport::of(endpoint, &self.places).unwrap())
            .collect();
        let pace = Pace {
            first: Duration::from_millis(1),
            most: Duration::from_millis(5),
            tries: 3,
        };
        Llm::new(&self.plan, transports, Usage::default()).with_pace(pace)
    }
}

pub(crate) fn ask() -> Ask {
    Ask {
        key: Key {
            turn: 1,
            ..Key::default()
        },
        model: "strong".into(),
        messages: vec![
            ChatMessage::new("system", "be brief"),
            ChatMessage::new("user", "hello"),
        ],
        ..Ask::default()
    }
}

/// A question whose answer has a schema.
pub(crate) fn ask_for_json() -> Ask {
    Ask {
        schema: Some(("prd".into(), json!({"type": "object"}))),
        ..ask()
    }
}

/// What asking led to.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) answer: Result<String, LlmError>,
    pub(crate) statuses: Vec<String>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) cached: u64,
    pub(crate) reasoning: u64,
    pub(crate) ask: Ask,
}

/// Asks, and looks that the key is nowhere.
pub(crate) async fn asked(llm: &Llm, mut ask: Ask) -> Asked {
    let told: Mutex<Vec<What>> = Mutex::default();
    let answer = llm
        .ask(&mut ask, &|what| told.lock().unwrap().push(what))
        .await;
    let mut asked = Asked {
        answer,
        statuses: Vec::new(),
        endpoints: Vec::new(),
        cached: 0,
        reasoning: 0,
        ask,
    };
    let told = told.into_inner().unwrap();
    assert!(
        !format!("{told:?} {:?}", asked.answer).contains(KEY),
        "the key leaked: {told:?} {:?}",
        asked.answer
    );
    for what in told {
        if let What::LlmRequest {
            status,
            endpoint,
            cached_input_tokens,
            reasoning_tokens,
            ..
        } = what
        {
            asked.statuses.push(status);
            asked.endpoints.push(endpoint);
            asked.cached += cached_input_tokens;
            asked.reasoning += reasoning_tokens;
        }
    }
    asked
}
