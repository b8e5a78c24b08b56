//! A day's account of a policy: pure arithmetic.
//!
//! Runners say what a launch has used since its start, so the same report can be booked any number of times. What a
//! launch used *today* is that less what it had used when the day began.

use k8s_openapi::jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use sopwith_crds::{Money, status::Usage, tool_policy::Today};
use std::collections::HashMap;

/// An amount of tokens and money.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Amount {
    /// Input and output tokens.
    pub tokens: u64,
    /// US dollars.
    pub cost: Money,
}

/// Whose account an entry is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// UID of the run.
    pub run_uid: String,
    /// The launch.
    pub launch: u32,
    /// UID of the pod.
    pub pod_uid: String,
}

/// What one pod of one launch used, as of a day.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Whose it is.
    #[serde(flatten)]
    pub origin: Origin,
    /// What it had used when the day began.
    pub base: Amount,
    /// What it has used since its start.
    pub total: Amount,
}

/// One day of one policy.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// The day in UTC.
    pub date: Date,
    entries: HashMap<Origin, Entry>,
}

impl Amount {
    /// Of this usage.
    pub fn of(usage: &Usage) -> Self {
        Self {
            tokens: usage.total_tokens,
            cost: usage.cost,
        }
    }

    /// The larger of both, each part for itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            cost: self.cost.max(other.cost),
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: self.cost.saturating_sub(other.cost),
        }
    }
}

impl Entry {
    /// What was used on the day of the entry.
    pub fn of_day(&self) -> Amount {
        self.total.less(self.base)
    }
}

impl Day {
    /// A day with the entries that are known of it.
    pub fn new(date: Date, entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter().map(|e| (e.origin.clone(), e));
        Self {
            date,
            entries: entries.collect(),
        }
    }

    /// What is known of a pod.
    pub fn entry(&self, origin: &Origin) -> Option<&Entry> {
        self.entries.get(origin)
    }

    /// The entry as it will be when `used` is booked; none where that changes nothing. `base` is what the pod had used
    /// when the day began; it counts for the first entry of the day only.
    pub fn booking(&self, origin: &Origin, base: Amount, used: Amount) -> Option<Entry> {
        let Some(known) = self.entries.get(origin) else {
            return Some(Entry {
                origin: origin.clone(),
                base,
                total: used.max(base),
            });
        };
        let total = known.total.max(used);
        (total != known.total).then(|| Entry {
            total,
            ..known.clone()
        })
    }

    /// Takes over an entry.
    pub fn put(&mut self, entry: Entry) {
        self.entries.insert(entry.origin.clone(), entry);
    }

    /// The sum of the day.
    pub fn sum(&self) -> Amount {
        let zero = Amount::default();
        self.entries
            .values()
            .map(Entry::of_day)
            .fold(zero, |a, b| Amount {
                tokens: a.tokens.saturating_add(b.tokens),
                cost: a.cost + b.cost,
            })
    }

    /// As the policy's status shows it at `now`: nothing where another day has begun.
    pub fn today(&self, now: Timestamp) -> Today {
        let date = date_of(now);
        let sum = if date == self.date {
            self.sum()
        } else {
            Amount::default()
        };
        Today {
            date: date.to_string(),
            tokens: sum.tokens,
            cost: sum.cost,
            ratio: None,
        }
    }
}

/// The day in UTC.
pub fn date_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}
