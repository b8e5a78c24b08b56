//! Answers from bytes as they come, bounded in time and size.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use sse_stream::SseByteStream;

use super::{Answer, Assembly, MAX_ANSWER_BYTES, Protocol, ReadError, assembly, problem::Problem};
use crate::llm::transport::RawAnswer;

/// Most bytes of an answer on the wire that comes in one piece, and of a line of one that does not.
const MAX_WIRE_BYTES: usize = MAX_ANSWER_BYTES * 2;
/// Most bytes of an error that are read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// Reads a good answer, in pieces or whole. `idle` is the longest wait for the next piece.
pub async fn read(raw: RawAnswer, protocol: Protocol, idle: Duration) -> Result<Answer, ReadError> {
    let mut assembly = assembly(protocol);
    let kind = raw.content_type.split(';').next().unwrap_or_default();
    match kind.trim() {
        "text/event-stream" => events(raw, assembly.as_mut(), idle).await?,
        "application/x-ndjson" => lines(raw, assembly.as_mut(), idle).await?,
        _ => assembly.event(&text(raw, idle, MAX_WIRE_BYTES).await?)?,
    }
    assembly.end()
}

async fn events(
    raw: RawAnswer,
    assembly: &mut (dyn Assembly + Send),
    idle: Duration,
) -> Result<(), ReadError> {
    let mut events = SseByteStream::new(raw.body);
    while !assembly.done()
        && let Some(event) = within(idle, events.next()).await?
    {
        let event = event.map_err(|error| ReadError::Cut(error.to_string()))?;
        if let Some(data) = event.data.filter(|data| !data.is_empty()) {
            assembly.event(&data)?;
        }
    }
    Ok(())
}

async fn lines(
    raw: RawAnswer,
    assembly: &mut (dyn Assembly + Send),
    idle: Duration,
) -> Result<(), ReadError> {
    let (mut rest, mut body) = (Vec::new(), raw.body);
    while !assembly.done()
        && let Some(piece) = next(&mut body, idle).await?
    {
        let mut parts = piece.split(|byte| *byte == b'\n');
        // What stands behind the last line end is the beginning of a line.
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            rest.extend_from_slice(part);
            let line = String::from_utf8_lossy(&rest);
            if !line.trim().is_empty() {
                assembly.event(&line)?;
            }
            rest.clear();
        }
        rest.extend_from_slice(last);
        if rest.len() > MAX_WIRE_BYTES {
            return Err(ReadError::Form(format!(
                "a line of more than {MAX_WIRE_BYTES} bytes"
            )));
        }
    }
    // The last line need not have an end; half a line is no line, and the answer has no end mark.
    match String::from_utf8(rest) {
        Ok(line) if serde_json::from_str::<serde_json::Value>(&line).is_ok() => {
            assembly.event(&line)
        }
        _ => Ok(()),
    }
}

/// What a refusing answer says, bounded.
pub async fn problem(raw: RawAnswer, idle: Duration) -> Problem {
    let status = raw.status;
    let text = text(raw, idle, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    Problem::of(status, &text)
}

async fn text(raw: RawAnswer, idle: Duration, most: usize) -> Result<String, ReadError> {
    let (mut bytes, mut body) = (Vec::new(), raw.body);
    while bytes.len() < most
        && let Some(piece) = next(&mut body, idle).await?
    {
        bytes.extend_from_slice(&piece[..piece.len().min(most - bytes.len())]);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

type Body = BoxStream<'static, Result<bytes::Bytes, crate::llm::transport::TransportError>>;

async fn next(body: &mut Body, idle: Duration) -> Result<Option<bytes::Bytes>, ReadError> {
    let piece = within(idle, body.next()).await?;
    piece
        .transpose()
        .map_err(|error| ReadError::Cut(error.to_string()))
}

async fn within<T>(idle: Duration, work: impl Future<Output = T>) -> Result<T, ReadError> {
    tokio::time::timeout(idle, work)
        .await
        .map_err(|_| ReadError::Idle(idle))
}
