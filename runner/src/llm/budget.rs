//! What may be spent, and what was. Pure.
//!
//! A request is reserved at its worst before it is made: as many input tokens as its body has bytes (no tokenizer makes
//! more; at most the model's context window) and the most output tokens it may have. What the provider counts settles it.

use super::codec::Question;
use sopwith_crds::{Money, contract::plan::RunPlan, status::Usage, tool_policy::Model};

/// Bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most money.
    pub cost: Money,
    /// Most tokens.
    pub tokens: Option<u64>,
}

impl Limits {
    /// The run's investment and what the policy allows for one run, whichever is less.
    pub fn of(plan: &RunPlan) -> Self {
        let investment = plan.options.investment;
        Self {
            cost: plan
                .budgets
                .cost_per_run
                .map_or(investment, |most| most.min(investment)),
            tokens: plan.budgets.tokens_per_run,
        }
    }
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sent.
    pub input: u64,
    /// Of these, cached by the provider.
    pub cached: u64,
    /// Received.
    pub output: u64,
    /// Of these, thinking that is not part of the text.
    pub reasoning: u64,
}

/// A request does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Into the money.
    #[error(
        "a request to {model} may cost {needed}, {spent} of {limit} US dollars are spent or reserved: it was not made. Raise spec.investment (or costPerRun of the policy) to go on"
    )]
    Cost {
        /// The model.
        model: String,
        /// At its worst.
        needed: Money,
        /// So far, requests under way included.
        spent: Money,
        /// The bound.
        limit: Money,
    },
    /// Into the tokens.
    #[error(
        "a request to {model} may use {needed} tokens, {spent} of {limit} are used or reserved: it was not made. Raise tokensPerRun of the policy to go on"
    )]
    Tokens {
        /// The model.
        model: String,
        /// At its worst.
        needed: u64,
        /// So far, requests under way included.
        spent: u64,
        /// The bound.
        limit: u64,
    },
}

/// What is held back for a request under way.
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    tokens: Tokens,
    cost: Money,
}

/// How a request is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// At what the provider counted.
    Counted(Tokens),
    /// At what was reserved: nobody can prove that it was less.
    Reserved,
    /// At nothing: the provider refused it or never saw it.
    Nothing,
}

/// The books of a run in one launch.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    before: Usage,
    launch: Usage,
    reserved_cost: Money,
    reserved_tokens: u64,
}

impl Budget {
    /// Books that begin with what earlier launches used.
    pub fn new(limits: Limits, before: Usage) -> Self {
        Self {
            limits,
            before,
            launch: Usage::default(),
            reserved_cost: Money::ZERO,
            reserved_tokens: 0,
        }
    }

    /// What this launch used.
    pub const fn launch(&self) -> &Usage {
        &self.launch
    }

    /// What all launches used.
    pub fn spent(&self) -> Usage {
        let mut spent = self.before.clone();
        spent.add(&self.launch);
        spent
    }

    /// Books a call of a tool.
    pub fn tool_called(&mut self, failed: bool) {
        self.launch.add(&Usage {
            tool_calls: 1,
            tool_failures: u64::from(failed),
            ..Usage::default()
        });
    }

    /// Holds back what a request may cost at its worst, or says that it does not fit.
    pub fn reserve(
        &mut self,
        question: &Question,
        model: &Model,
    ) -> Result<Reservation, Exhausted> {
        let window = u64::from(model.window());
        let tokens = Tokens {
            input: question.bytes().min(window),
            output: question.most_output,
            ..Tokens::default()
        };
        let cost = cost(tokens, model);
        let spent = self.spent();
        let total = spent.cost + self.reserved_cost;
        if total + cost > self.limits.cost {
            let (model, limit) = (model.name.clone(), self.limits.cost);
            return Err(Exhausted::Cost {
                model,
                needed: cost,
                spent: total,
                limit,
            });
        }
        let (needed, used) = (
            tokens.input + tokens.output,
            spent.total_tokens + self.reserved_tokens,
        );
        if let Some(limit) = self.limits.tokens.filter(|limit| used + needed > *limit) {
            return Err(Exhausted::Tokens {
                model: model.name.clone(),
                needed,
                spent: used,
                limit,
            });
        }
        self.reserved_cost += cost;
        self.reserved_tokens += needed;
        Ok(Reservation { tokens, cost })
    }

    /// Whether anything is held back for a request under way.
    pub fn under_way(&self) -> bool {
        self.reserved_cost > Money::ZERO || self.reserved_tokens > 0
    }

    /// Books a request that ended, and gives what was booked.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a reservation is settled once"
    )]
    pub fn settle(
        &mut self,
        reservation: Reservation,
        how: Settlement,
        model: &Model,
        failed: bool,
    ) -> Tokens {
        self.reserved_cost = self.reserved_cost.saturating_sub(reservation.cost);
        self.reserved_tokens -= reservation.tokens.input + reservation.tokens.output;
        let tokens = match how {
            Settlement::Counted(tokens) => tokens,
            Settlement::Reserved => reservation.tokens,
            Settlement::Nothing => Tokens::default(),
        };
        self.launch.add(&Usage {
            llm_requests: 1,
            llm_errors: u64::from(failed),
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            total_tokens: tokens.input + tokens.output,
            cost: cost(tokens, model),
            ..Usage::default()
        });
        tokens
    }
}

/// What tokens cost. A model without a price is refused by the plan; here it costs nothing.
pub fn cost(tokens: Tokens, model: &Model) -> Money {
    let input = model.input_per_million.unwrap_or_default();
    let cached = model.cached_input_per_million.unwrap_or(input);
    let output = model.output_per_million.unwrap_or_default();
    let from_cache = tokens.cached.min(tokens.input);
    input.for_tokens(tokens.input - from_cache)
        + cached.for_tokens(from_cache)
        + output.for_tokens(tokens.output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(text: usize, most_output: u64) -> Question {
        Question {
            body: json!({"messages": ["x".repeat(text)]}),
            most_output,
            streamed: true,
            schema_in_field: false,
        }
    }

    fn model() -> Model {
        Model {
            name: "m".into(),
            context_window: Some(1000),
            input_per_million: Some("10".parse().unwrap()),
            cached_input_per_million: Some("1".parse().unwrap()),
            output_per_million: Some("30".parse().unwrap()),
            ..Model::default()
        }
    }

    fn budget(cost: &str, tokens: Option<u64>) -> Budget {
        Budget::new(
            Limits {
                cost: cost.parse().unwrap(),
                tokens,
            },
            Usage::default(),
        )
    }

    #[test]
    fn a_request_that_could_cost_more_than_is_left_is_not_made() {
        // 1000 tokens of input at most (the window), 100 of output: 0.010 + 0.003.
        let body = question(5000, 100);
        assert!(budget("0.013", None).reserve(&body, &model()).is_ok());
        let refused = budget("0.012999999", None)
            .reserve(&body, &model())
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a request to m may cost 0.013, 0.00 of 0.012999999 US dollars are spent or reserved: it was not made. Raise spec.investment (or costPerRun of the policy) to go on"
        );
        assert!(budget("1", Some(1100)).reserve(&body, &model()).is_ok());
        assert!(matches!(
            budget("1", Some(1099)).reserve(&body, &model()),
            Err(Exhausted::Tokens { needed: 1100, .. })
        ));
    }

    #[test]
    fn reservations_of_requests_under_way_count_and_what_was_counted_replaces_them() {
        let body = question(5000, 100);
        let mut books = budget("0.02", None);
        let first = books.reserve(&body, &model()).unwrap();
        assert!(books.reserve(&body, &model()).is_err());
        let counted = Tokens {
            input: 200,
            cached: 100,
            output: 10,
            reasoning: 4,
        };
        books.settle(first, Settlement::Counted(counted), &model(), false);
        // 100 × 10 + 100 × 1 + 10 × 30 millionths.
        assert_eq!(books.launch().cost, "0.0014".parse().unwrap());
        let second = books.reserve(&body, &model()).unwrap();
        books.settle(second, Settlement::Reserved, &model(), true);
        assert_eq!(books.launch().cost, "0.0144".parse().unwrap());
        assert_eq!(
            (books.launch().llm_requests, books.launch().llm_errors),
            (2, 1)
        );
        let third = books.reserve(&question(1, 1), &model()).unwrap();
        books.settle(third, Settlement::Nothing, &model(), true);
        assert_eq!(books.launch().cost, "0.0144".parse().unwrap());
    }

    #[test]
    fn what_earlier_launches_spent_is_not_there_again() {
        let before = Usage {
            cost: "0.9".parse().unwrap(),
            ..Usage::default()
        };
        let mut books = Budget::new(
            Limits {
                cost: "0.91".parse().unwrap(),
                tokens: None,
            },
            before,
        );
        assert!(books.reserve(&question(1, 1000), &model()).is_err());
    }
}
