//! How much a question may hold. Pure.

use std::fmt;

use sopwith_crds::tool_policy::Model;

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
        let most = model.most_output();
        Self {
            model: model.name.clone(),
            tokens: model.window(),
            answer: asked.map_or(most, |asked| asked.min(most)),
        }
    }

    /// A window for everything, where no endpoint has the model: the question fails for that.
    fn endless(model: &str) -> Self {
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
    /// The largest window of the models of a name or alias, for answers of at most `asked` tokens. A question that is too long
    /// for one endpoint is given to the next.
    pub fn largest_window(&self, model: &str, asked: Option<u32>) -> Window {
        let windows = self.windows(model, asked);
        windows
            .max_by_key(Window::bytes)
            .unwrap_or_else(|| Window::endless(model))
    }

    /// The smallest window of those models. A conversation that goes on in turns fits whichever of them is asked next.
    pub fn smallest_window(&self, model: &str, asked: Option<u32>) -> Window {
        let windows = self.windows(model, asked);
        windows
            .min_by_key(Window::bytes)
            .unwrap_or_else(|| Window::endless(model))
    }

    fn windows(&self, model: &str, asked: Option<u32>) -> impl Iterator<Item = Window> {
        let endpoints = self.endpoints.iter();
        let models = endpoints.filter_map(move |reached| reached.endpoint.model(model));
        models.map(move |model| Window::of(model, asked))
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
