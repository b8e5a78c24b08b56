//! Confused deputy: somebody who may create runs and procedures, and little else, tries to have Sopwith do what they may not do
//! themselves; and somebody who may create pods and Jobs tries to speak for a run.

use crate::{admission::idle, attempts::Attempts};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, LogParams, PostParams},
};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, RUN_LABEL, SopDefinition, ToolPolicy, conditions, status::Phase};
use sopwith_e2e::{
    namespace::{Namespace, in_namespace, phase},
    people::Person,
};

/// What must not become known.
const HIDDEN: &str = "the-payroll-of-everybody";
/// Names that are paths, questions or something else than the name of an object of this kind and namespace.
const NO_NAMES: [&str; 9] = [
    "../secrets/model-provider",
    "../../other/configmaps/payroll",
    "../../../../../api/v1/namespaces/kube-system/secrets/x",
    "other/payroll",
    "payroll?watch=true",
    "payroll#x",
    "..",
    "%2e%2e%2fsecrets%2fmodel-provider",
    "Payroll",
];

/// A namespace with what its developer may not have, and another namespace with the like.
async fn stage(namespace: &Namespace, other: &Namespace) -> Result<Person> {
    for place in [namespace, other] {
        let map = json!({ "metadata": { "name": "payroll" }, "data": { "k": HIDDEN } });
        place
            .api::<ConfigMap>()
            .create(&PostParams::default(), &serde_json::from_value(map)?)
            .await?;
        let secret = json!({ "metadata": { "name": "model-provider" }, "stringData": { "api-key": HIDDEN } });
        place
            .api::<Secret>()
            .create(&PostParams::default(), &serde_json::from_value(secret)?)
            .await?;
    }
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply_fixture("small/sop.yaml").await?;
    for (place, name) in [(namespace, "rich"), (other, "theirs")] {
        let policy = json!({ "metadata": { "name": name }, "spec": { "images": ["*"], "commands": [{ "argv": ["sh"] }] } });
        place
            .api::<ToolPolicy>()
            .create(&PostParams::default(), &serde_json::from_value(policy)?)
            .await?;
    }
    let theirs =
        json!({ "metadata": { "name": "theirs" }, "spec": { "steps": [{ "name": "a" }] } });
    other
        .api::<SopDefinition>()
        .create(&PostParams::default(), &serde_json::from_value(theirs)?)
        .await?;
    other
        .api::<AgentRun>()
        .create(&PostParams::default(), &idle("theirs", json!({})))
        .await?;
    let dev = Person::user("dev")
        .await?
        .given(namespace, "sopwith-edit")
        .await?
        .given(namespace, "sopwith-view")
        .await?;
    dev.can(namespace, "create agentruns.sopwith.dev")
        .await?
        .can(namespace, "get agentruns.sopwith.dev")
        .await
}

/// Runs a test with its own namespace and another one.
async fn beside_another(
    feature: &str,
    test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>,
) -> Result<()> {
    in_namespace(feature, async |namespace| {
        let other = Namespace::create(namespace.client.clone(), "other").await?;
        let tested = test(&namespace, &other).await;
        other.delete().await?;
        tested
    })
    .await
}

fn asked() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

#[tokio::test]
async fn the_author_of_a_run_reaches_nothing_that_the_author_may_not_reach() -> Result<()> {
    beside_another("deputy", async |namespace, other| {
        let dev = stage(namespace, other).await?;
        let mut table = Attempts::new("deputy: what the API server refuses");
        let no = "cannot";
        table.refused("a Secret, oneself", dev.api::<Secret>(namespace).get("model-provider").await, no);
        table.refused("a ConfigMap, oneself", dev.api::<ConfigMap>(namespace).get("payroll").await, no);
        table.refused("a policy, oneself", dev.api::<ToolPolicy>(namespace).create(&asked(), &ToolPolicy::new("mine", <_>::default())).await, no);
        table.refused("a run in another namespace", dev.api::<AgentRun>(other).create(&asked(), &idle("a", json!({}))).await, no);
        table.refused("another namespace's run, oneself", dev.api::<AgentRun>(other).get("theirs").await, no);
        let runs = dev.api::<AgentRun>(namespace);
        let key = |name: &str| json!({ "configMapKeyRef": { "name": name, "key": "k" } });
        let pattern = "should match";
        for name in NO_NAMES {
            for (field, spec) in [
                ("sopRef", json!({ "sopRef": { "name": name } })),
                ("toolPolicyRef", json!({ "toolPolicyRef": { "name": name } })),
                ("ideaFrom", json!({ "ideaFrom": key(name) })),
                ("inputs", json!({ "inputs": [{ "name": "x", "configMapKeyRef": { "name": name, "key": "k" } }] })),
                ("project.source.run", json!({ "project": { "source": { "run": name } } })),
                ("recoverFrom.run", json!({ "recoverFrom": { "run": name } })),
                ("runner.priorityClassName", json!({ "runner": { "priorityClassName": name } })),
            ] {
                table.refused(&format!("{field}: {name}"), runs.create(&asked(), &idle("a", spec)).await, pattern);
            }
            let sop = json!({ "metadata": { "name": "s" }, "spec": { "templatesFrom": [{ "configMap": name }], "steps": [{ "name": "a" }] } });
            let created = dev.api::<SopDefinition>(namespace).create(&asked(), &serde_json::from_value(sop)?).await;
            table.refused(&format!("templatesFrom: {name}"), created, pattern);
        }
        for (what, spec, words) in [
            ("a ConfigMap as idea", json!({ "ideaFrom": key("payroll") }), "may not get every ConfigMap"),
            ("a ConfigMap as input", json!({ "inputs": [{ "name": "x", "configMapKeyRef": { "name": "payroll", "key": "k" } }] }), "may not get every ConfigMap"),
            ("a ConfigMap that is not there", json!({ "ideaFrom": key("is-there-one") }), "may not get every ConfigMap"),
            ("a richer policy", json!({ "toolPolicyRef": { "name": "rich" } }), "may not use ToolPolicy"),
            ("another namespace's policy", json!({ "toolPolicyRef": { "name": "theirs" } }), "may not use ToolPolicy"),
            ("another's name", json!({ "requestedBy": "boss" }), "spec.requestedBy is"),
            ("the system's priority", json!({ "runner": { "priorityClassName": "system-cluster-critical" } }), "the system's own priority classes"),
            ("a key that is a path", json!({ "ideaFrom": { "configMapKeyRef": { "name": "payroll", "key": "../k" } } }), pattern),
            ("a project that is a path", json!({ "project": { "name": "../x" } }), pattern),
        ] {
            table.refused(what, runs.create(&asked(), &idle("a", spec)).await, words);
        }
        let sop = json!({ "metadata": { "name": "s" }, "spec": { "templatesFrom": [{ "configMap": "payroll" }], "steps": [{ "name": "a" }] } });
        let created = dev.api::<SopDefinition>(namespace).create(&asked(), &serde_json::from_value(sop)?).await;
        table.refused("a ConfigMap as templates", created, "may not get every ConfigMap");
        table.end()?;
        fields_that_do_not_exist_are_dropped(namespace).await
    })
    .await
}

/// What a pod has and a run must not choose: none of it is a field.
async fn fields_that_do_not_exist_are_dropped(namespace: &Namespace) -> Result<()> {
    let wanted = json!({
        "secretRef": { "name": "model-provider" }, "serviceAccountName": "admin", "image": "evil", "namespace": "other", "env": [{ "name": "A" }],
        "runner": {
            "serviceAccountName": "admin", "image": "evil", "volumes": [{ "name": "v", "hostPath": { "path": "/" } }], "runtimeClassName": "none",
            "securityContext": { "privileged": true }, "hostNetwork": true, "env": [{ "name": "A" }], "annotations": { "a": "b" }, "labels": { "a": "b" },
        },
        "sopRef": { "name": "none", "namespace": "other" }, "toolPolicyRef": { "name": "default", "namespace": "other" }, "suspend": true, "idea": "x",
    });
    let resource = ApiResource::erase::<AgentRun>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(namespace.client.clone(), &namespace.name, &resource);
    let object = DynamicObject::new("wide", &resource).data(json!({ "spec": wanted }));
    let made = api.create(&PostParams::default(), &object).await?;
    let left = json!({ "decisions": made.data["spec"].get("decisions"), "idea": "x", "runner": {}, "sopRef": { "name": "none" }, "suspend": true, "toolPolicyRef": { "name": "default" } });
    let mut spec = made.data["spec"].clone();
    spec["decisions"] = left["decisions"].clone();
    ensure!(spec == left, "more than the schema knows was kept: {spec}");
    Ok(())
}

#[tokio::test]
async fn what_the_operator_is_asked_to_do_beyond_the_policy_it_does_not_do() -> Result<()> {
    beside_another("deputy-runs", async |namespace, other| {
        let dev = stage(namespace, other).await?;
        let runs = dev.api::<AgentRun>(namespace);
        let hello = || json!({ "sopRef": { "name": "hello" } });
        let with = |field: &str, value: Value| {
            let mut spec = hello();
            spec[field] = value;
            spec
        };
        let of_sop = |name: &str| json!({ "sopRef": { "name": name } });
        for (name, action) in [
            ("image", json!({ "argv": ["python3", "-V"], "image": "docker.io/library/evil:1" })),
            ("program", json!({ "argv": ["curl", "http://169.254.169.254/"], "image": "localhost/sopwith/workbench-python:dev" })),
            ("network", json!({ "argv": ["python3", "-V"], "image": "localhost/sopwith/workbench-python:dev", "network": "egress" })),
        ] {
            let steps = json!([{ "name": "a", "role": "r", "actions": [{ "name": "x", "command": action }] }]);
            let sop = json!({ "metadata": { "name": name }, "spec": { "roles": [{ "name": "r" }], "steps": steps } });
            dev.api::<SopDefinition>(namespace).create(&PostParams::default(), &serde_json::from_value(sop)?).await?;
        }
        let prompt = json!({ "name": "x", "prompt": { "template": "t", "writes": { "artifact": "o" } } });
        let steps = json!([{ "name": "a", "role": "r", "outputs": [{ "name": "o", "path": "o.md" }], "actions": [prompt] }]);
        let asks = json!({ "metadata": { "name": "asks" }, "spec": { "roles": [{ "name": "r" }], "templates": { "t": "hello" }, "steps": steps } });
        dev.api::<SopDefinition>(namespace)
            .create(&PostParams::default(), &serde_json::from_value(asks)?)
            .await?;
        for (name, schema) in [
            ("reads-a-file", json!({ "$ref": "file:///var/run/secrets/kubernetes.io/serviceaccount/token" })),
            ("asks-an-address", json!({ "$ref": "http://169.254.169.254/latest/meta-data" })),
        ] {
            let gate = json!({ "name": "g", "kind": "schema", "schema": { "artifact": "o", "schema": "s" } });
            let steps = json!([{ "name": "a", "outputs": [{ "name": "o", "path": "o.json" }], "gates": [gate] }]);
            let sop = json!({ "metadata": { "name": name }, "spec": { "schemas": { "s": schema }, "steps": steps } });
            dev.api::<SopDefinition>(namespace).create(&PostParams::default(), &serde_json::from_value(sop)?).await?;
        }
        let cases = [
            ("another-sop", of_sop("theirs"), "SopNotFound"),
            ("a-policy-less", of_sop("none"), "SopNotFound"),
            ("prod", with("environment", json!("prod")), "PolicyDenied"),
            ("no-model", json!({ "sopRef": { "name": "asks" }, "model": "expensive" }), "PolicyDenied"),
            ("git", with("project", json!({ "source": { "git": { "url": "ssh://git@internal/secret.git" } } })), "PolicyDenied"),
            ("of-run", with("project", json!({ "source": { "run": "theirs" } })), "RunNotFound"),
            ("upload", with("project", json!({ "source": { "upload": format!("sha256:{}", "0".repeat(64)) } })), "UploadNotFound"),
            ("deliver", with("project", json!({ "deliver": { "git": { "branch": "main" } } })), "InvalidPlan"),
            ("recover", with("recoverFrom", json!({ "run": "theirs" })), "RunNotFound"),
            (
                "reqa",
                {
                    let mut spec = with("project", json!({ "source": { "git": { "url": "https://internal/game" } } }));
                    spec["incremental"] = json!(true);
                    spec["reqaFile"] = json!("../../etc/passwd");
                    spec
                },
                "InvalidPlan",
            ),
            ("feature", with("features", json!({ "everything": true })), "InvalidPlan"),
            ("memory", with("longTermMemory", json!(true)), "InvalidPlan"),
            ("queue", with("runner", json!({ "queueName": "gold" })), "InvalidPlan"),
            ("bad-image", of_sop("image"), "PolicyDenied"),
            ("bad-program", of_sop("program"), "PolicyDenied"),
            ("bad-network", of_sop("network"), "InvalidPlan|PolicyDenied"),
            ("file-schema", of_sop("reads-a-file"), "InvalidPlan"),
            ("address-schema", of_sop("asks-an-address"), "InvalidPlan"),
        ];
        for (name, spec, _) in &cases {
            let mut run = idle(name, spec.clone());
            run.spec.suspend = None;
            run.metadata.labels = Some([(RUN_LABEL.to_owned(), "theirs".to_owned()), ("sopwith.dev/launch".to_owned(), "1".to_owned())].into());
            runs.create(&PostParams::default(), &run).await?;
        }
        let mut table = Attempts::new("deputy: what the operator refuses");
        for (name, _, expected) in &cases {
            let seen = namespace.until::<AgentRun>(name, 30, "an answer", |run| reason(run).is_some()).await?;
            let reason = reason(&seen).unwrap_or_default();
            let said = if expected.split('|').any(|expected| expected == reason) { Err(reason) } else { Ok(()) };
            table.refused(name, said.map_err(|_| (*expected).to_owned()), expected);
            let whole = serde_json::to_string(&seen)?;
            ensure!(!whole.contains(HIDDEN), "{name} shows what is hidden: {whole}");
        }
        table.end()?;
        let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
        ensure!(jobs.items.is_empty(), "Jobs were made: {:?}", jobs.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

/// Why a run failed, or what it waits for.
fn reason(run: &AgentRun) -> Option<String> {
    let status = run.status.as_ref()?;
    if let Some(failure) = &status.failure {
        return Some(failure.reason.to_string());
    }
    let ready = conditions::find(&status.conditions, conditions::READY)?;
    ready
        .reason
        .ends_with("NotFound")
        .then(|| ready.reason.clone())
}

/// Says hello to the gateway as a run's runner does, and prints the answers.
const SPEAKS: &str = r#"
import ssl, sys, urllib.request, urllib.error
token = open("/token/gateway").read()
trust = ssl.create_default_context(); trust.check_hostname = False; trust.verify_mode = ssl.CERT_NONE
for method, path in [("GET", "launches/1"), ("GET", "launches/2"), ("POST", "launches/1/reports"), ("GET", "snapshot"), ("PUT", "blobs/sha256:" + "0" * 64)]:
    url = "https://sopwith-gateway.sopwith-system.svc:8443/v1/runs/" + sys.argv[1] + "/" + path
    request = urllib.request.Request(url, method=method, data=b"{}" if method != "GET" else None, headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    try:
        print(method, path, urllib.request.urlopen(request, context=trust, timeout=20).status)
    except urllib.error.HTTPError as answer:
        print(method, path, answer.status, answer.read().decode())
print("done")
"#;

/// A pod that speaks to the gateway with a token that the kubelet made for it.
fn speaker(of: &str) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65533, "fsGroup": 65533, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "c", "image": "localhost/sopwith/workbench-python:dev", "command": ["python3", "-c", SPEAKS, of],
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": "token", "mountPath": "/token" }],
        }],
        "volumes": [{ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "audience": "gateway.sopwith.dev", "path": "gateway" } }] } }],
    })
}

#[tokio::test]
async fn who_may_make_pods_and_jobs_does_not_speak_for_a_run() -> Result<()> {
    in_namespace("deputy-pods", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("stuck/sop.yaml").await?;
        namespace.apply_fixture("stuck/run.yaml").await?;
        let run = namespace.until::<AgentRun>("hanging", 90, "running", |run| phase(run) == Some(Phase::Running)).await?;
        let uid = run.metadata.uid.clone().context("no uid")?;
        let real = namespace.api::<Job>().get("hanging-1").await?;
        let builder = Person::user("builder").await?.given(&namespace, "edit").await?.can(&namespace, "create pods").await?;
        let builder = builder.can(&namespace, "create jobs.batch").await?;
        let (pods, jobs, post) = (builder.api::<Pod>(&namespace), builder.api::<Job>(&namespace), PostParams::default());
        let whose = format!("{}/hanging", namespace.name);
        let of_job = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "hanging-1", "uid": real.metadata.uid, "controller": true, "blockOwnerDeletion": false }]);
        let of_run = json!([{ "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "name": "hanging", "uid": uid, "controller": true, "blockOwnerDeletion": false }]);
        let labels = json!({ RUN_LABEL: "hanging", "sopwith.dev/launch": "1" });
        let mut table = Attempts::new("deputy: pods and Jobs that pretend");
        let pod = |name: &str, labels: &Value, owners: &Value| -> Result<Pod> {
            Ok(serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels, "ownerReferences": owners }, "spec": speaker(&whose) }))?)
        };
        let words = "are made by Sopwith only";
        table.refused("a pod with labels and owner", pods.create(&post, &pod("forged", &labels, &of_job)?).await, words);
        let job = |name: &str, labels: &Value| -> Result<Job> {
            let template = json!({ "metadata": { "labels": { RUN_LABEL: "hanging", "sopwith.dev/launch": "2" } }, "spec": speaker(&whose) });
            Ok(serde_json::from_value(json!({
                "metadata": { "name": name, "labels": labels, "ownerReferences": of_run }, "spec": { "backoffLimit": 0, "template": template },
            }))?)
        };
        table.refused("a Job with labels and owner", jobs.create(&post, &job("hanging-2", &labels)?).await, words);
        // Without the labels they exist, and have real tokens of real pods.
        table.taken("a pod with the owner only", pods.create(&post, &pod("owned", &json!({}), &of_job)?).await);
        table.taken("a pod like any other", pods.create(&post, &pod("plain", &json!({}), &json!([]))?).await);
        table.taken("a Job with the owner, whose pod gets the labels", jobs.create(&post, &job("pretender", &json!({ "app": "pretender" }))?).await);
        let mut answers = 0;
        let mut wrong = Vec::new();
        for name in ["plain", "owned", "pretender"] {
            let said = said_by(&namespace, name).await?;
            for line in said.lines().filter(|line| *line != "done") {
                answers += 1;
                let refused = [" 401 ", " 403 ", " 404 "].iter().any(|status| line.contains(status));
                if !refused {
                    wrong.push(format!("{name}: {line}"));
                }
            }
            ensure!(said.lines().count() == 6, "{name} did not try everything: {said}");
        }
        eprintln!("deputy: {answers} requests to the gateway by pods that pretend, {} not refused", wrong.len());
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        table.end()?;
        // The run goes its way.
        let ended = namespace.ended_as("hanging", Phase::Succeeded, 120).await?;
        let launch = ended.status.and_then(|status| status.launch);
        ensure!(launch == Some(1), "{launch:?} launches");
        Ok(())
    })
    .await
}

/// What a pod, or the pod of a Job, has printed to its end.
async fn said_by(namespace: &Namespace, name: &str) -> Result<String> {
    let pods = namespace.api::<Pod>();
    let named = |pod: &Pod| {
        pod.name_any() == name
            || pod
                .labels()
                .get("batch.kubernetes.io/job-name")
                .is_some_and(|job| job == name)
    };
    let found = async {
        loop {
            let all = pods.list(&ListParams::default()).await?;
            if let Some(pod) = all.into_iter().find(named) {
                return anyhow::Ok(pod.name_any());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let pod = tokio::time::timeout(std::time::Duration::from_secs(30), found)
        .await
        .with_context(|| format!("no pod of {name}"))??;
    let over = |pod: &Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    namespace.until::<Pod>(&pod, 120, "its end", over).await?;
    Ok(pods.logs(&pod, &LogParams::default()).await?)
}
