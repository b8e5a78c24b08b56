//! Where a model answers and how one proves who asks, by provider. Pure.

use reqwest::Url;
use sopwith_crds::tool_policy::{Endpoint, Model, Provider};

/// Where OpenAI itself answers.
const OPENAI: &str = "https://api.openai.com/v1";
/// Where Groq itself answers.
const GROQ: &str = "https://api.groq.com/openai/v1";

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY`, as Azure has it.
    ApiKey,
}

/// How a provider takes keys.
pub const fn auth(provider: Provider) -> Auth {
    match provider {
        Provider::Azure => Auth::ApiKey,
        Provider::Openai | Provider::Groq | Provider::Ollama | Provider::Replay => Auth::Bearer,
    }
}

/// The address of a model's chat, or what is wrong with the endpoint.
///
/// Azure has two: with a dated `apiVersion` the deployment is part of the path; without one, or with `preview`, it is
/// the v1 path, where the deployment stands in the body.
pub fn address(endpoint: &Endpoint, model: &Model) -> Result<Url, String> {
    let own = endpoint.base_url.as_deref();
    let needed = || {
        own.ok_or_else(|| {
            format!(
                "baseUrl is not set, and provider {} has no public address",
                endpoint.provider.as_str()
            )
        })
    };
    let (base, path): (&str, &[&str]) = match endpoint.provider {
        Provider::Openai => (own.unwrap_or(OPENAI), &["chat", "completions"]),
        Provider::Groq => (own.unwrap_or(GROQ), &["chat", "completions"]),
        Provider::Ollama => (needed()?, &["api", "chat"]),
        Provider::Azure if dated(endpoint) => (
            needed()?,
            &[
                "openai",
                "deployments",
                deployment(model),
                "chat",
                "completions",
            ],
        ),
        Provider::Azure => (needed()?, &["openai", "v1", "chat", "completions"]),
        Provider::Replay => return Err("provider replay has no address".into()),
    };
    let mut url = Url::parse(base).map_err(|error| format!("baseUrl is no address: {error}"))?;
    url.path_segments_mut()
        .map_err(|()| "baseUrl is no address: it cannot have a path".to_owned())?
        .pop_if_empty()
        .extend(path);
    if let Some(version) = endpoint
        .api_version
        .as_deref()
        .filter(|_| endpoint.provider == Provider::Azure)
    {
        url.query_pairs_mut().append_pair("api-version", version);
    }
    Ok(url)
}

/// Whether an Azure endpoint is asked by the paths of its deployments.
fn dated(endpoint: &Endpoint) -> bool {
    endpoint
        .api_version
        .as_deref()
        .is_some_and(|version| version != "preview")
}

/// The name under which Azure serves a model.
pub fn deployment(model: &Model) -> &str {
    model.deployment.as_deref().unwrap_or(&model.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_paths() {
        use Provider::{Azure, Groq, Ollama, Openai};
        let table = [
            (
                Openai,
                None,
                None,
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                Openai,
                Some("http://vllm:8000/v1/"),
                None,
                "http://vllm:8000/v1/chat/completions",
            ),
            (
                Groq,
                None,
                None,
                "https://api.groq.com/openai/v1/chat/completions",
            ),
            (
                Ollama,
                Some("http://ollama:11434"),
                None,
                "http://ollama:11434/api/chat",
            ),
            (
                Ollama,
                Some("http://gate/ollama/"),
                None,
                "http://gate/ollama/api/chat",
            ),
            (
                Azure,
                Some("https://r.openai.azure.com"),
                None,
                "https://r.openai.azure.com/openai/v1/chat/completions",
            ),
            (
                Azure,
                Some("https://r.openai.azure.com/"),
                Some("preview"),
                "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
            ),
            (
                Azure,
                Some("https://r.openai.azure.com"),
                Some("2024-10-21"),
                "https://r.openai.azure.com/openai/deployments/our%20gpt/chat/completions?api-version=2024-10-21",
            ),
        ];
        let model = Model {
            name: "gpt".into(),
            deployment: Some("our gpt".into()),
            ..Model::default()
        };
        for (provider, base, version, expected) in table {
            let endpoint = Endpoint {
                provider,
                base_url: base.map(str::to_owned),
                api_version: version.map(str::to_owned),
                ..Endpoint::default()
            };
            assert_eq!(
                address(&endpoint, &model).map(String::from),
                Ok(expected.to_owned())
            );
        }
    }

    #[test]
    fn an_endpoint_without_an_address_says_so() {
        for provider in [Provider::Azure, Provider::Ollama] {
            let endpoint = Endpoint {
                provider,
                ..Endpoint::default()
            };
            assert!(
                address(&endpoint, &Model::default())
                    .unwrap_err()
                    .contains("baseUrl is not set")
            );
        }
    }
}
