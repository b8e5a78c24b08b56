//! Watches the admission policies and their bindings, each by its name: the operator may see no others.

use super::judge::{Found, POLICIES, Seen, Standing, judge};
use crate::{metrics::Metrics, run::observe::Pending};
use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    authentication::v1::SelfSubjectReview,
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use sopwith_crds::AgentRun;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch as signal;

/// Whether admission is enforced, as it was last seen. Clones share it.
#[derive(Clone, Debug)]
pub struct Admission {
    standing: signal::Sender<Option<Standing>>,
}

/// Which of the two objects of a policy.
#[derive(Clone, Copy)]
enum Part {
    Policy,
    Binding,
}

/// The user name under which this client is known to the API server.
pub async fn account(client: &Client) -> Result<String, kube::Error> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let asked = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = asked.status.and_then(|status| status.user_info);
    Ok(user.and_then(|user| user.username).unwrap_or_default())
}

impl Admission {
    /// Not known yet; or waived, whatever is in the cluster.
    pub fn new(waived: bool) -> Self {
        if waived {
            tracing::warn!(
                "--insecure-admission: whoever may write runs can ask, and decide, in anybody's name"
            );
        }
        let standing = waived.then_some(Standing::Waived);
        Self {
            standing: signal::Sender::new(standing),
        }
    }

    /// Waits until it is known whether admission is enforced.
    pub async fn ready(&self) {
        let mut standing = self.standing.subscribe();
        // It cannot fail: `self` keeps the sender.
        let _ = standing.wait_for(Option::is_some).await;
    }

    /// Whether the names in a run, its decisions' included, can be believed; else why it waits.
    pub fn proves(&self, run: &AgentRun) -> Result<(), Pending> {
        match self.standing.borrow().as_ref() {
            Some(standing) => standing.proves(run),
            None => Standing::NotEnforced(vec!["it is not known yet".to_owned()]).proves(run),
        }
    }

    /// Whether the operator was told to work without.
    pub fn is_waived(&self) -> bool {
        self.standing.borrow().as_ref() == Some(&Standing::Waived)
    }

    /// Looks always, and tells of every change: in the log, as a metric, and to those that wait for it.
    pub async fn watch(
        self,
        client: Client,
        account: String,
        metrics: Arc<Metrics>,
        changed: signal::Sender<u64>,
    ) {
        if self.is_waived() {
            return;
        }
        let mut seen: BTreeMap<&'static str, (Option<_>, Option<_>)> = BTreeMap::new();
        let mut all = stream::select_all(POLICIES.iter().flat_map(|(name, _)| {
            [
                objects::<ValidatingAdmissionPolicy>(&client, name, Part::Policy).boxed(),
                objects::<ValidatingAdmissionPolicyBinding>(&client, name, Part::Binding).boxed(),
            ]
        }));
        while let Some((name, part, found)) = all.next().await {
            let entry = seen.entry(name).or_default();
            match part {
                Part::Policy => entry.0 = Some(found),
                Part::Binding => entry.1 = Some(found),
            }
            let whole: BTreeMap<_, _> = seen
                .iter()
                .filter_map(|(name, (policy, binding))| {
                    let (policy, binding) = (policy.clone()?, binding.clone()?);
                    Some((*name, Seen { policy, binding }))
                })
                .collect();
            if whole.len() == POLICIES.len() {
                self.tell(judge(&whole, &account), &metrics, &changed);
            }
        }
    }

    fn tell(&self, now: Standing, metrics: &Metrics, changed: &signal::Sender<u64>) {
        if self.standing.borrow().as_ref() == Some(&now) {
            return;
        }
        match &now {
            Standing::Enforced { since } => {
                tracing::info!(%since, "admission is enforced");
            }
            Standing::NotEnforced(wrong) => tracing::warn!(
                wrong = wrong.join("; "),
                "admission is not enforced: no run begins and no decision counts"
            ),
            Standing::Waived => {}
        }
        metrics.admission_enforced(now.is_enforced());
        self.standing.send_replace(Some(now));
        changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

type Sight = (&'static str, Part, Result<Option<Found>, String>);

/// Every state of one object. An API server that does not answer says nothing about it; one that refuses does.
fn objects<K: Resource<DynamicType = ()>>(
    client: &Client,
    name: &'static str,
    part: Part,
) -> impl Stream<Item = Sight> + Send + use<K> {
    let kind = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    watcher::watch_object(api, name)
        .default_backoff()
        .filter_map(move |state| {
            let found = match state {
                Ok(object) => Some(Ok(object.map(found))),
                Err(error) => {
                    tracing::info!(name, %error, "a watch was interrupted and is begun again");
                    refusal(&error).map(Err)
                }
            };
            future::ready(found.map(|found| (name, part, found)))
        })
}

fn found(object: DynamicObject) -> Found {
    let created = object.metadata.creation_timestamp;
    Found {
        spec: object.data.get("spec").cloned().unwrap_or_default(),
        // Without a time it is as if it had come just now; an API server always gives one.
        created: created.map_or_else(Timestamp::now, |created| created.0),
        deleting: object.metadata.deletion_timestamp.is_some(),
    }
}

/// Why the object may not be read.
fn refusal(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status)
            if status.is_forbidden() =>
        {
            Some(status.message.clone())
        }
        _ => None,
    }
}
