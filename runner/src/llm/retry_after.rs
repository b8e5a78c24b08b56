//! How long an endpoint asks to wait. Pure.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// `Retry-After` in seconds or as a date (RFC 9110), or in milliseconds as `OpenAI` and Azure add it, which is finer.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let milliseconds = text("retry-after-ms").and_then(|text| text.trim().parse().ok());
    if let Some(milliseconds) = milliseconds {
        return Some(Duration::from_millis(milliseconds));
    }
    let text = text(RETRY_AFTER.as_str())?.trim();
    // Some providers give fractions of seconds.
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_understood() {
        let now = "2026-11-24T03:00:00Z".parse().unwrap();
        let table: [(&str, &str, Option<u64>); 8] = [
            ("retry-after", "20", Some(20_000)),
            ("retry-after", " 0 ", Some(0)),
            ("retry-after", "1.5", Some(1500)),
            ("retry-after", "Tue, 24 Nov 2026 03:00:30 GMT", Some(30_000)),
            ("retry-after", "Tue, 24 Nov 2026 02:00:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-1", None),
            ("retry-after-ms", "250", Some(250)),
        ];
        for (name, value, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(
                retry_after(&headers, now),
                expected.map(Duration::from_millis),
                "{name}: {value}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
