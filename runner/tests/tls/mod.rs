//! The least HTTP server over TLS that tests need: one request a connection, answers from a function.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, rustls};

/// A request.
#[allow(dead_code, reason = "not every test looks at every part")]
pub(crate) struct Call {
    /// Method and path: `GET /x`.
    pub(crate) line: String,
    /// The header lines in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// An answer.
pub(crate) struct Answer {
    status: u16,
    kind: String,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, kind: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            body,
        }
    }
}

/// Serves; gives its address and the certificate to check it against.
pub(crate) async fn serve(
    answer: impl Fn(Call) -> Answer + Send + Sync + 'static,
) -> (String, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let Some(call) = request(&mut stream).await else {
                    return;
                };
                let Answer { status, kind, body } = answer(call);
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).await;
                // In small pieces: whoever reads must put together what belongs together.
                for piece in body.chunks(7) {
                    let _ = stream.write_all(piece).await;
                    let _ = stream.flush().await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (format!("https://localhost:{port}"), made.cert.pem())
}

async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Call> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .unwrap_or(0);
            if bytes.len() >= head.len() + 4 + length {
                let line = head
                    .lines()
                    .next()?
                    .trim_end_matches(" HTTP/1.1")
                    .to_owned();
                return Some(Call {
                    line,
                    body: bytes.split_off(head.len() + 4),
                    head: lower,
                });
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
