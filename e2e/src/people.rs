//! People and accounts with other rights than the tests have.

use crate::namespace::Namespace;
use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::ServiceAccount,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, Client, Config, Resource, api::PostParams, core::NamespaceResourceScope};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the API server may take to know of a right.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);
/// How often it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Somebody who asks the API server in their own name.
#[derive(Clone)]
pub struct Person {
    /// Their user name.
    pub name: String,
    client: Client,
    subject: Value,
}

impl Person {
    /// A user, whom the tests' own user impersonates.
    pub async fn user(name: &str) -> Result<Self> {
        let mut config = Config::infer().await?;
        config.auth_info.impersonate = Some(name.to_owned());
        Ok(Self {
            name: name.to_owned(),
            client: Client::try_from(config)?,
            subject: json!({ "kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io" }),
        })
    }

    /// A `ServiceAccount` of the namespace, made for this, with a token of its own.
    pub async fn account(namespace: &Namespace, name: &str) -> Result<Self> {
        let account = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        let accounts = namespace.api::<ServiceAccount>();
        accounts.create(&PostParams::default(), &account).await?;
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let mut config = Config::infer().await?;
        config.auth_info = kube::config::AuthInfo {
            token: Some(made.status.context("no token")?.token.into()),
            ..kube::config::AuthInfo::default()
        };
        Ok(Self {
            name: format!("system:serviceaccount:{}:{name}", namespace.name),
            client: Client::try_from(config)?,
            subject: json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace.name }),
        })
    }

    /// The objects of a kind in a namespace, as this person sees them.
    pub fn api<K>(&self, namespace: &Namespace) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &namespace.name)
    }

    /// Binds a `ClusterRole` in the namespace to this person.
    pub async fn given(self, namespace: &Namespace, role: &str) -> Result<Self> {
        self.bind(namespace, "ClusterRole", role).await?;
        Ok(self)
    }

    /// Gives this person a Role with these rules in the namespace.
    pub async fn given_rules(self, namespace: &Namespace, rules: Value) -> Result<Self> {
        let role = json!({ "metadata": { "generateName": "e2e-" }, "rules": rules });
        let role = namespace
            .api::<Role>()
            .create(&PostParams::default(), &serde_json::from_value(role)?)
            .await?;
        let name = role.metadata.name.context("no name")?;
        self.bind(namespace, "Role", &name).await?;
        Ok(self)
    }

    async fn bind(&self, namespace: &Namespace, kind: &str, role: &str) -> Result<()> {
        let binding = json!({
            "metadata": { "generateName": "e2e-" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
            "subjects": [self.subject],
        });
        namespace
            .api::<RoleBinding>()
            .create(&PostParams::default(), &serde_json::from_value(binding)?)
            .await?;
        Ok(())
    }

    /// Whether this person may do something: `right` is `verb resource[.group][/subresource] [name]`.
    pub async fn may(&self, namespace: &Namespace, right: &str) -> Result<bool> {
        let mut words = right.split(' ').map(str::to_owned);
        let verb = words.next();
        let what = words.next().context("no resource")?;
        let (what, subresource) = match what.split_once('/') {
            Some((what, sub)) => (what.to_owned(), Some(sub.to_owned())),
            None => (what, None),
        };
        let (resource, group) = match what.split_once('.') {
            Some((resource, group)) => (resource.to_owned(), group.to_owned()),
            None => (what, String::new()),
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(self.name.clone()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.name.clone()),
                    verb,
                    group: Some(group),
                    resource: Some(resource),
                    subresource,
                    name: words.next(),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = Api::<SubjectAccessReview>::all(namespace.client.clone())
            .create(&PostParams::default(), &review)
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Waits until the API server knows that this person may do something.
    pub async fn can(self, namespace: &Namespace, right: &str) -> Result<Self> {
        let known = async {
            while !self.may(namespace, right).await? {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(KNOWN_WITHIN, known)
            .await
            .with_context(|| format!("{} may not {right}", self.name))??;
        Ok(self)
    }
}
