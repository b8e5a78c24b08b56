//! What the requests of one piece of work used.

use std::sync::atomic::{AtomicU64, Ordering};

use sopwith_crds::contract::report::What;

/// Tokens of the requests of one action. The books of the run also know those of other items that are asked for meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    input: AtomicU64,
    output: AtomicU64,
}

impl Spent {
    /// Counts what is reported, if it is a request.
    pub(crate) fn count(&self, what: &What) {
        if let What::LlmRequest {
            input_tokens,
            output_tokens,
            ..
        } = what
        {
            self.input.fetch_add(*input_tokens, Ordering::Relaxed);
            self.output.fetch_add(*output_tokens, Ordering::Relaxed);
        }
    }

    /// Tokens sent and received.
    pub(crate) fn tokens(&self) -> (u64, u64) {
        (
            self.input.load(Ordering::Relaxed),
            self.output.load(Ordering::Relaxed),
        )
    }
}
