//! Messages over the runner's end of the connection.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::client::WorkbenchError;
use super::protocol::{CHUNK, Envelope, MAX_HEADER, MAX_PAYLOAD, Reply, Request};

/// What comes back for a request.
pub(super) type Answer = Result<(Reply, Vec<u8>), WorkbenchError>;

/// The connection as two halves, so that an order to stop can go out while a reply is waited for.
pub(super) struct Wire {
    read: Incoming,
    write: FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(MAX_HEADER)
            .new_codec();
        Self {
            read: Incoming(FramedRead::new(read, codec.clone())),
            write: FramedWrite::new(write, codec),
        }
    }

    /// What the server says first.
    pub(super) async fn greeting(&mut self) -> Answer {
        self.read.message(0).await
    }

    /// Sends a request and waits for the reply; if nobody waits for that any more, has the command stopped.
    pub(super) async fn exchange(
        &mut self,
        request: Request,
        payload: Vec<Vec<u8>>,
        most: u64,
        answer: &mut oneshot::Sender<Answer>,
    ) -> Answer {
        let Self { read, write } = self;
        send(write, request, payload).await?;
        let message = read.message(most);
        tokio::pin!(message);
        tokio::select! {
            reply = &mut message => return reply,
            () = answer.closed() => {}
        }
        send(write, Request::Stop, vec![]).await?;
        message.await
    }
}

async fn send(
    write: &mut FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
    body: Request,
    payload: Vec<Vec<u8>>,
) -> Result<(), WorkbenchError> {
    let lost = |error: std::io::Error| WorkbenchError::Lost(error.to_string());
    let size = payload.iter().map(|piece| piece.len() as u64).sum();
    let header = serde_json::to_vec(&Envelope {
        payload: size,
        body,
    })
    .map_err(|error| WorkbenchError::Protocol(error.to_string()))?;
    write.feed(Bytes::from(header)).await.map_err(lost)?;
    for piece in payload {
        let mut rest = Bytes::from(piece);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            write.feed(chunk).await.map_err(lost)?;
        }
    }
    SinkExt::<Bytes>::flush(write).await.map_err(lost)
}

struct Incoming(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

impl Incoming {
    /// Reads a message whose payload has at most so many bytes.
    async fn message(&mut self, most: u64) -> Answer {
        let header = self.frame().await?;
        let envelope: Envelope<Reply> = serde_json::from_slice(&header)
            .map_err(|error| WorkbenchError::Protocol(error.to_string()))?;
        if envelope.payload > most.min(MAX_PAYLOAD) {
            return Err(WorkbenchError::Protocol(format!(
                "a payload of {} bytes",
                envelope.payload
            )));
        }
        let mut payload = Vec::new();
        while (payload.len() as u64) < envelope.payload {
            let chunk = self.frame().await?;
            if chunk.is_empty() {
                return Err(WorkbenchError::Protocol("an empty frame".into()));
            }
            payload.extend_from_slice(&chunk);
        }
        if payload.len() as u64 > envelope.payload {
            return Err(WorkbenchError::Protocol(
                "a payload longer than announced".into(),
            ));
        }
        Ok((envelope.body, payload))
    }

    async fn frame(&mut self) -> Result<bytes::BytesMut, WorkbenchError> {
        match self.0.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(WorkbenchError::Protocol(error.to_string()))
            }
            Some(Err(error)) => Err(WorkbenchError::Lost(error.to_string())),
            None => Err(WorkbenchError::Lost("the other end closed it".into())),
        }
    }
}
