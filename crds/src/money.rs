//! Money in exact arithmetic.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum, ops, str::FromStr};

const NANOS: u128 = 1_000_000_000;

/// US dollars, kept as a whole number of billionths so that sums never drift.
///
/// On the wire it is a decimal string (`"3.0"`, `"0.000150"`), as Kubernetes API conventions ask of
/// non-integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

/// A string that is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not an amount of US dollars: write a decimal number such as \"3.0\" or \"0.25\", at most nine decimals"
)]
pub struct ParseMoneyError(String);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount given in billionths of a US dollar.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The amount in billionths of a US dollar.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// What `tokens` cost at this price per million tokens, rounded up to the next billionth:
    /// spending is never understated.
    #[must_use]
    pub fn for_tokens(self, tokens: u64) -> Self {
        let nanos = (u128::from(self.0) * u128::from(tokens)).div_ceil(1_000_000);
        Self(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// This amount less `other`, or nothing where `other` is more.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount as a float, for ratios and metrics only.
    #[allow(clippy::cast_precision_loss)]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl ops::Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl ops::AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, ops::Add::add)
    }
}

impl fmt::Display for Money {
    /// At least two decimals, at most nine, without needless zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (u128::from(self.0) / NANOS, u128::from(self.0) % NANOS);
        let digits = format!("{fraction:09}");
        let kept = digits.trim_end_matches('0');
        write!(f, "{whole}.{kept:0<2}")
    }
}

impl FromStr for Money {
    type Err = ParseMoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseMoneyError(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        whole
            .checked_mul(1_000_000_000)
            .and_then(|nanos| nanos.checked_add(fraction))
            .map(Self)
            .ok_or_else(bad)
    }
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Money {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Money".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 20, "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("3.0", "3.00")]
    #[case("0.25", "0.25")]
    #[case("0.000150", "0.00015")]
    #[case("12", "12.00")]
    #[case("0.000000001", "0.000000001")]
    fn reads_and_prints(#[case] text: &str, #[case] printed: &str) {
        assert_eq!(text.parse::<Money>().unwrap().to_string(), printed);
    }

    #[rstest]
    #[case("")]
    #[case("-1")]
    #[case("1.")]
    #[case(".5")]
    #[case("1e3")]
    #[case("0.0000000001")]
    #[case("99999999999999999999")]
    fn refuses_what_is_no_amount(#[case] text: &str) {
        assert!(text.parse::<Money>().is_err());
    }

    #[test]
    fn a_token_cost_is_rounded_up() {
        let price: Money = "0.15".parse().unwrap();
        assert_eq!(price.for_tokens(1).nanos(), 150);
        assert_eq!(Money::from_nanos(1).for_tokens(1).nanos(), 1);
        assert_eq!(price.for_tokens(1_000_000), price);
    }
}
