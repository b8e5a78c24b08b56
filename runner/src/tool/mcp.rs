//! MCP servers by address, over streamable HTTP.
//!
//! A server is connected to when it is first needed. Its list of functions is taken once a connection: what a model is
//! shown is what the policy's digest was compared with.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use rmcp::{
    RoleClient,
    model::{CallToolRequestParams, CallToolResult, ContentBlock, PaginatedRequestParams, ResourceContents},
    service::{RunningService, ServiceError, serve_client},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{Digest, report::ToolStatus},
    status::FailureReason,
    tool_policy::{McpServer, Tool},
};
use tokio::sync::Mutex;

use super::{Called, Known, ToolError};
use crate::llm::transport::{Places, chain, client, file_of, read_key};

/// Most functions of a server.
const MAX_FUNCTIONS: usize = 1000;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 4 << 20;
/// Tries until a server counts as away, and the pause between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// A server, and the connection to it where there is one.
#[derive(Debug)]
pub(crate) struct Server {
    tool: Tool,
    places: Places,
    connection: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    service: RunningService<RoleClient, ()>,
    functions: BTreeMap<String, Listed>,
    /// Of the list of functions.
    digest: Digest,
    /// Of the credential that it was made with.
    credential: Option<Digest>,
}

/// A function as the server lists it.
#[derive(Debug, Clone, PartialEq)]
struct Listed {
    description: String,
    schema: Value,
}

impl Server {
    pub(crate) fn new(tool: &Tool, places: &Places) -> Self {
        Self {
            tool: tool.clone(),
            places: places.clone(),
            connection: Mutex::default(),
        }
    }

    /// A function, with the server's own documentation.
    pub(crate) async fn known(&self, function: &str, patience: Duration) -> Result<Known, ToolError> {
        let connection = self.connected(patience).await?;
        let listed = connection.functions.get(function).ok_or_else(|| {
            let names: Vec<&str> = connection.functions.keys().map(String::as_str).collect();
            self.error(
                FailureReason::PolicyDenied,
                format!(
                    "the server has no function {function:?}; it has: {}; mend includeFunctions of the policy",
                    names.join(", ")
                ),
            )
        })?;
        Ok(Known::new(
            &self.tool,
            Some(function),
            listed.description.clone(),
            listed.schema.clone(),
        ))
    }

    /// Calls a function whose arguments are an object.
    pub(crate) async fn call(
        &self,
        function: &str,
        arguments: &Value,
        patience: Duration,
    ) -> Called {
        let connection = match self.connected(patience).await {
            Ok(connection) => connection,
            Err(error) => return Called::not(ToolStatus::Failed, error.message),
        };
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let call = CallToolRequestParams::new(function.to_owned()).with_arguments(arguments);
        let called = tokio::time::timeout(patience, connection.service.call_tool(call)).await;
        let called = match called {
            Err(_) => {
                let why = format!("no result within {} s", patience.as_secs());
                Called::not(ToolStatus::Timeout, why)
            }
            Ok(Ok(result)) => told(&result),
            Ok(Err(error)) => {
                if !matches!(error, ServiceError::McpError(_)) {
                    // The next call connects anew.
                    self.connection.lock().await.take();
                }
                Called::not(ToolStatus::Failed, self.explained(&error, error.is_authorization_required()))
            }
        };
        Called {
            told: self.masked(&called.told),
            ..called
        }
    }

    /// The connection, made anew where there is none or where the credential was replaced.
    async fn connected(&self, patience: Duration) -> Result<Arc<Connection>, ToolError> {
        let mut connection = self.connection.lock().await;
        let credential = self.credential().map(|key| Digest::of(key.expose_secret()));
        if let Some(known) = connection
            .as_ref()
            .filter(|known| known.credential == credential && !known.service.is_closed())
        {
            return Ok(Arc::clone(known));
        }
        let mut tries = 0;
        loop {
            let made = tokio::time::timeout(patience, self.connect()).await;
            let error = match made {
                Ok(Ok(made)) => {
                    let made = Arc::new(made);
                    *connection = Some(Arc::clone(&made));
                    return Ok(made);
                }
                Ok(Err(error)) => error,
                Err(_) => self.error(
                    FailureReason::ProviderFailed,
                    format!("the server did not answer within {} s", patience.as_secs()),
                ),
            };
            tries += 1;
            if tries == TRIES || error.reason != FailureReason::ProviderFailed {
                return Err(error);
            }
            tracing::warn!(%error, "no connection to an MCP server");
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    async fn connect(&self) -> Result<Connection, ToolError> {
        let away = |why: String| self.error(FailureReason::ProviderFailed, why);
        let mcp = self.tool.mcp.clone().unwrap_or_default();
        let McpServer { url, ca_ref, .. } = mcp;
        let url = url.ok_or_else(|| away("has no address".into()))?;
        let http = client(&url, ca_ref.as_ref(), &self.places).map_err(away)?;
        let credential = self.credential();
        if credential.is_none() && self.tool.secret_ref.is_some() {
            return Err(away("the credential cannot be read from its Secret".into()));
        }
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .max_json_response_size(MAX_ANSWER)
            .max_sse_event_size(MAX_ANSWER);
        if let Some(key) = &credential {
            config = config.auth_header(key.expose_secret());
        }
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let service = serve_client((), transport).await.map_err(|error| {
            away(self.masked(&self.explained(&error, error.is_authorization_required())))
        })?;
        let (digest, functions) = self.listed(&service).await?;
        Ok(Connection {
            service,
            functions,
            digest,
            credential: credential.map(|key| Digest::of(key.expose_secret())),
        })
    }

    /// The server's functions, where they are those that were approved.
    async fn listed(
        &self,
        service: &RunningService<RoleClient, ()>,
    ) -> Result<(Digest, BTreeMap<String, Listed>), ToolError> {
        let mut tools = Vec::new();
        let mut page = None;
        loop {
            let asked = service.list_tools(page).await;
            let listed = asked.map_err(|error| {
                let why = self.masked(&self.explained(&error, error.is_authorization_required()));
                self.error(FailureReason::ProviderFailed, why)
            })?;
            tools.extend(listed.tools);
            let next = listed.next_cursor;
            if tools.len() > MAX_FUNCTIONS {
                let why = format!("the server lists more than {MAX_FUNCTIONS} functions");
                return Err(self.error(FailureReason::ProviderFailed, why));
            }
            match next {
                None => break,
                cursor => page = Some(PaginatedRequestParams::default().with_cursor(cursor)),
            }
        }
        let found = list_digest(&tools);
        tracing::info!(tool = self.tool.name, digest = %found, "an MCP server lists its functions");
        if let Some(pinned) = self.tool.list_digest.as_deref().filter(|pinned| *pinned != found.as_str()) {
            return Err(self.error(
                FailureReason::PolicyDenied,
                format!(
                    "the server's list of functions is not the one that was approved: it has the digest {found}, the policy allows {pinned} (listDigest); review the list, then write its digest into the policy"
                ),
            ));
        }
        let functions = tools.into_iter().map(|tool| {
            let description = tool.description.map(|text| text.into_owned());
            let listed = Listed {
                description: description.or(tool.title).unwrap_or_default(),
                schema: Value::Object(tool.input_schema.as_ref().clone()),
            };
            (tool.name.into_owned(), listed)
        });
        Ok((found, functions.collect()))
    }

    fn credential(&self) -> Option<SecretString> {
        let path: PathBuf = file_of(&self.places.secrets, self.tool.secret_ref.as_ref()?);
        read_key(&path)
    }

    fn masked(&self, text: &str) -> String {
        self.credential().map_or_else(
            || text.to_owned(),
            |key| text.replace(key.expose_secret(), "[masked]"),
        )
    }

    /// An error with what people can do about it.
    fn explained(&self, error: &dyn std::error::Error, credential: bool) -> String {
        let why = chain(error);
        match (&self.tool.secret_ref, credential) {
            (Some(key), true) => format!(
                "{why}; check the key `{}` of the Secret {} and what it may use",
                key.key, key.name
            ),
            (None, true) => format!("{why}; no credential was sent: set secretRef"),
            (_, false) => why,
        }
    }

    fn error(&self, reason: FailureReason, message: String) -> ToolError {
        ToolError {
            tool: self.tool.name.clone(),
            reason,
            message,
        }
    }
}

/// A server's functions with their descriptions, and the digest of the list, whatever the policy pins.
pub async fn functions(
    tool: &Tool,
    places: &Places,
) -> Result<(Digest, BTreeMap<String, String>), ToolError> {
    let unpinned = Tool {
        list_digest: None,
        ..tool.clone()
    };
    let server = Server::new(&unpinned, places);
    let connection = server.connected(super::timeout(tool)).await?;
    let functions = connection.functions.iter();
    let functions = functions.map(|(name, listed)| (name.clone(), listed.description.clone()));
    Ok((connection.digest.clone(), functions.collect()))
}

/// Digest of a list of functions: of everything that a model or a caller goes by, in the order of their names.
fn list_digest(tools: &[rmcp::model::Tool]) -> Digest {
    let list: BTreeMap<&str, Value> = tools
        .iter()
        .map(|tool| {
            let told = json!({
                "title": tool.title,
                "description": tool.description,
                "inputSchema": tool.input_schema,
                "outputSchema": tool.output_schema,
                "annotations": tool.annotations,
            });
            (&*tool.name, told)
        })
        .collect();
    Digest::of_json(&list)
}

/// What a result says, as text.
fn told(result: &CallToolResult) -> Called {
    let mut parts: Vec<String> = result.content.iter().map(part).collect();
    if parts.is_empty()
        && let Some(value) = &result.structured_content
    {
        parts.push(serde_json::to_string_pretty(value).unwrap_or_default());
    }
    let text = parts.join("\n");
    if result.is_error == Some(true) {
        let why = if text.is_empty() { "the tool failed without a word".to_owned() } else { text };
        return Called::not(ToolStatus::Failed, why);
    }
    Called::ok(if text.is_empty() { "done, without a word".to_owned() } else { text })
}

/// A part of a result. What is no text is named only.
fn part(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => format!("[an image, {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}]", audio.mime_type),
        ContentBlock::Resource(resource) => match &resource.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            _ => "[a resource that is no text]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("[{}: {}]", link.name, link.uri),
        _ => "[something that is no text]".to_owned(),
    }
}
