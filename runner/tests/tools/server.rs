//! An MCP server as others run them: over HTTP, with a credential.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// What a server has and was asked.
#[derive(Default)]
pub(crate) struct Seen {
    /// Names and descriptions of its functions.
    pub(crate) functions: Vec<(String, String)>,
    /// The functions that were called, with their arguments.
    pub(crate) calls: Vec<(String, Value)>,
    /// The headers with which requests came that were let in.
    pub(crate) credentials: Vec<String>,
    /// The credential that it takes.
    pub(crate) key: String,
}

#[derive(Clone)]
struct Tracker(Arc<Mutex<Seen>>);

impl ServerHandler for Tracker {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // In pages of two.
        let from: usize = page
            .and_then(|page| page.cursor)
            .map_or(0, |cursor| cursor.parse().unwrap());
        let functions = self.0.lock().unwrap().functions.clone();
        let schema = json!({"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}});
        let tools = functions.iter().skip(from).take(2).map(|(name, description)| {
            Tool::new(name.clone(), description.clone(), schema.as_object().unwrap().clone())
        });
        let mut listed = ListToolsResult::default();
        listed.tools = tools.collect();
        listed.next_cursor = (from + 2 < functions.len()).then(|| (from + 2).to_string());
        Ok(listed)
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(call.arguments.unwrap_or_default());
        let key = {
            let mut seen = self.0.lock().unwrap();
            seen.calls.push((call.name.to_string(), arguments.clone()));
            seen.key.clone()
        };
        let text = |text: String| vec![ContentBlock::text(text)];
        let number = &arguments["number"];
        Ok(match &*call.name {
            "get_issue" => CallToolResult::success(text(format!("issue {number}: it is red"))),
            "fail" => CallToolResult::error(text(format!("no issue {number}"))),
            "echo_key" => CallToolResult::success(text(format!("your key is {key}"))),
            "sleep" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                CallToolResult::success(text("late".into()))
            }
            "data" => {
                let mut result = CallToolResult::success(Vec::new());
                result.structured_content = Some(json!({"number": number}));
                result
            }
            other => return Err(ErrorData::invalid_params(format!("no function {other}"), None)),
        }
        .into())
    }
}

/// A running server; it ends with it.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(functions: &[&str]) -> Self {
        let described = |name: &&str| ((*name).to_owned(), format!("Does {name}."));
        let seen = Seen {
            functions: functions.iter().map(described).collect(),
            key: "very-secret-0123456789".to_owned(),
            ..Seen::default()
        };
        Self::serve(Arc::new(Mutex::new(seen))).await
    }

    async fn serve(seen: Arc<Mutex<Seen>>) -> Self {
        let tracker = Tracker(Arc::clone(&seen));
        let service = StreamableHttpService::new(
            move || Ok(tracker.clone()),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let guard = Arc::clone(&seen);
        let check = move |request: Request, next: Next| {
            let guard = Arc::clone(&guard);
            async move { let_in(&guard, request, next).await }
        };
        let router = Router::new().nest_service("/mcp", service).layer(from_fn(check));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }
}

/// Lets those in who have the key.
async fn let_in(seen: &Mutex<Seen>, request: Request, next: Next) -> Response {
    let given = request.headers().get("authorization");
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    {
        let mut seen = seen.lock().unwrap();
        if given != format!("Bearer {}", seen.key) {
            let challenge = [("www-authenticate", "Bearer")];
            return (StatusCode::UNAUTHORIZED, challenge, "no").into_response();
        }
        seen.credentials.push(given);
    }
    next.run(request).await
}
