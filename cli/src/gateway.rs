//! The gateway, reached through a port-forward. TLS is spoken end to end with the certificate authority that the
//! run's plan names, or the gateway's EndpointSlice where there is no run: what is between the API server and the gateway is
//! not trusted.

use crate::cluster::{self, Cluster};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use sopwith_crds::{
    AUTHORITY_ANNOTATION, GATEWAY_AUDIENCE,
    contract::{
        Digest,
        report::{MAX_BLOB_BYTES, Problem},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The same where a project is sent.
const SENT_WITHIN: Duration = Duration::from_secs(600);
/// Life of the token, the least that the API server gives.
const TOKEN_SECONDS: i64 = 600;

/// Why the gateway did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused something on the way.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// No pod serves the gateway.
    #[error(
        "no pod is ready behind Service {service} in namespace {namespace}; see kubectl get pods -n {namespace}, or name the operator's namespace with --operator-namespace"
    )]
    NoPod {
        /// The Service.
        service: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// No token for the gateway.
    #[error(
        "ServiceAccount {account} in namespace {namespace} gave no token: {why}; ask for the Role {account}-token there, or use a kubeconfig with a bearer token"
    )]
    NoToken {
        /// The ServiceAccount.
        account: String,
        /// Its namespace.
        namespace: String,
        /// Why.
        why: String,
    },
    /// The certificate authority cannot be used.
    #[error("the gateway's certificate authority cannot be used: {0}")]
    Authority(String),
    /// TLS failed.
    #[error(
        "the gateway did not prove to be {name}: {source}; was its certificate authority changed meanwhile?"
    )]
    Tls {
        /// The name asked for.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to the gateway broke: {0}; try again")]
    Broken(String),
    /// The gateway refused.
    #[error("the gateway answered {status}: {message}; {remedy}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The bytes are not those that were asked for.
    #[error(
        "the gateway gave other bytes than {wanted}: they have the digest {got}; nothing was written"
    )]
    Digest {
        /// Asked for.
        wanted: Digest,
        /// Given.
        got: Digest,
    },
}

/// Where the gateway is and who asks.
pub(crate) struct Address<'a> {
    /// The operator's namespace.
    pub(crate) namespace: &'a str,
    /// The gateway's Service.
    pub(crate) service: &'a str,
    /// `ServiceAccount` that asks, where the kubeconfig has no bearer token.
    pub(crate) account: &'a str,
    /// PEM of the certificate authority; none: as the gateway's `EndpointSlice` has it.
    pub(crate) authority: Option<&'a [u8]>,
}

/// Where the blobs of a run are.
pub(crate) fn blobs(namespace: &str, run: &str) -> String {
    format!("/v1/runs/{namespace}/{run}/blobs")
}

/// Where the uploads of a namespace are.
pub(crate) fn uploads(namespace: &str) -> String {
    format!("/v1/namespaces/{namespace}/uploads")
}

/// A connection for things under their digests. It is made again once when it breaks.
pub(crate) struct Gateway {
    pods: Api<Pod>,
    pod: String,
    port: u16,
    tls: TlsConnector,
    server: String,
    authorization: HeaderValue,
    folder: String,
    remedy: &'static str,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Gateway {
    /// Finds the pod and gets a token; nothing is connected yet. `remedy` is for who is not allowed to do this.
    pub(crate) async fn find(
        cluster: &Cluster,
        address: &Address<'_>,
        folder: String,
        remedy: &'static str,
    ) -> Result<Self, Error> {
        let Endpoint {
            pod,
            port,
            authority,
        } = endpoint(cluster, address).await?;
        let authority = match address.authority {
            Some(authority) => authority.to_vec(),
            None => authority.into_bytes(),
        };
        let token = match &cluster.token {
            Some(token) => token.clone(),
            None => account_token(cluster, address).await?,
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| Error::Broken("the token cannot stand in a header".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            pods: Api::namespaced(cluster.client.clone(), address.namespace),
            pod,
            port,
            tls: connector(&authority)?,
            server: format!("{}.{}.svc", address.service, address.namespace),
            authorization,
            folder,
            remedy,
            sender: None,
        })
    }

    /// The bytes with that digest, verified.
    pub(crate) async fn get(&mut self, digest: &Digest) -> Result<Bytes, Error> {
        let bytes = self
            .twice(Method::GET, digest, Bytes::new(), ANSWER_WITHIN)
            .await?;
        verified(bytes, digest)
    }

    /// Sends bytes under their digest.
    pub(crate) async fn put(&mut self, digest: &Digest, bytes: Bytes) -> Result<(), Error> {
        self.twice(Method::PUT, digest, bytes, SENT_WITHIN).await?;
        Ok(())
    }

    /// A server may close a connection between two requests: then it is asked once more.
    async fn twice(
        &mut self,
        method: Method,
        digest: &Digest,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Error> {
        match self
            .within(method.clone(), digest, body.clone(), within)
            .await
        {
            Err(Error::Broken(_)) => {
                self.sender = None;
                self.within(method, digest, body, within).await
            }
            answer => answer,
        }
    }

    async fn within(
        &mut self,
        method: Method,
        digest: &Digest,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Error> {
        let late = Error::Broken(format!("no answer within {} s", within.as_secs()));
        tokio::time::timeout(within, self.ask(method, digest, body))
            .await
            .unwrap_or(Err(late))
    }

    async fn ask(&mut self, method: Method, digest: &Digest, body: Bytes) -> Result<Bytes, Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{digest}", self.folder))
            .header(HOST, &self.server)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))
            .map_err(|e| Error::Broken(e.to_string()))?;
        let open = self.sender.take().filter(|s| !s.is_closed());
        let sender = if let Some(sender) = open {
            self.sender.insert(sender)
        } else {
            let stream = self.forward().await?;
            self.sender
                .insert(speak(&self.tls, &self.server, stream).await?)
        };
        answer(sender, request, self.remedy).await
    }

    /// A stream to the gateway's port in its pod.
    async fn forward(&self) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Error> {
        let mut forward = self
            .pods
            .portforward(&self.pod, &[self.port])
            .await
            .map_err(|e| {
                cluster::Error::of(
                    e,
                    format!("forward port {} of pod {}", self.port, self.pod),
                    "ask for the Role sopwith-gateway-client in the operator's namespace",
                )
            })?;
        forward
            .take_stream(self.port)
            .ok_or_else(|| Error::Broken("the port-forward has no stream".to_owned()))
    }
}

/// TLS, then HTTP, on a stream whose other end must prove to be `server`.
async fn speak<S>(
    tls: &TlsConnector,
    server: &str,
    stream: S,
) -> Result<SendRequest<Full<Bytes>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name =
        ServerName::try_from(server.to_owned()).map_err(|e| Error::Authority(e.to_string()))?;
    let stream = tls
        .connect(name, stream)
        .await
        .map_err(|source| Error::Tls {
            name: server.to_owned(),
            source,
        })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Error::Broken(e.to_string()))?;
    // Ends with the sender; its error reaches the request that it belongs to.
    tokio::spawn(connection);
    Ok(sender)
}

async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    remedy: &'static str,
) -> Result<Bytes, Error> {
    let broken = |e: &dyn std::fmt::Display| Error::Broken(e.to_string());
    sender.ready().await.map_err(|e| broken(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BLOB_BYTES)
        .collect()
        .await
        .map_err(|e| broken(&e))?
        .to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        Err(refused(status, &body, remedy))
    }
}

/// What is behind the gateway's Service.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    pod: String,
    port: u16,
    /// PEM; empty where the operator is of an earlier version.
    authority: String,
}

async fn endpoint(cluster: &Cluster, address: &Address<'_>) -> Result<Endpoint, Error> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), address.namespace);
    let label = format!("kubernetes.io/service-name={}", address.service);
    let found = slices
        .list(&ListParams::default().labels(&label))
        .await
        .map_err(|e| {
            cluster::Error::of(
                e,
                format!("find the gateway in namespace {}", address.namespace),
                "ask for the Role sopwith-gateway-client in the operator's namespace",
            )
        })?;
    found
        .items
        .iter()
        .find_map(ready)
        .ok_or_else(|| Error::NoPod {
            service: address.service.to_owned(),
            namespace: address.namespace.to_owned(),
        })
}

/// The first ready pod of a slice and the slice's first port.
fn ready(slice: &EndpointSlice) -> Option<Endpoint> {
    let port = slice.ports.as_ref()?.iter().find_map(|p| p.port)?;
    let pod = slice
        .endpoints
        .iter()
        .filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
        .find_map(|e| {
            e.target_ref
                .as_ref()
                .filter(|t| t.kind.as_deref() == Some("Pod"))?
                .name
                .clone()
        })?;
    let annotations = slice.metadata.annotations.as_ref();
    let authority = annotations.and_then(|all| all.get(AUTHORITY_ANNOTATION));
    Some(Endpoint {
        pod,
        port: u16::try_from(port).ok()?,
        authority: authority.cloned().unwrap_or_default(),
    })
}

async fn account_token(cluster: &Cluster, address: &Address<'_>) -> Result<SecretString, Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), address.namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![GATEWAY_AUDIENCE.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let no_token = |why: String| Error::NoToken {
        account: address.account.to_owned(),
        namespace: address.namespace.to_owned(),
        why,
    };
    let answer = accounts
        .create_token_request(address.account, &PostParams::default(), &request)
        .await
        .map_err(|e| match e {
            kube::Error::Api(status) => no_token(status.message.clone()),
            other => cluster::Error::of(other, "ask for a token", "").into(),
        })?;
    let status = answer
        .status
        .ok_or_else(|| no_token("the answer has no token".to_owned()))?;
    Ok(SecretString::from(status.token))
}

fn connector(authority: &[u8]) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|e| Error::Authority(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| Error::Authority(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(Error::Authority("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The bytes, if they are those that were asked for.
fn verified(bytes: Bytes, wanted: &Digest) -> Result<Bytes, Error> {
    let got = Digest::of(&bytes);
    if got == *wanted {
        return Ok(bytes);
    }
    Err(Error::Digest {
        wanted: wanted.clone(),
        got,
    })
}

/// What a refusal means to the one who asked.
fn refused(status: StatusCode, body: &[u8], remedy: &'static str) -> Error {
    let message = serde_json::from_slice::<Problem>(body).map_or_else(
        |_| "no reason given".to_owned(),
        |problem| crate::text::one_line(&problem.message, 400),
    );
    let remedy = match status {
        StatusCode::UNAUTHORIZED => {
            "the token was not accepted; log in again, or use a context without a bearer token"
        }
        StatusCode::FORBIDDEN => remedy,
        StatusCode::NOT_FOUND => {
            "the artifact is no longer stored; was the operator's volume replaced?"
        }
        _ => "see the operator's log",
    };
    Error::Refused {
        status,
        message,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(true, "Pod", Some(("operator-0", 8443, "PEM")))]
    #[case(false, "Pod", None)]
    #[case(true, "Node", None)]
    fn only_a_ready_pod_is_asked(
        #[case] is_ready: bool,
        #[case] kind: &str,
        #[case] found: Option<(&str, u16, &str)>,
    ) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"annotations": {AUTHORITY_ANNOTATION: "PEM"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": is_ready},
                           "targetRef": {"kind": kind, "name": "operator-0"}}]}))
        .unwrap();
        let found = found.map(|(pod, port, authority)| Endpoint {
            pod: pod.into(),
            port,
            authority: authority.into(),
        });
        assert_eq!(ready(&slice), found);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let body = br#"{"reason":"Forbidden","message":"user jane may not get agentruns/dossier"}"#;
        let said = refused(StatusCode::FORBIDDEN, body, "ask for a role").to_string();
        assert!(
            said.contains("user jane") && said.contains("ask for a role"),
            "{said}"
        );
    }

    #[test]
    fn other_bytes_than_asked_for_are_refused() {
        let wanted = Digest::of("right");
        assert!(verified(Bytes::from("right"), &wanted).is_ok());
        assert!(matches!(
            verified(Bytes::from("wrong"), &wanted),
            Err(Error::Digest { .. })
        ));
    }

    /// An authority, and what a server with a leaf of it for `name` answers on the other end of the stream.
    fn served(name: &str, response: &'static str) -> (String, tokio::io::DuplexStream) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            // A client that does not trust us goes away in the middle of it.
            let Ok(mut stream) = acceptor.accept(theirs).await else {
                return;
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(response.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        });
        (authority.pem(), ours)
    }

    async fn asked(
        trusted: Option<&str>,
        name: &str,
        response: &'static str,
    ) -> Result<Bytes, Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (authority, stream) = served("gateway.sys.svc", response);
        let tls = connector(trusted.unwrap_or(&authority).as_bytes())?;
        let mut sender = speak(&tls, name, stream).await?;
        let request = Request::get("/")
            .header(HOST, name)
            .body(Full::default())
            .unwrap();
        answer(&mut sender, request, "").await
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nblob";
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
    const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nblob";

    #[tokio::test]
    async fn a_gateway_that_proves_its_name_is_read() {
        let bytes = asked(None, "gateway.sys.svc", OK).await.unwrap();
        assert_eq!(bytes, "blob");
    }

    #[tokio::test]
    async fn another_name_or_authority_ends_the_connection() {
        let (stranger, _stream) = {
            let _ = rustls::crypto::ring::default_provider().install_default();
            served("gateway.sys.svc", OK)
        };
        let other_name = asked(None, "other.sys.svc", OK).await;
        assert!(matches!(other_name, Err(Error::Tls { .. })));
        let other_authority = asked(Some(&stranger), "gateway.sys.svc", OK).await;
        assert!(matches!(other_authority, Err(Error::Tls { .. })));
    }

    #[tokio::test]
    async fn refusals_and_cut_answers_are_told_apart() {
        let refused = asked(None, "gateway.sys.svc", REFUSED).await;
        assert!(matches!(
            refused,
            Err(Error::Refused {
                status: StatusCode::UNAUTHORIZED,
                ..
            })
        ));
        let cut = asked(None, "gateway.sys.svc", CUT).await;
        assert!(matches!(cut, Err(Error::Broken(_))));
    }

    #[test]
    fn an_empty_authority_is_refused() {
        assert!(matches!(connector(b"nothing"), Err(Error::Authority(_))));
    }
}
