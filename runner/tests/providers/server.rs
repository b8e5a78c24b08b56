//! A server that gives scripted answers to the byte, and remembers what it was asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `POST /v1/chat/completions`.
    pub(crate) line: String,
    /// The header lines, names in lower case.
    pub(crate) headers: Vec<String>,
    /// The body.
    pub(crate) body: Value,
}

/// How an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Whole,
    /// The connection is closed in the middle.
    Cut,
    /// Nothing more comes, the connection stays.
    Silence,
    /// The last piece comes again and again, without an end.
    Drip,
}

/// A scripted answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<String>,
    end: End,
    /// Whether not even the head comes.
    mute: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, kind: &str, pieces: &[&str]) -> Self {
        Self {
            status,
            headers: vec![("content-type".into(), kind.into())],
            pieces: pieces.iter().map(ToString::to_string).collect(),
            end: End::Whole,
            mute: false,
        }
    }

    /// An error in JSON.
    pub(crate) fn error(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", &[body])
    }

    /// Nothing at all.
    pub(crate) fn mute() -> Self {
        Self {
            mute: true,
            ..Self::new(200, "", &[])
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// A server under way.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    /// Certificate to check it against, where it speaks TLS.
    pub(crate) certificate: Option<String>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    /// Answers in turn, with the last answer from then on.
    pub(crate) async fn start(replies: &[Reply]) -> Self {
        Self::listen(replies, None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(replies: &[Reply]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut server = Self::listen(replies, Some(acceptor)).await;
        server.certificate = Some(made.cert.pem());
        server
    }

    async fn listen(replies: &[Reply], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = match tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (replies, seen) = (replies.to_vec(), Arc::clone(&calls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (replies, seen, tls) = (replies.clone(), Arc::clone(&seen), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &replies, &seen).await,
                            Err(_) => None,
                        },
                        None => answer(stream, &replies, &seen).await,
                    }
                });
            }
        });
        Self {
            address,
            certificate: None,
            calls,
        }
    }

    /// What it was asked.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

/// Answers one request; ends early when whoever asked goes away.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    replies: &[Reply],
    seen: &Mutex<Vec<Call>>,
) -> Option<()> {
    let call = request(&mut stream).await?;
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(call);
        seen.len() - 1
    };
    let reply = &replies[index.min(replies.len() - 1)];
    if reply.mute {
        std::future::pending::<()>().await;
    }
    let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("transfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    for piece in &reply.pieces {
        chunk(&mut stream, piece).await?;
    }
    match reply.end {
        End::Whole => stream.write_all(b"0\r\n\r\n").await.ok()?,
        End::Cut => {}
        End::Silence => std::future::pending().await,
        End::Drip => {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            loop {
                ticks.tick().await;
                chunk(&mut stream, reply.pieces.last()?).await?;
            }
        }
    }
    stream.shutdown().await.ok()
}

async fn chunk(stream: &mut (impl AsyncWrite + Unpin), piece: &str) -> Option<()> {
    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
    stream.write_all(chunk.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Call> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let headers: Vec<String> = lines
                .map(|line| {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    format!("{}:{value}", name.to_lowercase())
                })
                .collect();
            let length = headers
                .iter()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                let body = serde_json::from_str(body).unwrap_or_default();
                return Some(Call {
                    line,
                    headers,
                    body,
                });
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
