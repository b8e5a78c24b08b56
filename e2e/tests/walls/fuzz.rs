//! Hostile objects and requests by the thousand: the operator neither falls nor grows nor gets stuck.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota, Service};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use sopwith_crds::{manifest, status::Phase};
use sopwith_e2e::{
    OPERATOR_NAMESPACE, fixture,
    fuzz::Fuzz,
    namespace::{Namespace, in_namespace},
    repository, sample,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    pin::pin,
    time::{Duration, Instant},
};

/// Objects of each kind in each of the two floods, and requests in each.
const EACH: usize = 900;
const REQUESTS: usize = 2_500;
/// How many are under way at once.
const AT_ONCE: usize = 16;
/// How much more memory the operator may hold after the second flood than after the first.
const MAY_GROW: u64 = 12 << 20;

/// How often something was answered how.
type Tally = BTreeMap<String, usize>;

#[tokio::test]
async fn ten_thousand_hostile_objects_and_requests_leave_the_operator_as_it_was() -> Result<()> {
    in_namespace("fuzz", async |namespace| {
        let seed = match env::var("SOPWITH_FUZZ_SEED") {
            Ok(text) => text.parse().context("SOPWITH_FUZZ_SEED")?,
            Err(_) => 20_261_124,
        };
        eprintln!("fuzz: seed {seed} (SOPWITH_FUZZ_SEED)");
        // What fits together by chance must not become work for the node.
        let quota: ResourceQuota = serde_json::from_value(json!({
            "metadata": { "name": "no-pods" }, "spec": { "hard": { "pods": "0", "count/jobs.batch": "20" } }
        }))?;
        namespace
            .api::<ResourceQuota>()
            .create(&PostParams::default(), &quota)
            .await?;
        let mut fuzz = Fuzz::new(seed);
        let mut tried = 0;
        let mut memory = Vec::new();
        for _ in 0..2 {
            tried += flood_of_objects(&namespace, &mut fuzz).await?;
            tried += flood_of_requests(&namespace, &mut fuzz).await?;
            memory.push(operator_memory(&namespace).await?);
        }
        eprintln!("fuzz: {tried} objects and requests; the operator holds {memory:?} bytes after each flood");
        ensure!(tried >= 10_000, "only {tried} were tried");
        ensure!(
            memory[1] <= memory[0] + MAY_GROW,
            "the operator grew from {} to {} bytes",
            memory[0],
            memory[1]
        );
        an_ordinary_run_still_works(&namespace).await
    })
    .await
}

/// The three kinds with their schemas, and good objects to spoil.
fn kinds() -> Result<Vec<(ApiResource, Value, Vec<Value>)>> {
    let samples = sample::objects()?;
    let fixtures = ["small/policy.yaml", "small/sop.yaml", "small/run.yaml"];
    let mut good = samples;
    for path in fixtures {
        good.extend(fixture::read(repository().join("e2e/fixtures").join(path))?);
    }
    let good: Vec<Value> = good
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let mut kinds = Vec::new();
    for (_, definition) in manifest::definitions() {
        let definition = serde_json::to_value(&definition)?;
        let text = |pointer: &str| {
            let value = definition.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let kind = text("/spec/names/kind");
        let resource = ApiResource {
            group: text("/spec/group"),
            version: text("/spec/versions/0/name"),
            api_version: format!("{}/{}", text("/spec/group"), text("/spec/versions/0/name")),
            plural: text("/spec/names/plural"),
            kind: kind.clone(),
        };
        let schema =
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
                .clone();
        ensure!(schema.is_object(), "{kind} has no schema");
        let good: Vec<Value> = good
            .iter()
            .filter(|object| object["kind"] == kind.as_str())
            .map(|object| object["spec"].clone())
            .collect();
        ensure!(!good.is_empty(), "no good {kind}");
        kinds.push((resource, schema, good));
    }
    Ok(kinds)
}

async fn flood_of_objects(namespace: &Namespace, fuzz: &mut Fuzz) -> Result<usize> {
    let began = Instant::now();
    let mut tried = 0;
    for (resource, schema, good) in kinds()? {
        let api: Api<DynamicObject> =
            Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
        let objects: Vec<DynamicObject> = (0..EACH)
            .map(|number| {
                let spec = match number % 3 {
                    0 => fuzz.of_schema(&schema, 6),
                    _ => fuzz.gone_bad(&good[number % good.len()]),
                };
                let mut object = DynamicObject::new(&format!("fuzz-{number}"), &resource);
                object.data = json!({ "spec": spec });
                object
            })
            .collect();
        tried += objects.len();
        let params = PostParams::default();
        let mut answers = stream::iter(&objects)
            .map(|object| api.create(&params, object))
            .buffer_unordered(AT_ONCE);
        let mut tally = Tally::new();
        while let Some(answer) = answers.next().await {
            *tally.entry(judged(answer)?).or_default() += 1;
        }
        drop(answers);
        let taken = tally.get("taken").copied().unwrap_or(0);
        ensure!(
            (EACH / 20..EACH).contains(&taken),
            "{}: {tally:?}: hardly any reached the operator, or all did",
            resource.kind
        );
        every_one_is_answered(&api, &resource).await?;
        spoil_once_more(&api, fuzz, &resource).await?;
        eprintln!(
            "fuzz: {} {tally:?} after {:.0?}",
            resource.kind,
            began.elapsed()
        );
    }
    for (resource, ..) in kinds()? {
        let api: Api<DynamicObject> =
            Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
        api.delete_collection(&DeleteParams::background(), &ListParams::default())
            .await?;
    }
    Ok(tried)
}

/// A refusal names what is wrong; anything but a refusal is a fault of the apiserver's rules.
fn judged(answer: Result<DynamicObject, kube::Error>) -> Result<String> {
    match answer {
        Ok(_) => Ok("taken".to_owned()),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            ensure!(!status.message.is_empty(), "refused without a word");
            Ok(format!("refused {}", status.code))
        }
        Err(error) => Err(error).context("neither taken nor refused"),
    }
}

/// No object waits for ever for its first status: the queue is not stuck.
async fn every_one_is_answered(api: &Api<DynamicObject>, resource: &ApiResource) -> Result<()> {
    let mut open = BTreeSet::new();
    let waited = tokio::time::timeout(Duration::from_secs(90), async {
        let watch = watcher(api.clone(), watcher::Config::default());
        let mut events = pin!(watch.default_backoff());
        let mut listed = false;
        while let Some(event) = events.next().await {
            // A watch that fell behind is begun again.
            let Ok(event) = event else { continue };
            match event {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    let observed = object.data.pointer("/status/observedGeneration");
                    if observed.and_then(Value::as_i64) == object.metadata.generation {
                        open.remove(&object.name_any());
                    } else {
                        open.insert(object.name_any());
                    }
                }
                watcher::Event::Delete(object) => {
                    open.remove(&object.name_any());
                }
                watcher::Event::Init => {}
                watcher::Event::InitDone => listed = true,
            }
            if listed && open.is_empty() {
                break;
            }
        }
    })
    .await;
    let first: Vec<_> = open.iter().take(5).collect();
    ensure!(
        waited.is_ok(),
        "{} {} have no status of their generation, among them {first:?}",
        open.len(),
        resource.plural
    );
    Ok(())
}

/// Changes what was taken, where that can be changed at all.
async fn spoil_once_more(
    api: &Api<DynamicObject>,
    fuzz: &mut Fuzz,
    resource: &ApiResource,
) -> Result<()> {
    let list = api.list(&ListParams::default()).await?;
    for object in list.iter().take(EACH / 20) {
        let spec = fuzz.gone_bad(&object.data["spec"]);
        let patch = Patch::Merge(json!({ "spec": spec }));
        let answer = api
            .patch(&object.name_any(), &PatchParams::default(), &patch)
            .await;
        judged(answer).with_context(|| format!("{} {}", resource.kind, object.name_any()))?;
    }
    every_one_is_answered(api, resource).await
}

/// Calls of the gateway that nobody should make: by strangers, with forged and real tokens, to places that are not there.
async fn flood_of_requests(namespace: &Namespace, fuzz: &mut Fuzz) -> Result<usize> {
    let services: Api<Service> = Api::namespaced(namespace.client.clone(), OPERATOR_NAMESPACE);
    let service = services.get("sopwith-gateway").await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the gateway's Service has no address")?;
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .timeout(Duration::from_secs(30))
        .build()?;
    let requests: Vec<reqwest::Request> = (0..REQUESTS)
        .map(|_| request(&client, &address, &namespace.name, fuzz))
        .collect::<Result<_>>()?;
    let mut answers = stream::iter(requests)
        .map(|request| {
            let client = client.clone();
            async move {
                let line = format!("{} {}", request.method(), request.url().path());
                (line, client.execute(request).await)
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut tally = Tally::new();
    while let Some((line, answer)) = answers.next().await {
        let said = match answer {
            Ok(answer) => answer.status().as_u16().to_string(),
            Err(error) if error.is_timeout() => anyhow::bail!("{line}: no answer"),
            // A request that is none: the connection is closed.
            Err(_) => "closed".to_owned(),
        };
        ensure!(
            !said.starts_with('2') && !said.starts_with('5'),
            "{line} was answered with {said}"
        );
        *tally.entry(said).or_default() += 1;
    }
    eprintln!("fuzz: requests {tally:?}");
    Ok(REQUESTS)
}

fn request(
    client: &reqwest::Client,
    address: &str,
    namespace: &str,
    fuzz: &mut Fuzz,
) -> Result<reqwest::Request> {
    const METHODS: [&str; 8] = [
        "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "SPROUT",
    ];
    let method = METHODS[fuzz.below(METHODS.len())].parse()?;
    let mut url = reqwest::Url::parse(&format!("https://{address}:8443/"))?;
    {
        let mut path = url.path_segments_mut().ok().context("no path")?;
        let places = ["launches", "blobs", "snapshot", "reports"];
        path.extend(["v1", "runs", namespace]);
        path.push(&fuzz.text().chars().take(300).collect::<String>());
        path.push(places[fuzz.below(places.len())]);
        for _ in 0..fuzz.below(3) {
            path.push(&fuzz.text().chars().take(300).collect::<String>());
        }
    }
    let mut request = client.request(method, url);
    if fuzz.below(4) > 0 {
        let token: String = fuzz.text().chars().filter(char::is_ascii_graphic).collect();
        let scheme = ["Bearer", "Basic", "bearer bearer", ""][fuzz.below(4)];
        let token: String = token.chars().take(4_000).collect();
        request = request.header("authorization", format!("{scheme} {token}"));
    }
    if fuzz.below(3) == 0 {
        request = request.header("content-type", "application/json");
    }
    let body = match fuzz.below(5) {
        0 => String::new(),
        1 => fuzz.text(),
        2 => "[".repeat(5_000),
        3 => "x".repeat(300_000),
        _ => fuzz.anything(4).to_string(),
    };
    Ok(request.body(body).build()?)
}

/// The working set of the operator's container, as its kubelet measures it.
async fn operator_memory(namespace: &Namespace) -> Result<u64> {
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), OPERATOR_NAMESPACE);
    let of_operator = ListParams::default().labels("app.kubernetes.io/component=operator");
    let names: Vec<String> = pods
        .list(&of_operator)
        .await?
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    let nodes: Api<Node> = Api::all(namespace.client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.name_any());
        let request = axum::http::Request::get(path).body(Vec::new())?;
        let summary: Value = namespace.client.request(request).await?;
        for pod in summary["pods"].as_array().into_iter().flatten() {
            let name = pod.pointer("/podRef/name").and_then(Value::as_str);
            if name.is_some_and(|name| names.iter().any(|known| known == name)) {
                let bytes = pod.pointer("/containers/0/memory/rssBytes");
                return bytes.and_then(Value::as_u64).context("no figure");
            }
        }
    }
    anyhow::bail!("no kubelet knows {names:?}")
}

async fn an_ordinary_run_still_works(namespace: &Namespace) -> Result<()> {
    namespace
        .api::<ResourceQuota>()
        .delete("no-pods", &DeleteParams::default())
        .await?;
    for path in ["small/policy.yaml", "small/sop.yaml", "small/run.yaml"] {
        namespace.apply_fixture(path).await?;
    }
    namespace.ended_as("hello", Phase::Succeeded, 60).await?;
    Ok(())
}
