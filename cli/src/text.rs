//! Numbers, times and digests as people read them. Deciding.

use jiff::Timestamp;
use sopwith_crds::{Money, status::Usage};

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// US dollars with four decimals, rounded up: what was spent is never understated.
pub(crate) fn dollars(money: Money) -> String {
    let tenths_of_cents = money.nanos().div_ceil(100_000);
    format!(
        "${}.{:04}",
        tenths_of_cents / 10_000,
        tenths_of_cents % 10_000
    )
}

/// The whole seconds between two times as `42s`, `3m07s`, `1h02m`; nothing where one is missing.
pub(crate) fn elapsed(from: Option<Timestamp>, to: Option<Timestamp>) -> String {
    let (Some(from), Some(to)) = (from, to) else {
        return String::new();
    };
    let seconds = (to.as_second() - from.as_second()).max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// The first 12 digits of a digest, enough to compare by eye.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!(
        "{} {what}{}",
        grouped(number as u64),
        if number == 1 { "" } else { "s" }
    )
}

/// Bytes as `812 B`, `3.4 KiB`, `1.2 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = KIB * KIB;
    match number {
        0..KIB => format!("{number} B"),
        KIB..MIB => format!("{}.{} KiB", number / KIB, number % KIB * 10 / KIB),
        _ => format!("{}.{} MiB", number / MIB, number % MIB * 10 / MIB),
    }
}

/// What was used, in one phrase.
pub(crate) fn usage(usage: &Usage) -> String {
    let failed = |errors| match errors {
        0 => String::new(),
        n => format!(" ({} failed)", grouped(n)),
    };
    let counted = |number, what| count(usize::try_from(number).unwrap_or(usize::MAX), what);
    let tools = match usage.tool_calls {
        0 => String::new(),
        calls => format!(
            ", {}{}",
            counted(calls, "tool call"),
            failed(usage.tool_failures)
        ),
    };
    format!(
        "{}{}, {} tokens in, {} out, {}{tools}",
        counted(usage.llm_requests, "request"),
        failed(usage.llm_errors),
        grouped(usage.input_tokens),
        grouped(usage.output_tokens),
        dollars(usage.cost)
    )
}

/// Text from the cluster on one line of at most `most` characters, without control characters: some of it
/// was written by models and must not steer a terminal.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut words = String::new();
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
    {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    if words.chars().count() <= most {
        return words;
    }
    let mut cut: String = words.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0")]
    #[case(999, "999")]
    #[case(1000, "1,000")]
    #[case(1_234_567, "1,234,567")]
    fn thousands_are_grouped(#[case] number: u64, #[case] text: &str) {
        assert_eq!(grouped(number), text);
    }

    #[rstest]
    #[case("0", "$0.0000")]
    #[case("0.00001", "$0.0001")]
    #[case("3.0", "$3.0000")]
    #[case("0.42115", "$0.4212")]
    fn money_is_rounded_up(#[case] money: &str, #[case] text: &str) {
        assert_eq!(dollars(money.parse().unwrap()), text);
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(59, "59s")]
    #[case(187, "3m07s")]
    #[case(3720, "1h02m")]
    #[case(-3, "0s")]
    fn spans_are_short(#[case] seconds: i64, #[case] text: &str) {
        let from = Timestamp::from_second(1000).unwrap();
        let to = Timestamp::from_second(1000 + seconds).unwrap();
        assert_eq!(elapsed(Some(from), Some(to)), text);
    }

    #[rstest]
    #[case(812, "812 B")]
    #[case(3500, "3.4 KiB")]
    #[case(1_300_000, "1.2 MiB")]
    fn sizes_have_units(#[case] size: u64, #[case] text: &str) {
        assert_eq!(bytes(size), text);
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(one_line("red \u{1b}[31m\n\ttext", 80), "red [31m text");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }
}
