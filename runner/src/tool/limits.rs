//! How often each tool may be called: in a time, and in a run.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sopwith_crds::tool_policy::Tool;

use crate::rate::Rate;

/// The limits of all tools, and the calls that were made.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    rates: BTreeMap<String, Rate>,
    most: BTreeMap<String, u32>,
    made: Mutex<BTreeMap<String, u32>>,
}

impl Limits {
    /// The limits of tools, of which earlier launches made so many calls.
    pub(crate) fn new(tools: &[Tool], made: BTreeMap<String, u32>) -> Self {
        let name = |tool: &Tool| tool.name.clone();
        Self {
            rates: tools
                .iter()
                .map(|tool| (name(tool), Rate::new(tool.rate_limit.as_ref())))
                .collect(),
            most: tools
                .iter()
                .filter_map(|tool| Some((name(tool), tool.max_calls?)))
                .collect(),
            made: Mutex::new(made),
        }
    }

    /// Calls that were made, by tool; those of a snapshot are no fewer than it says.
    pub(crate) fn at_least(&self, made: &BTreeMap<String, u32>) {
        let mut known = self.made();
        for (tool, calls) in made {
            let known = known.entry(tool.clone()).or_default();
            *known = (*known).max(*calls);
        }
    }

    /// Calls that were made, by tool.
    pub(crate) fn all_made(&self) -> BTreeMap<String, u32> {
        self.made().clone()
    }

    /// Waits for a call's turn and counts it; an error is why it may not be made.
    pub(crate) async fn admit(&self, tool: &str, patience: Duration) -> Result<(), String> {
        self.has_calls_left(tool)?;
        if let Some(rate) = self.rates.get(tool) {
            rate.turn(patience).await.map_err(|wait| {
                format!(
                    "the policy allows no more calls of it just now (rateLimit): the next one in {} s",
                    wait.as_secs().max(1)
                )
            })?;
        }
        let mut made = self.made();
        // Others may have been quicker.
        self.left(tool, &made)?;
        *made.entry(tool.to_owned()).or_default() += 1;
        Ok(())
    }

    fn has_calls_left(&self, tool: &str) -> Result<(), String> {
        self.left(tool, &self.made())
    }

    fn left(&self, tool: &str, made: &BTreeMap<String, u32>) -> Result<(), String> {
        let Some(most) = self.most.get(tool) else {
            return Ok(());
        };
        if made.get(tool).copied().unwrap_or(0) < *most {
            return Ok(());
        }
        Err(format!(
            "the policy allows {most} calls of it in one run (maxCalls), and they have been made"
        ))
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::tool_policy::RateLimit;

    fn limits(max_calls: Option<u32>, rate_limit: Option<RateLimit>, made: u32) -> Limits {
        let tool = Tool {
            name: "t".into(),
            max_calls,
            rate_limit,
            ..Tool::default()
        };
        Limits::new(&[tool], [("t".to_owned(), made)].into())
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_a_run_are_counted_over_launches() {
        let patience = Duration::from_secs(5);
        let limits = limits(Some(4), None, 1);
        limits.at_least(&[("t".to_owned(), 2)].into());
        limits.at_least(&[("t".to_owned(), 1)].into());
        for _ in 0..2 {
            limits.admit("t", patience).await.unwrap();
        }
        let refused = limits.admit("t", patience).await.unwrap_err();
        assert_eq!(
            refused,
            "the policy allows 4 calls of it in one run (maxCalls), and they have been made"
        );
        assert_eq!(limits.all_made()["t"], 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_its_turn_and_one_that_would_wait_too_long_is_not_counted() {
        let limit = RateLimit {
            per_minute: 6,
            burst: Some(1),
        };
        let limits = limits(None, Some(limit), 0);
        let begun = tokio::time::Instant::now();
        limits.admit("t", Duration::from_secs(60)).await.unwrap();
        limits.admit("t", Duration::from_secs(60)).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 10);
        let refused = limits.admit("t", Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(
            refused,
            "the policy allows no more calls of it just now (rateLimit): the next one in 10 s"
        );
        assert_eq!(limits.all_made()["t"], 2);
    }
}
