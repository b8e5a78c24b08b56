//! What a provider says when it does not answer. Pure.

use serde_json::Value;

/// Characters of an error that are shown.
const SHOWN: usize = 500;

/// What kind of refusal it is, as far as it matters for what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Question and answer do not fit into the model's window.
    TooLong,
    /// The schema of the answer, or that there is one, is not taken.
    Schema,
    /// A content filter withheld the question.
    Filtered,
    /// The account has no money left: waiting does not help.
    Quota,
    /// The model wrote a call of a function that the provider could not read; it may do better.
    Call,
    /// The model calls no functions.
    NoCalls,
    /// Something else.
    Other,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// The provider's words, shortened, what looks like a key masked.
    pub message: String,
}

impl Problem {
    /// What an answer with an HTTP status other than 200 says.
    pub fn of(status: u16, text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        let error = value.get("error").unwrap_or(&value);
        Self {
            kind: kind(status, error),
            message: message_of(error),
        }
    }
}

fn kind(status: u16, error: &Value) -> Kind {
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let (code, sort) = (field("code"), field("type"));
    let inner = error.pointer("/innererror/code").and_then(Value::as_str);
    let message = message(error).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match status {
        429 if [code, sort].contains(&"insufficient_quota") => Kind::Quota,
        // Providers without a code of their own have only their words.
        413 => Kind::TooLong,
        400 | 422
            if code == "context_length_exceeded"
                || sort == "exceed_context_size_error"
                || says(&[
                    "context length",
                    "context window",
                    "contextwindowexceeded",
                    "context size",
                    "prompt is too long",
                    "input is too long",
                    "reduce the length of the messages",
                ]) =>
        {
            Kind::TooLong
        }
        400 | 403
            if ["content_filter", "content_policy_violation"].contains(&code)
                || inner == Some("ResponsibleAIPolicyViolation") =>
        {
            Kind::Filtered
        }
        400 if code == "tool_use_failed" => Kind::Call,
        400 | 404 | 422
            if says(&[
                "not support tools",
                "not support tool use",
                "not support tool calling",
            ]) =>
        {
            Kind::NoCalls
        }
        400 | 422 if field("param").starts_with("tools") => Kind::Other,
        400 | 422
            if field("param").starts_with("response_format")
                || code == "json_validate_failed"
                || says(&[
                    "response_format",
                    "response format",
                    "json_schema",
                    "structured output",
                    "invalid format",
                    "invalid schema",
                    "grammar",
                ]) =>
        {
            Kind::Schema
        }
        _ => Kind::Other,
    }
}

fn message(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str);
    message
        .or(error.as_str())
        .map_or_else(|| error.to_string(), str::to_owned)
}

/// The words of an error in JSON, for people.
pub(super) fn message_of(error: &Value) -> String {
    shown(&message(error))
}

/// A provider repeats a part of a wrong key in its error: whatever looks like one is masked.
fn shown(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if bare.starts_with("sk-") || bare.starts_with("gsk_") || bare.contains("****") {
            "[masked]"
        } else {
            word
        }
    });
    words
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies as the providers send them.
    #[test]
    fn refusals_are_told_apart() {
        let table = [
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                Kind::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"litellm.ContextWindowExceededError: litellm.BadRequestError: this is a mock context window exceeded error","type":"invalid_request_error","param":null,"code":"400"}}"#,
                Kind::TooLong,
            ),
            (
                400,
                r#"{"error":"the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context length in settings, or use a model with a longer context length"}"#,
                Kind::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
                Kind::TooLong,
            ),
            (
                413,
                r#"{"error":{"message":"Request too large for model","type":"tokens","code":"rate_limit_exceeded"}}"#,
                Kind::TooLong,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid schema for response_format 'prd': In context=(), 'additionalProperties' is required to be supplied and to be false.","type":"invalid_request_error","param":"response_format","code":null}}"#,
                Kind::Schema,
            ),
            (
                400,
                r#"{"error":{"message":"This model does not support response format `json_schema`.","type":"invalid_request_error"}}"#,
                Kind::Schema,
            ),
            (
                400,
                r#"{"error":{"message":"Failed to generate JSON. Please adjust your prompt.","type":"invalid_request_error","code":"json_validate_failed","failed_generation":"{"}}"#,
                Kind::Schema,
            ),
            (
                400,
                r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                Kind::Filtered,
            ),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
                Kind::Quota,
            ),
            (
                429,
                r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#,
                Kind::Other,
            ),
            (
                400,
                r#"{"error":{"message":"Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<function=read_file"}}"#,
                Kind::Call,
            ),
            (
                400,
                r#"{"error":"registry.ollama.ai/library/gemma:latest does not support tools"}"#,
                Kind::NoCalls,
            ),
            (
                400,
                r#"{"error":{"message":"Invalid schema for function 'search': schema must be a JSON Schema of 'type: \"object\"'.","type":"invalid_request_error","param":"tools[0].function.parameters","code":"invalid_function_parameters"}}"#,
                Kind::Other,
            ),
            (404, r#"{"error":"model 'llama9' not found"}"#, Kind::Other),
            (
                404,
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
                Kind::Other,
            ),
            (502, "<html>Bad gateway</html>", Kind::Other),
            (500, "", Kind::Other),
        ];
        for (status, text, expected) in table {
            assert_eq!(Problem::of(status, text).kind, expected, "{text}");
        }
    }

    #[test]
    fn words_are_short_and_without_keys() {
        let told = |text: &str| Problem::of(401, text).message;
        assert_eq!(
            told(
                r#"{"error":{"message":"Incorrect API key provided: sk-abc****xyz. You can find it."}}"#
            ),
            "Incorrect API key provided: [masked] You can find it."
        );
        assert_eq!(
            told(r#"{"error":"model 'x' not found"}"#),
            "model 'x' not found"
        );
        assert_eq!(told(r#"{"detail":"no"}"#), r#"{"detail":"no"}"#);
        assert_eq!(told(&"x".repeat(2000)).len(), SHOWN);
        assert_eq!(told(""), "");
    }
}
