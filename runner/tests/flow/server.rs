//! A model over plain HTTP whose answers come from a function of the question, and which can be told to say nothing more.

use std::sync::Arc;

use serde_json::Value;
use sopwith_crds::contract::cassette::{Response, TokenUsage};
use sopwith_runner::llm::replay::wire;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What a function makes of the text of a question; none: no answer comes, ever.
pub(crate) type Model = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Serves; gives the address. Connections are kept as long as who asks keeps them.
pub(crate) async fn serve(model: Model) -> String {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(converse(stream, Arc::clone(&model)));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, model: Model) {
    let mut bytes = Vec::new();
    while let Some(body) = request(&mut stream, &mut bytes).await {
        let question: Value = serde_json::from_slice(&body).unwrap();
        let messages = question["messages"].as_array().unwrap();
        let asked: Vec<&str> = messages
            .iter()
            .filter(|message| message["role"] != "system")
            .filter_map(|message| message["content"].as_str())
            .collect();
        let Some(content) = model(&asked.join("\n")) else {
            return std::future::pending().await;
        };
        let (kind, body) = wire(&Response {
            status: 200,
            content: Some(content),
            usage: Some(TokenUsage {
                prompt_tokens: 100,
                completion_tokens: 10,
                ..TokenUsage::default()
            }),
            ..Response::default()
        });
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = [head.into_bytes(), body].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The body of the next request; what follows it stays in `bytes`.
async fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                let rest = bytes.split_off(end + 4 + length);
                let body = std::mem::replace(bytes, rest).split_off(end + 4);
                return Some(body);
            }
        }
        if stream.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
