//! Opens a store by its URL: a folder, or a bucket of S3 or of what speaks its protocol.

use super::{Store, StoreError};
use crate::leader::Leadership;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
    client::{HttpClient, HttpConnector},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};
use std::{sync::Arc, time::Duration};
use url::Url;

/// Longest time to reach an object store, and of one request. With its repetitions a request stays within the time that
/// runners wait for the gateway.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(15);
const REPEAT_WITHIN: Duration = Duration::from_secs(20);
/// How often a request is repeated that a busy store turned away.
const REPEAT: usize = 6;

/// How a bucket is reached. Credentials are none of it: they are read from the environment only, as `AWS_ACCESS_KEY_ID`
/// and `AWS_SECRET_ACCESS_KEY`, or as the identity that the cloud gives to the pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct S3Options {
    /// URL of an object store other than Amazon's that speaks its protocol.
    #[arg(long, env = "SOPWITH_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "SOPWITH_S3_REGION")]
    pub s3_region: Option<String>,
    /// Asks for <endpoint>/<bucket> instead of <bucket>.<endpoint>.
    #[arg(long, env = "SOPWITH_S3_PATH_STYLE")]
    pub s3_path_style: bool,
    /// Speaks to the endpoint without TLS: evidence and credentials' signatures can be seen on the way.
    #[arg(long, env = "SOPWITH_S3_ALLOW_HTTP")]
    pub s3_allow_http: bool,
}

impl Store {
    /// Opens the store at `url`: `file:///…`, a folder that is made where it is not there, or `s3://bucket/prefix`.
    ///
    /// In a folder every write is on disk before it counts as done. Nothing is asked of a bucket yet.
    pub fn open(url: &str, s3: &S3Options) -> Result<Self, StoreError> {
        let parsed = Url::parse(url).map_err(|e| refused(url, e.to_string()))?;
        // Before anything that could show the URL.
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let mut shown = parsed.clone();
            let _ = shown.set_password(None);
            let _ = shown.set_username("");
            let why = "credentials do not belong into it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned();
            return Err(refused(shown.as_str(), why));
        }
        let (objects, versioned) = match parsed.scheme() {
            "file" => (folder(url, &parsed)?, false),
            "s3" => (bucket(url, &parsed, s3)?, true),
            scheme => {
                let why = format!("the scheme {scheme} is not supported yet");
                return Err(refused(url, why));
            }
        };
        Ok(Self {
            objects,
            versioned,
            url: url.into(),
            leadership: Leadership::always(),
        })
    }

    /// A store that keeps versions, as an object store does, for as long as it lives.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self {
            objects: Arc::new(object_store::memory::InMemory::new()),
            versioned: true,
            url: "memory:".into(),
            leadership: Leadership::always(),
        }
    }
}

fn folder(url: &str, parsed: &Url) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let folder = parsed
        .to_file_path()
        .map_err(|()| refused(url, "it is no absolute path of this machine".to_owned()))?;
    std::fs::create_dir_all(&folder).map_err(|e| refused(url, e.to_string()))?;
    let local = LocalFileSystem::new_with_prefix(folder)?
        .with_fsync(true)
        .with_automatic_cleanup(true);
    Ok(Arc::new(local))
}

fn bucket(url: &str, parsed: &Url, s3: &S3Options) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let name = parsed.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| refused(url, "it names no bucket".to_owned()))?;
    if parsed.query().is_some() || parsed.fragment().is_some() || parsed.port().is_some() {
        let why = "expected a bucket and a prefix only: how it is reached is said by --s3-endpoint and the like".to_owned();
        return Err(refused(url, why));
    }
    let prefix = Path::from_url_path(parsed.path()).map_err(|e| refused(url, e.to_string()))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_virtual_hosted_style_request(!s3.s3_path_style)
        .with_allow_http(s3.s3_allow_http)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                ..BackoffConfig::default()
            },
            max_retries: REPEAT,
            retry_timeout: REPEAT_WITHIN,
        })
        .with_http_connector(Connector {
            https_only: !s3.s3_allow_http,
        });
    if let Some(endpoint) = &s3.s3_endpoint {
        builder = builder.with_endpoint(checked(endpoint, s3)?);
    }
    if let Some(region) = &s3.s3_region {
        builder = builder.with_region(region);
    }
    let s3 = builder.build().map_err(|e| refused(url, e.to_string()))?;
    Ok(Arc::new(PrefixStore::new(s3, prefix)))
}

/// An endpoint that can be spoken to as it is allowed.
fn checked(endpoint: &str, s3: &S3Options) -> Result<String, StoreError> {
    let refuse = |why: &str| StoreError::Endpoint {
        endpoint: endpoint.to_owned(),
        why: why.to_owned(),
    };
    let parsed = Url::parse(endpoint).map_err(|e| refuse(&e.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(StoreError::Endpoint {
            endpoint: parsed.host_str().unwrap_or_default().to_owned(),
            why:
                "credentials do not belong into it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .to_owned(),
        });
    }
    match parsed.scheme() {
        "https" => {}
        "http" if s3.s3_allow_http => {}
        "http" => {
            return Err(refuse(
                "it is not encrypted: use https, or set --s3-allow-http",
            ));
        }
        _ => return Err(refuse("expected https://<host>")),
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

fn refused(url: &str, why: String) -> StoreError {
    StoreError::Url {
        url: url.to_owned(),
        why,
    }
}

/// Connects with the TLS provider of the whole process, which the crate's own connector would bring another of.
#[derive(Debug)]
struct Connector {
    https_only: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .https_only(self.https_only)
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        })?;
        Ok(HttpClient::new(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::no_url("/var/lib/sopwith", "relative URL without a base")]
    #[case::not_supported(
        "gs://bucket/prefix",
        "the scheme gs is not supported yet; use file:///<absolute path> or s3://<bucket>/<prefix>"
    )]
    #[case::no_bucket("s3:///prefix", "it names no bucket")]
    #[case::a_query("s3://bucket/prefix?region=x", "expected a bucket and a prefix only")]
    #[case::elsewhere("file://host/folder", "it is no absolute path of this machine")]
    fn a_url_that_cannot_be_opened_says_why(#[case] url: &str, #[case] why: &str) {
        let error = Store::open(url, &S3Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(url) && error.contains(why), "{error}");
    }

    #[rstest]
    #[case::plain("http://10.0.0.1:7070", false, Some("set --s3-allow-http"))]
    #[case::plain_and_allowed("http://10.0.0.1:7070", true, None)]
    #[case::encrypted("https://s3.example.com/", false, None)]
    #[case::no_url("10.0.0.1:7070", false, Some("10.0.0.1:7070"))]
    #[case::another_protocol("ftp://10.0.0.1", true, Some("expected https://<host>"))]
    fn an_endpoint_is_encrypted_unless_allowed_not_to_be(
        #[case] endpoint: &str,
        #[case] allow: bool,
        #[case] why: Option<&str>,
    ) {
        let options = S3Options {
            s3_endpoint: Some(endpoint.to_owned()),
            s3_allow_http: allow,
            ..S3Options::default()
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let opened = Store::open("s3://bucket/prefix", &options);
        match (opened, why) {
            (Ok(store), None) => assert_eq!(store.to_string(), "s3://bucket/prefix"),
            (Err(error), Some(why)) => assert!(error.to_string().contains(why), "{error}"),
            (opened, why) => panic!("{opened:?} {why:?}"),
        }
    }

    #[rstest]
    #[case("s3://AKIDEXAMPLE:c2VjcmV0@bucket/prefix", None)]
    #[case(
        "s3://bucket/prefix",
        Some("https://AKIDEXAMPLE:c2VjcmV0@s3.example.com")
    )]
    fn an_error_never_shows_credentials(#[case] url: &str, #[case] endpoint: Option<&str>) {
        let options = S3Options {
            s3_endpoint: endpoint.map(str::to_owned),
            ..S3Options::default()
        };
        let error = Store::open(url, &options).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("AWS_SECRET_ACCESS_KEY"), "{text}");
        assert!(
            !text.contains("c2VjcmV0") && !text.contains("AKID"),
            "{text}"
        );
    }
}
