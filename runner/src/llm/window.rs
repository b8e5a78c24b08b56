//! How much a question may hold. Pure.

use std::fmt;

use sopwith_crds::{check::defaults, tool_policy::Model};

use super::Llm;

/// Bytes that are taken for a token. Prose has 4 to 5 and code 3 to 4, in the tokenizers of the models that are in use; text
/// that is denser than this is still refused by the provider.
const BYTES_PER_TOKEN: usize = 3;

/// The window of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The model.
    pub model: String,
    /// Tokens that question and answer may have together.
    pub tokens: u32,
    /// Most tokens of the answer.
    pub answer: u32,
}

impl Window {
    /// The window of a model for an answer of at most `asked` tokens.
    pub fn of(model: &Model, asked: Option<u32>) -> Self {
        let most = model
            .max_output_tokens
            .unwrap_or(defaults::MAX_OUTPUT_TOKENS);
        Self {
            model: model.name.clone(),
            tokens: model.context_window.unwrap_or(defaults::CONTEXT_WINDOW),
            answer: asked.map_or(most, |asked| asked.min(most)),
        }
    }

    /// A window for everything.
    pub fn endless(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            tokens: u32::MAX,
            answer: 0,
        }
    }

    /// Bytes of text that a question may have.
    pub const fn bytes(&self) -> usize {
        self.tokens.saturating_sub(self.answer) as usize * BYTES_PER_TOKEN
    }
}

impl Llm {
    /// The largest window of the models of a name or alias, for answers of at most `asked` tokens; none where no endpoint has
    /// one. A question that is too long for one endpoint is given to the next.
    pub fn window(&self, model: &str, asked: Option<u32>) -> Option<Window> {
        let models = self
            .endpoints
            .iter()
            .filter_map(|reached| reached.endpoint.model(model));
        let windows = models.map(|model| Window::of(model, asked));
        windows.max_by_key(Window::bytes)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the window of {} has {} tokens, of which its answer takes {}, which leaves room for {} bytes",
            self.model,
            self.tokens,
            self.answer,
            self.bytes()
        )
    }
}
