//! The admission policies of the chart on a real API server, rule by rule, as different users.

use crate::attempts::Attempts;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, RUN_LABEL, SopDefinition, ToolPolicy};
use sopwith_e2e::{
    namespace::{Namespace, in_namespace},
    people::Person,
    repository,
};
use std::{fs, time::Duration};

/// What is said of labels that are added, changed or removed.
const FOR_GOOD: &str = "belong to their run and launch for good";

/// A run that nothing is done for: it is suspended from the beginning.
#[expect(clippy::panic, reason = "a mistake in a test's own object")]
pub(crate) fn idle(name: &str, spec: Value) -> AgentRun {
    let mut whole = json!({ "sopRef": { "name": "none" }, "suspend": true });
    if spec.get("ideaFrom").is_none() {
        whole["idea"] = "x".into();
    }
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    let run = json!({ "metadata": { "name": name }, "spec": whole });
    serde_json::from_value(run).unwrap_or_else(|error| panic!("{error}"))
}

fn asked() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn from_map(name: &str) -> Value {
    json!({ "configMapKeyRef": { "name": name, "key": "k" } })
}

async fn config_maps(namespace: &Namespace, names: &[&str]) -> Result<()> {
    for name in names {
        let map = json!({ "metadata": { "name": name }, "data": { "k": "v" } });
        let maps = namespace.api::<ConfigMap>();
        maps.create(&PostParams::default(), &serde_json::from_value(map)?)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_run_is_created_only_under_a_policy_that_its_creator_may_use() -> Result<()> {
    in_namespace("may-use", async |namespace| {
        let dev = Person::user("dev").await?.given(&namespace, "sopwith-edit").await?;
        let dev = dev.can(&namespace, "create agentruns.sopwith.dev").await?;
        let lead = Person::user("lead").await?.given(&namespace, "sopwith-edit").await?;
        let lead = lead.given(&namespace, "sopwith-policy-user").await?;
        let lead = lead.can(&namespace, "use toolpolicies.sopwith.dev").await?.can(&namespace, "create agentruns.sopwith.dev").await?;
        let rules = json!([
            { "apiGroups": ["sopwith.dev"], "resources": ["agentruns"], "verbs": ["create"] },
            { "apiGroups": ["sopwith.dev"], "resources": ["toolpolicies"], "resourceNames": ["strong"], "verbs": ["use"] },
        ]);
        let pipeline = Person::account(&namespace, "pipeline").await?.given_rules(&namespace, rules).await?;
        let pipeline = pipeline.can(&namespace, "create agentruns.sopwith.dev").await?;
        let viewer = Person::user("viewer").await?.given(&namespace, "sopwith-view").await?;
        let viewer = viewer.can(&namespace, "get agentruns.sopwith.dev").await?;
        let mut table = Attempts::new("admission: use of policies");
        let strong = || json!({ "toolPolicyRef": { "name": "strong" } });
        for (who, spec, refused) in [
            (&dev, json!({}), None),
            (&dev, json!({ "toolPolicyRef": { "name": "default" } }), None),
            (&dev, strong(), Some("user \"dev\" may not use ToolPolicy \"strong\"")),
            (&lead, strong(), None),
            (&lead, json!({}), None),
            (&pipeline, strong(), None),
            (&pipeline, json!({}), Some(":pipeline\" may not use ToolPolicy \"default\"")),
            (&viewer, json!({}), Some("cannot create resource \"agentruns\"")),
        ] {
            let what = format!("{} with {spec}", who.name);
            let runs = who.api::<AgentRun>(&namespace);
            let answer = runs.create(&asked(), &idle("a", spec)).await;
            match refused {
                None => table.taken(&what, answer),
                Some(words) => table.refused(&what, answer, words),
            }
        }
        let mut generated = idle("", json!({}));
        generated.metadata.name = None;
        generated.metadata.generate_name = Some("a-".to_owned());
        let runs = dev.api::<AgentRun>(&namespace);
        table.taken("a name that the API server makes", runs.create(&asked(), &generated).await);
        let applied = runs.patch("b", &PatchParams { dry_run: true, ..PatchParams::apply("me") }, &Patch::Apply(json!({
            "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "metadata": { "name": "b" },
            "spec": { "idea": "x", "sopRef": { "name": "none" }, "toolPolicyRef": { "name": "strong" } },
        }))).await;
        table.refused("created by apply", applied, "may not use ToolPolicy \"strong\"");
        // A right that was taken away since does not hinder what exists: the run can still be suspended.
        runs.create(&PostParams::default(), &idle("mine", json!({}))).await?;
        let rules = json!([{ "apiGroups": ["sopwith.dev"], "resources": ["agentruns"], "verbs": ["get", "patch"] }]);
        let other = Person::user("other").await?.given_rules(&namespace, rules).await?;
        let other = other.can(&namespace, "patch agentruns.sopwith.dev").await?;
        let patch = Patch::Merge(json!({ "spec": { "suspend": true }, "metadata": { "labels": { "a": "b" } } }));
        let patched = other.api::<AgentRun>(&namespace).patch("mine", &PatchParams::default(), &patch).await;
        table.taken("suspended by one who may use no policy", patched);
        table.end()
    })
    .await
}

#[tokio::test]
async fn who_asked_is_who_created_the_run_or_is_left_out() -> Result<()> {
    in_namespace("requested-by", async |namespace| {
        let dev = Person::user("dev")
            .await?
            .given(&namespace, "sopwith-edit")
            .await?;
        let dev = dev.can(&namespace, "create agentruns.sopwith.dev").await?;
        let pipeline = Person::account(&namespace, "pipeline")
            .await?
            .given(&namespace, "sopwith-edit")
            .await?;
        let pipeline = pipeline
            .can(&namespace, "create agentruns.sopwith.dev")
            .await?;
        let mut table = Attempts::new("admission: who asked");
        let account = &pipeline.name;
        for (who, name, refused) in [
            (&dev, Some("dev"), false),
            (&dev, None, false),
            (&dev, Some("lead"), true),
            (&dev, Some("dev "), true),
            (&dev, Some("Dev"), true),
            (&dev, Some(account.as_str()), true),
            (&pipeline, Some(account.as_str()), false),
            (&pipeline, None, false),
            (&pipeline, Some("dev"), true),
            (&pipeline, Some("pipeline"), true),
        ] {
            let spec = name.map_or(json!({}), |name| json!({ "requestedBy": name }));
            let what = format!("{} says {name:?}", who.name);
            let answer = who
                .api::<AgentRun>(&namespace)
                .create(&asked(), &idle("a", spec))
                .await;
            if refused {
                table.refused(&what, answer, "spec.requestedBy is");
            } else {
                table.taken(&what, answer);
            }
        }
        let runs = dev.api::<AgentRun>(&namespace);
        runs.create(&PostParams::default(), &idle("a", json!({})))
            .await?;
        let later = Patch::Merge(json!({ "spec": { "requestedBy": "dev" } }));
        let patched = runs.patch("a", &PatchParams::default(), &later).await;
        table.refused(
            "added later",
            patched,
            "spec.requestedBy cannot be changed after creation",
        );
        table.end()
    })
    .await
}

#[tokio::test]
async fn a_run_and_a_procedure_read_no_config_map_that_their_author_may_not_read() -> Result<()> {
    in_namespace("config-maps", async |namespace| {
        config_maps(&namespace, &["notes", "more", "plans", "secret-plans"]).await?;
        let dev = Person::user("dev").await?.given(&namespace, "sopwith-edit").await?;
        let names = json!([{ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["notes", "more", "plans"], "verbs": ["get"] }]);
        let dev = dev.given_rules(&namespace, names).await?.can(&namespace, "get configmaps notes").await?;
        let dev = dev.can(&namespace, "create agentruns.sopwith.dev").await?;
        let reader = Person::user("reader").await?.given(&namespace, "sopwith-edit").await?;
        let all = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"] }]);
        let reader = reader.given_rules(&namespace, all).await?.can(&namespace, "get configmaps").await?;
        let reader = reader.can(&namespace, "create agentruns.sopwith.dev").await?;
        let input = |name: &str| json!({ "name": name.replace('-', "_"), "configMapKeyRef": { "name": name, "key": "k" } });
        let words = "may not get every ConfigMap";
        let mut table = Attempts::new("admission: ConfigMaps of runs and procedures");
        for (who, spec, refused) in [
            (&dev, json!({ "ideaFrom": from_map("notes") }), false),
            (&dev, json!({ "ideaFrom": from_map("secret-plans") }), true),
            (&dev, json!({ "ideaFrom": from_map("notes"), "inputs": [input("more")] }), false),
            (&dev, json!({ "ideaFrom": from_map("notes"), "inputs": [input("secret-plans")] }), true),
            (&dev, json!({ "inputs": [{ "name": "text", "value": "x" }, input("secret-plans")] }), true),
            (&dev, json!({ "inputs": [input("notes"), input("more"), input("plans")] }), true),
            (&reader, json!({ "inputs": [input("notes"), input("more"), input("secret-plans")] }), false),
            (&reader, json!({ "ideaFrom": from_map("secret-plans") }), false),
        ] {
            let what = format!("{}: run with {spec}", who.name);
            let answer = who.api::<AgentRun>(&namespace).create(&asked(), &idle("a", spec)).await;
            if refused {
                table.refused(&what, answer, words);
            } else {
                table.taken(&what, answer);
            }
        }
        let sop = |maps: &[&str], goal: &str| -> Result<SopDefinition> {
            let from: Vec<_> = maps.iter().map(|map| json!({ "configMap": map })).collect();
            Ok(serde_json::from_value(json!({
                "metadata": { "name": "s" },
                "spec": { "templatesFrom": from, "roles": [{ "name": "r", "goal": goal }], "steps": [{ "name": "a", "role": "r" }] },
            }))?)
        };
        let sops = dev.api::<SopDefinition>(&namespace);
        table.taken("a procedure with a template that its author may read", sops.create(&asked(), &sop(&["notes"], "g")?).await);
        let hidden = sop(&["notes", "secret-plans"], "g")?;
        table.refused("a procedure with a template that its author may not read", sops.create(&asked(), &hidden).await, words);
        // Who corrects somebody else's procedure need not read what it names already.
        let theirs = reader.api::<SopDefinition>(&namespace);
        theirs.create(&PostParams::default(), &sop(&["secret-plans"], "g")?).await?;
        let change = |value: Value| Patch::Merge(json!({ "spec": value }));
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let goal = change(json!({ "roles": [{ "name": "r", "goal": "better" }] }));
        table.taken("a word corrected", sops.patch("s", &params, &goal).await);
        let added = change(json!({ "templatesFrom": [{ "configMap": "secret-plans" }, { "configMap": "kube-root-ca.crt" }] }));
        table.refused("a template added that may not be read", sops.patch("s", &params, &added).await, words);
        table.end()
    })
    .await
}

#[tokio::test]
async fn a_run_begins_only_with_what_its_creator_may_read() -> Result<()> {
    in_namespace("earlier-runs", async |namespace| {
        let create = |names: &[&str]| {
            json!([
                { "apiGroups": ["sopwith.dev"], "resources": ["agentruns"], "verbs": ["create"] },
                { "apiGroups": ["sopwith.dev"], "resources": ["toolpolicies"], "verbs": ["use"] },
                { "apiGroups": ["sopwith.dev"], "resources": ["agentruns/dossier"], "resourceNames": names, "verbs": ["get"] },
            ])
        };
        // Without a name the rule would hold for all.
        let blind = Person::user("blind").await?.given_rules(&namespace, create(&["none"])).await?;
        let blind = blind.can(&namespace, "create agentruns.sopwith.dev").await?;
        let one = Person::user("one").await?.given_rules(&namespace, create(&["mine"])).await?;
        let one = one.can(&namespace, "get agentruns.sopwith.dev/dossier mine").await?;
        let all = Person::user("all").await?.given(&namespace, "sopwith-edit").await?;
        let all = all.can(&namespace, "get agentruns.sopwith.dev/dossier").await?;
        let source = |run: &str| json!({ "project": { "source": { "run": run } } });
        let recover = |run: &str| json!({ "recoverFrom": { "run": run } });
        let both = |source: &str, recover: &str| {
            json!({ "project": { "source": { "run": source } }, "recoverFrom": { "run": recover } })
        };
        let upload = json!({ "project": { "source": { "upload": format!("sha256:{}", "0".repeat(64)) } } });
        let project = "left, which spec.project.source.run names";
        let state = "left, which spec.recoverFrom names";
        let memory = "left, which spec.longTermMemory recalls";
        let remember = |on: bool| json!({ "project": { "name": "x" }, "longTermMemory": on });
        let mut table = Attempts::new("admission: what a run begins with");
        for (who, spec, refused) in [
            (&blind, json!({}), None),
            (&blind, json!({ "project": { "name": "x" } }), None),
            (&blind, upload, None),
            (&blind, source("mine"), Some(project)),
            (&blind, recover("mine"), Some(state)),
            (&blind, source("is-there-one"), Some(project)),
            (&one, source("mine"), None),
            (&one, recover("mine"), None),
            (&one, both("mine", "mine"), None),
            (&one, source("theirs"), Some(project)),
            (&one, recover("theirs"), Some(state)),
            (&one, both("mine", "theirs"), Some(state)),
            (&one, both("theirs", "mine"), Some(project)),
            (&all, both("mine", "theirs"), None),
            // Which runs are of the project cannot be known: it takes the right to read them all.
            (&blind, remember(false), None),
            (&blind, remember(true), Some(memory)),
            (&one, remember(true), Some(memory)),
            (&all, remember(true), None),
        ] {
            let what = format!("{}: {spec}", who.name);
            let answer = who.api::<AgentRun>(&namespace).create(&asked(), &idle("a", spec)).await;
            match refused {
                None => table.taken(&what, answer),
                Some(words) => table.refused(&what, answer, words),
            }
        }
        table.end()
    })
    .await
}

#[tokio::test]
async fn only_those_who_may_approve_give_a_run_more_money() -> Result<()> {
    in_namespace("investment", async |namespace| {
        let dev = Person::user("dev").await?.given(&namespace, "sopwith-edit").await?;
        let dev = dev.can(&namespace, "create agentruns.sopwith.dev").await?;
        let kate = Person::user("kate").await?.given(&namespace, "sopwith-approver").await?;
        let kate = kate.can(&namespace, "update agentruns.sopwith.dev/approve").await?;
        // May decide on one run only.
        let one = json!([
            { "apiGroups": ["sopwith.dev"], "resources": ["agentruns"], "verbs": ["get", "patch"] },
            { "apiGroups": ["sopwith.dev"], "resources": ["agentruns/approve"], "resourceNames": ["small"], "verbs": ["update"] },
        ]);
        let carl = Person::user("carl").await?.given_rules(&namespace, one).await?.can(&namespace, "patch agentruns.sopwith.dev").await?;
        let runs = dev.api::<AgentRun>(&namespace);
        runs.create(&PostParams::default(), &idle("unset", json!({}))).await?;
        runs.create(&PostParams::default(), &idle("small", json!({ "investment": "1.5" }))).await?;
        let mut table = Attempts::new("admission: money");
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        for (who, run, investment, refused) in [
            (&dev, "unset", "4.0", Some("user \"dev\" may not raise spec.investment of AgentRun \"unset\"")),
            (&dev, "unset", "3.0", None),
            (&dev, "small", "1.6", Some("may not raise spec.investment")),
            (&dev, "small", "1.5", None),
            (&kate, "unset", "4.0", None),
            (&kate, "small", "100", None),
            (&kate, "small", "1.4", Some("may be raised, not lowered")),
            (&carl, "small", "2.0", None),
            (&carl, "unset", "4.0", Some("user \"carl\" may not raise spec.investment of AgentRun \"unset\"")),
        ] {
            let patch = Patch::Merge(json!({ "spec": { "investment": investment } }));
            let answer = who.api::<AgentRun>(&namespace).patch(run, &params, &patch).await;
            let what = format!("{}: {run} to {investment}", who.name);
            match refused {
                None => table.taken(&what, answer),
                Some(words) => table.refused(&what, answer, words),
            }
        }
        table.end()
    })
    .await
}

#[tokio::test]
async fn nobody_but_the_operator_writes_a_status() -> Result<()> {
    in_namespace("status", async |namespace| {
        let rules = json!([{ "apiGroups": ["sopwith.dev"], "resources": ["*"], "verbs": ["*"] }]);
        let owner = Person::user("owner").await?.given_rules(&namespace, rules).await?;
        let owner = owner.can(&namespace, "patch agentruns.sopwith.dev/status").await?;
        let kate = Person::user("kate").await?.given(&namespace, "sopwith-approver").await?;
        let kate = kate.can(&namespace, "update agentruns.sopwith.dev/approve").await?;
        let operator = Person::account(&namespace, "sopwith-operator").await?;
        let rules = json!([{ "apiGroups": ["sopwith.dev"], "resources": ["agentruns/status"], "verbs": ["*"] }]);
        let operator = operator.given_rules(&namespace, rules).await?.can(&namespace, "patch agentruns.sopwith.dev/status").await?;
        let runs = owner.api::<AgentRun>(&namespace);
        let mut run = idle("a", json!({}));
        run.status = Some(serde_json::from_value(json!({ "phase": "Succeeded" }))?);
        let made = runs.create(&PostParams::default(), &run).await?;
        ensure!(made.status.as_ref().and_then(|status| status.phase).is_none(), "a status came with the creation: {:?}", made.status);
        let sop = json!({ "metadata": { "name": "s" }, "spec": { "steps": [{ "name": "a" }] } });
        owner.api::<SopDefinition>(&namespace).create(&PostParams::default(), &serde_json::from_value(sop)?).await?;
        let policy = json!({ "metadata": { "name": "default" }, "spec": {} });
        owner.api::<ToolPolicy>(&namespace).create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        let mut table = Attempts::new("admission: status");
        let params = PatchParams::default();
        let status = Patch::Merge(json!({ "status": { "observedGeneration": 7 } }));
        let words = "only the operator does";
        table.refused("of a run", runs.patch_status("a", &params, &status).await, words);
        let sops = owner.api::<SopDefinition>(&namespace);
        table.refused("of a procedure", sops.patch_status("s", &params, &status).await, words);
        let policies = owner.api::<ToolPolicy>(&namespace);
        table.refused("of a policy", policies.patch_status("default", &params, &status).await, words);
        let admin = namespace.api::<AgentRun>();
        table.refused("by a cluster administrator", admin.patch_status("a", &params, &status).await, words);
        let applied = json!({ "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "status": { "phase": "Succeeded" } });
        let by_apply = runs.patch_status("a", &PatchParams::apply("me").force(), &Patch::Apply(applied)).await;
        table.refused("by apply", by_apply, words);
        let current = runs.get("a").await?;
        let replaced = runs.replace_status("a", &PostParams::default(), &current).await;
        table.refused("by replace", replaced, words);
        let named = operator.api::<AgentRun>(&namespace).patch_status("a", &params, &status).await;
        table.refused("by an account of the operator's name in another namespace", named, words);
        let approver = kate.api::<AgentRun>(&namespace).patch_status("a", &params, &status).await;
        table.refused("by an approver", approver, "cannot patch resource \"agentruns/status\"");
        let through = Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
        let through = runs.patch("a", &params, &through).await?;
        ensure!(through.status.and_then(|status| status.phase) != Some(sopwith_crds::status::Phase::Succeeded), "through the object itself");
        table.end()
    })
    .await
}

#[tokio::test]
async fn what_bears_the_label_of_a_run_is_made_by_sopwith_only() -> Result<()> {
    in_namespace("owned", async |namespace| Box::pin(owned(&namespace)).await).await
}

/// A pod that runs nowhere: it is only about the object.
fn pod(name: &str, labels: &Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeSelector": { "sopwith.dev/nowhere": "true" },
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "c", "image": "x", "securityContext": confined() }],
        },
    }))?)
}

fn job(name: &str, labels: &Value) -> Result<Job> {
    let mut template = serde_json::to_value(pod("", labels)?)?;
    template["spec"]["restartPolicy"] = "Never".into();
    template["metadata"]["name"] = Value::Null;
    let spec = json!({ "template": template });
    Ok(serde_json::from_value(
        json!({ "metadata": { "name": name, "labels": labels }, "spec": spec }),
    )?)
}

fn confined() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

async fn owned(namespace: &Namespace) -> Result<()> {
    let (pods, jobs, post) = (
        namespace.api::<Pod>(),
        namespace.api::<Job>(),
        PostParams::default(),
    );
    let (ours, theirs) = (json!({ RUN_LABEL: "a" }), json!({ "app": "a" }));
    let mut table = Attempts::new("admission: what bears a run's label");
    table.taken(
        "any other pod",
        pods.create(&post, &pod("plain", &theirs)?).await,
    );
    table.taken(
        "any other Job",
        jobs.create(&post, &job("plain", &theirs)?).await,
    );
    let words = "are made by Sopwith only";
    table.refused(
        "a pod",
        pods.create(&post, &pod("forged", &ours)?).await,
        words,
    );
    table.refused(
        "a Job",
        jobs.create(&post, &job("forged", &ours)?).await,
        words,
    );
    let label = Patch::Merge(json!({ "metadata": { "labels": ours } }));
    let params = PatchParams::default();
    let taken = pods.patch("plain", &params, &label).await;
    table.refused("a pod that takes the label later", taken, FOR_GOOD);
    let taken = jobs.patch("plain", &params, &label).await;
    table.refused("a Job that takes the label later", taken, FOR_GOOD);
    made_for_a_run(namespace, &mut table).await?;
    table.end()
}

/// The Job and the pod of a real run, which waits for a node that does not exist.
async fn made_for_a_run(namespace: &Namespace, table: &mut Attempts) -> Result<()> {
    let (pods, jobs, params) = (
        namespace.api::<Pod>(),
        namespace.api::<Job>(),
        PatchParams::default(),
    );
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply_fixture("small/sop.yaml").await?;
    let nowhere = json!({ "nodeSelector": { "sopwith.dev/nowhere": "true" } });
    let mut run = idle(
        "a",
        json!({ "sopRef": { "name": "hello" }, "runner": nowhere }),
    );
    run.spec.suspend = None;
    namespace
        .api::<AgentRun>()
        .create(&PostParams::default(), &run)
        .await?;
    let there = |job: &Job| {
        job.status
            .as_ref()
            .is_some_and(|status| status.active == Some(1))
    };
    namespace.until::<Job>("a-1", 60, "a pod", there).await?;
    let of_run = kube::api::ListParams::default().labels(&format!("{RUN_LABEL}=a"));
    let real = pods
        .list(&of_run)
        .await?
        .items
        .into_iter()
        .next()
        .context("no pod")?;
    let real = real.metadata.name.context("no name")?;
    for (what, labels) in [
        ("the label of another run", json!({ RUN_LABEL: "b" })),
        ("no label any more", json!({ RUN_LABEL: null })),
        ("another launch", json!({ "sopwith.dev/launch": "7" })),
    ] {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let patched = pods.patch(&real, &params, &patch).await;
        table.refused(&format!("a run's pod: {what}"), patched, FOR_GOOD);
        let patched = jobs.patch("a-1", &params, &patch).await;
        table.refused(&format!("a run's Job: {what}"), patched, FOR_GOOD);
    }
    let uid = "00000000-0000-0000-0000-000000000000";
    let owner = json!({ "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "name": "b", "uid": uid });
    let owner = Patch::Strategic(json!({ "metadata": { "ownerReferences": [owner] } }));
    let words = "no further owner can be added";
    table.refused(
        "a run's Job: a second owner",
        jobs.patch("a-1", &params, &owner).await,
        words,
    );
    table.refused(
        "a run's pod: a second owner",
        pods.patch(&real, &params, &owner).await,
        words,
    );
    let mut security = confined();
    security["runAsNonRoot"] = true.into();
    security["seccompProfile"] = json!({ "type": "RuntimeDefault" });
    let debug = json!([{ "name": "d", "image": "x", "securityContext": security }]);
    let debug = Patch::Strategic(json!({ "spec": { "ephemeralContainers": debug } }));
    let debugged = pods
        .patch_subresource("ephemeralcontainers", &real, &params, &debug)
        .await;
    table.refused(
        "a run's pod: a debug container",
        debugged,
        "a debug container in them is not allowed",
    );
    let harmless = Patch::Merge(json!({ "metadata": { "annotations": { "a": "b" } } }));
    table.taken(
        "a run's pod: an annotation",
        pods.patch(&real, &params, &harmless).await,
    );
    table.taken(
        "a run's pod deleted",
        pods.delete(&real, &DeleteParams::default()).await,
    );
    Ok(())
}

#[tokio::test]
async fn a_pods_token_for_the_gateway_is_made_by_its_kubelet_only() -> Result<()> {
    in_namespace("tokens", async |namespace| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "mine" },
            "spec": {
                "nodeSelector": { "sopwith.dev/nowhere": "true" },
                "securityContext": { "runAsNonRoot": true, "runAsUser": 1, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{ "name": "c", "image": "x", "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
            },
        }))?;
        let pod = namespace.api::<Pod>().create(&PostParams::default(), &pod).await?;
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": pod.metadata.uid });
        let accounts = namespace.api::<ServiceAccount>();
        let mut table = Attempts::new("admission: tokens for the gateway");
        for (what, spec, refused) in [
            ("bound to a pod, for the gateway", json!({ "audiences": ["gateway.sopwith.dev"], "boundObjectRef": bound }), true),
            ("bound to a pod, for the gateway among others", json!({ "audiences": ["x", "gateway.sopwith.dev"], "boundObjectRef": bound }), true),
            ("bound to a pod, for another", json!({ "audiences": ["x"], "boundObjectRef": bound }), false),
            ("for the gateway, of no pod", json!({ "audiences": ["gateway.sopwith.dev"] }), false),
            ("for the API server", json!({ "audiences": [] }), false),
        ] {
            let request = serde_json::from_value(json!({ "spec": spec }))?;
            let answer = accounts.create_token_request("default", &PostParams::default(), &request).await;
            if refused {
                table.refused(what, answer, "only the kubelet does, for the pod itself");
            } else {
                table.taken(what, answer);
            }
        }
        table.end()
    })
    .await
}

#[tokio::test]
async fn in_namespaces_for_production_only_what_was_promoted_changes() -> Result<()> {
    in_namespace("promotion", async |namespace| {
        let spec = fs::read_to_string(repository().join("charts/sopwith/admission/promotion.yaml"))?;
        let spec: Value = serde_saphyr::from_str(&spec)?;
        let name = format!("{}-promotion", namespace.name);
        let policy = json!({ "metadata": { "name": name }, "spec": spec });
        let here = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace.name } } });
        let binding = json!({ "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": ["Deny"], "matchResources": here } });
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(namespace.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(namespace.client.clone());
        policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        let tried = promotion(&namespace).await;
        bindings.delete(&name, &DeleteParams::default()).await?;
        policies.delete(&name, &DeleteParams::default()).await?;
        tried
    })
    .await
}

async fn promotion(namespace: &Namespace) -> Result<()> {
    let admin = Person::user("boss")
        .await?
        .given(namespace, "admin")
        .await?;
    let admin = admin
        .can(namespace, "create toolpolicies.sopwith.dev")
        .await?;
    let promoter = Person::user("promoter")
        .await?
        .given(namespace, "sopwith-promoter")
        .await?;
    let promoter = promoter
        .can(namespace, "promote toolpolicies.sopwith.dev")
        .await?;
    let policy: ToolPolicy =
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": {} }))?;
    let sop: SopDefinition = serde_json::from_value(
        json!({ "metadata": { "name": "s" }, "spec": { "steps": [{ "name": "a" }] } }),
    )?;
    let refused = admin.api::<ToolPolicy>(namespace);
    let in_force = async {
        while refused.create(&asked(), &policy).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), in_force)
        .await
        .context("the policy never took effect")?;
    let mut table = Attempts::new("admission: promotion");
    let words = "where only what was promoted may run";
    table.refused(
        "a policy by an administrator",
        refused.create(&asked(), &policy).await,
        words,
    );
    let sops = admin.api::<SopDefinition>(namespace);
    table.refused(
        "a procedure by an administrator",
        sops.create(&asked(), &sop).await,
        words,
    );
    let post = PostParams::default();
    table.taken(
        "a policy by a promoter",
        promoter
            .api::<ToolPolicy>(namespace)
            .create(&post, &policy)
            .await,
    );
    table.taken(
        "a procedure by a promoter",
        promoter
            .api::<SopDefinition>(namespace)
            .create(&post, &sop)
            .await,
    );
    let params = PatchParams::default();
    let change = Patch::Merge(json!({ "spec": { "environments": ["prod"] } }));
    table.refused(
        "a change by an administrator",
        refused.patch("p", &params, &change).await,
        words,
    );
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    table.taken(
        "a label by an administrator",
        refused.patch("p", &params, &label).await,
    );
    table.taken(
        "a change by a promoter",
        promoter
            .api::<ToolPolicy>(namespace)
            .patch("p", &params, &change)
            .await,
    );
    table.end()
}

#[tokio::test]
async fn the_roles_of_the_cluster_give_what_the_docs_say() -> Result<()> {
    in_namespace("roles", async |namespace| {
        let rights = [
            "get agentruns.sopwith.dev",
            "create agentruns.sopwith.dev",
            "update sopdefinitions.sopwith.dev",
            "use toolpolicies.sopwith.dev default",
            "get agentruns.sopwith.dev/dossier",
            "create agentruns.sopwith.dev/upload",
            "use toolpolicies.sopwith.dev strong",
            "update agentruns.sopwith.dev/approve",
            "create toolpolicies.sopwith.dev",
            "promote toolpolicies.sopwith.dev",
            "patch agentruns.sopwith.dev/status",
            "update sopdefinitions.sopwith.dev/status",
            "patch toolpolicies.sopwith.dev/status",
        ];
        let mut wrong = Vec::new();
        // How many of the rights above, from the first on, a role has; and those it has beyond.
        for (role, first, further) in [
            ("view", 1, &[][..]),
            ("edit", 6, &[]),
            ("admin", 9, &[]),
            ("sopwith-view", 1, &[]),
            (
                "sopwith-edit",
                0,
                &[
                    "create agentruns.sopwith.dev",
                    "update sopdefinitions.sopwith.dev",
                    "use toolpolicies.sopwith.dev default",
                    "get agentruns.sopwith.dev/dossier",
                    "create agentruns.sopwith.dev/upload",
                ],
            ),
            (
                "sopwith-policy-user",
                0,
                &[
                    "use toolpolicies.sopwith.dev default",
                    "use toolpolicies.sopwith.dev strong",
                ],
            ),
            (
                "sopwith-approver",
                1,
                &[
                    "get agentruns.sopwith.dev/dossier",
                    "update agentruns.sopwith.dev/approve",
                ],
            ),
            (
                "sopwith-policy-admin",
                0,
                &["create toolpolicies.sopwith.dev"],
            ),
            (
                "sopwith-dossier-reader",
                0,
                &["get agentruns.sopwith.dev/dossier"],
            ),
            (
                "sopwith-uploader",
                0,
                &["create agentruns.sopwith.dev/upload"],
            ),
            (
                "sopwith-promoter",
                0,
                &[
                    "update sopdefinitions.sopwith.dev",
                    "create toolpolicies.sopwith.dev",
                    "promote toolpolicies.sopwith.dev",
                ],
            ),
            ("cluster-admin", rights.len(), &[]),
        ] {
            let who = Person::user(&format!("with-{role}"))
                .await?
                .given(&namespace, role)
                .await?;
            let has = |index: usize, right: &str| index < first || further.contains(&right);
            let one = rights
                .iter()
                .enumerate()
                .find(|(index, right)| has(*index, right))
                .context("a role without rights")?;
            let who = who.can(&namespace, one.1).await?;
            for (index, right) in rights.iter().enumerate() {
                if who.may(&namespace, right).await? != has(index, right) {
                    wrong.push(format!("{role}: {right}: should be {}", has(index, right)));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await
}
