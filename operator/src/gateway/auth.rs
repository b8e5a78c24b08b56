//! Who calls: tokens are proven by the API server, never read here.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use futures::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use sopwith_crds::{GATEWAY_AUDIENCE, GROUP};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a proven token is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(30);
/// How many proven tokens are remembered.
const REMEMBERED: usize = 1024;
/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Whom a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name, as `system:serviceaccount:demo:runner`.
    pub user: String,
    /// UID of the user.
    pub uid: String,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// What else the API server says of the user.
    pub extra: BTreeMap<String, Vec<String>>,
    /// The pod the token is bound to, where it was made for this gateway.
    pub pod: Option<PodIdentity>,
}

/// A pod, proven by its token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Why a caller is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// No token came.
    #[error("no token: send it as \"Authorization: Bearer <token>\"")]
    NoToken,
    /// The API server does not know the token, or it was made for somebody else.
    #[error(
        "the API server does not accept the token: it has expired, its pod is gone, or it was made for another audience"
    )]
    Rejected,
    /// The API server did not answer.
    #[error("the API server could not be asked: {0}; try again")]
    Unavailable(String),
}

/// Asks who a token names and what that user may do.
pub trait Reviewer: Send + Sync + 'static {
    /// Whom the token names.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>>;

    /// Whether the user may do this.
    fn may<'a>(
        &'a self,
        who: &'a Identity,
        right: Right<'a>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>>;
}

/// What a person may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right<'a> {
    /// Read what a run left: `get` on `agentruns/dossier`.
    Read {
        /// Namespace of the run.
        namespace: &'a str,
        /// Its name.
        run: &'a str,
    },
    /// Upload projects for the runs of a namespace: `create` on `agentruns/upload`.
    Upload {
        /// The namespace.
        namespace: &'a str,
    },
}

impl Right<'_> {
    fn attributes(self) -> ResourceAttributes {
        let (namespace, name, verb, subresource) = match self {
            Self::Read { namespace, run } => (namespace, Some(run.to_owned()), "get", "dossier"),
            Self::Upload { namespace } => (namespace, None, "create", "upload"),
        };
        ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some("agentruns".to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            name,
            ..ResourceAttributes::default()
        }
    }
}

/// Asks the API server.
#[derive(Clone)]
pub struct KubeReviewer {
    client: Client,
}

impl KubeReviewer {
    /// A reviewer that asks with this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn ask(
        &self,
        token: &str,
        audiences: Option<Vec<String>>,
    ) -> Result<Option<UserInfo>, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences,
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer.map_err(unavailable)?.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)))
    }
}

impl Reviewer for KubeReviewer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        Box::pin(async move {
            let own = Some(vec![GATEWAY_AUDIENCE.to_owned()]);
            if let Some(user) = self.ask(token, own).await? {
                return Ok(identity(user, true));
            }
            let user = self.ask(token, None).await?;
            let user = user.ok_or(ReviewError::Rejected)?;
            Ok(identity(user, false))
        })
    }

    fn may<'a>(
        &'a self,
        who: &'a Identity,
        right: Right<'a>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        Box::pin(async move {
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(who.user.clone()),
                    uid: Some(who.uid.clone()),
                    groups: Some(who.groups.clone()),
                    extra: Some(who.extra.clone()),
                    resource_attributes: Some(right.attributes()),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
            let answer = api.create(&PostParams::default(), &review).await;
            let status = answer.map_err(unavailable)?.status;
            Ok(status.is_some_and(|s| s.allowed))
        })
    }
}

/// What the API server's answer says. A pod speaks as itself only with a token that was made for this gateway.
pub(super) fn identity(user: UserInfo, for_gateway: bool) -> Identity {
    let extra = user.extra.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let one = |key: &str| extra.get(key).and_then(|v| v.first()).cloned();
    let namespace = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, _)| namespace.to_owned());
    let pod = namespace
        .zip(one("authentication.kubernetes.io/pod-name"))
        .zip(one("authentication.kubernetes.io/pod-uid"))
        .map(|((namespace, name), uid)| PodIdentity {
            namespace,
            name,
            uid,
        });
    Identity {
        pod: pod.filter(|_| for_gateway),
        user: name,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra,
    }
}

fn unavailable(error: kube::Error) -> ReviewError {
    // What the API server says of a review holds no token; the request, which does, is not shown.
    let why = match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    };
    ReviewError::Unavailable(why)
}

/// SHA-256 of a token: the token itself is not kept.
type TokenDigest = [u8; 32];

/// Knows callers by their tokens, and remembers them for a short time.
#[derive(Clone)]
pub struct Authenticator {
    reviewer: Arc<dyn Reviewer>,
    known: Arc<Mutex<HashMap<TokenDigest, (Identity, Instant)>>>,
}

impl Authenticator {
    /// An authenticator that asks this reviewer.
    pub fn new(reviewer: Arc<dyn Reviewer>) -> Self {
        Self {
            reviewer,
            known: Arc::default(),
        }
    }

    /// Who sends these headers.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Identity, ReviewError> {
        let token = bearer(headers).ok_or(ReviewError::NoToken)?;
        let key: TokenDigest = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.remembered(&key, Instant::now()) {
            return Ok(known);
        }
        let identity = self.reviewer.review(token).await?;
        self.remember(key, &identity, Instant::now());
        Ok(identity)
    }

    /// Whether the caller may do this.
    pub async fn may(&self, who: &Identity, right: Right<'_>) -> Result<bool, ReviewError> {
        self.reviewer.may(who, right).await
    }

    fn remembered(&self, key: &TokenDigest, now: Instant) -> Option<Identity> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (identity, until) = known.get(key)?;
        (now < *until).then(|| identity.clone())
    }

    fn remember(&self, key: TokenDigest, identity: &Identity, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() < REMEMBERED {
            known.insert(key, (identity.clone(), now + BELIEVED));
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}
