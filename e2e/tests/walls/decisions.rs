//! Attempts to decide in another's name, or otherwise than the rules say, on a real API server.

use crate::{admission::idle, attempts::Attempts};
use anyhow::{Context as _, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, agent_run::Decision};
use sopwith_e2e::{
    namespace::{Namespace, in_namespace},
    people::Person,
};

const RUN: &str = "waits";
const CHANGED: &str = "no decision can be changed or removed";
const NOT_HIS: &str = "but it is user \"carl\" who adds it";

/// A decision on an attempt of a gate.
fn decision(gate: &str, attempt: u32, by: &str) -> Value {
    json!({
        "step": "review", "gate": gate, "attempt": attempt, "subject": format!("sha256:{}", "0".repeat(64)),
        "verdict": "Approve", "by": by,
    })
}

/// The people of these tests, and a run on which kate has decided once.
struct Cast {
    namespace: Namespace,
    /// Creates runs.
    dev: Person,
    /// Approves, and has done so.
    kate: Person,
    /// Approves.
    carl: Person,
    /// An account that approves.
    robot: Person,
}

impl Cast {
    async fn gathered(namespace: &Namespace) -> Result<Self> {
        let approver = |person: Person| async move {
            let person = person.given(namespace, "sopwith-approver").await?;
            let updates = json!([{ "apiGroups": ["sopwith.dev"], "resources": ["agentruns"], "verbs": ["update"] }]);
            let person = person.given_rules(namespace, updates).await?;
            let person = person
                .can(namespace, "update agentruns.sopwith.dev/approve")
                .await?;
            person.can(namespace, "update agentruns.sopwith.dev").await
        };
        let dev = Person::user("dev")
            .await?
            .given(namespace, "sopwith-edit")
            .await?
            .given(namespace, "sopwith-view")
            .await?;
        let cast = Self {
            namespace: namespace.clone(),
            dev: dev
                .can(namespace, "create agentruns.sopwith.dev")
                .await?
                .can(namespace, "get agentruns.sopwith.dev")
                .await?,
            kate: approver(Person::user("kate").await?).await?,
            carl: approver(Person::user("carl").await?).await?,
            robot: approver(Person::account(namespace, "robot").await?).await?,
        };
        let runs = cast.of(&cast.dev);
        runs.create(&PostParams::default(), &idle(RUN, json!({})))
            .await?;
        cast.merge(&cast.kate, json!([decision("plan", 1, "kate")]))
            .await?;
        Ok(cast)
    }

    fn of(&self, who: &Person) -> Api<AgentRun> {
        who.api(&self.namespace)
    }

    async fn merge(&self, who: &Person, decisions: Value) -> Result<AgentRun, kube::Error> {
        let patch = Patch::Merge(json!({ "spec": { "decisions": decisions } }));
        self.of(who)
            .patch(RUN, &PatchParams::default(), &patch)
            .await
    }

    async fn json(&self, who: &Person, patch: Value) -> Result<AgentRun, kube::Error> {
        let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let patch = Patch::<()>::Json(patch);
        self.of(who)
            .patch(RUN, &PatchParams::default(), &patch)
            .await
    }

    async fn apply(
        &self,
        who: &Person,
        manager: &str,
        decisions: &[Value],
    ) -> Result<AgentRun, kube::Error> {
        let object = json!({ "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "spec": { "decisions": decisions } });
        let params = PatchParams::apply(manager).force();
        self.of(who)
            .patch(RUN, &params, &Patch::Apply(object))
            .await
    }

    /// Puts the whole object back with other decisions, as `kubectl replace` does.
    async fn replace(
        &self,
        who: &Person,
        change: impl Fn(&mut Vec<Decision>),
    ) -> Result<Result<AgentRun, kube::Error>> {
        loop {
            let mut run = self.of(who).get(RUN).await?;
            change(&mut run.spec.decisions);
            match self
                .of(who)
                .replace(RUN, &PostParams::default(), &run)
                .await
            {
                // The operator has written the status meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                answer => return Ok(answer),
            }
        }
    }

    async fn decisions(&self) -> Result<Vec<Decision>> {
        Ok(self
            .namespace
            .api::<AgentRun>()
            .get(RUN)
            .await?
            .spec
            .decisions)
    }
}

fn typed(value: Value) -> Result<Decision> {
    Ok(serde_json::from_value(value)?)
}

#[tokio::test]
async fn a_decision_is_made_by_who_may_and_in_no_others_name() -> Result<()> {
    in_namespace("decide-as", async |namespace| {
        let cast = Cast::gathered(&namespace).await?;
        let kates = decision("plan", 1, "kate");
        let with = |added: Value| json!([kates, added]);
        let mut table = Attempts::new("decisions: in whose name");
        for (what, who, by, words) in [
            ("another's", &cast.carl, "kate", NOT_HIS),
            ("nobody's", &cast.carl, "somebody", NOT_HIS),
            ("one that looks alike", &cast.carl, "carl ", NOT_HIS),
            ("one that looks alike to people", &cast.carl, "c\u{430}rl", NOT_HIS),
            ("the requester's", &cast.carl, "dev", NOT_HIS),
            ("one's own without the right", &cast.dev, "dev", "user \"dev\" may not decide on AgentRun \"waits\""),
            ("another's without the right", &cast.dev, "kate", "but it is user \"dev\" who adds it"),
            ("a person's, as a service account", &cast.robot, "kate", "robot\" who adds it"),
            ("the account's short name", &cast.robot, "robot", "robot\" who adds it"),
        ] {
            table.refused(&format!("{what}, by merge patch"), cast.merge(who, with(decision("code", 1, by))).await, words);
            let add = json!([{ "op": "add", "path": "/spec/decisions/-", "value": decision("code", 1, by) }]);
            table.refused(&format!("{what}, by JSON patch"), cast.json(who, add).await, words);
            table.refused(&format!("{what}, by apply"), cast.apply(who, "attempt", &[decision("code", 1, by)]).await, words);
        }
        let copy = json!([
            { "op": "copy", "from": "/spec/decisions/0", "path": "/spec/decisions/-" },
            { "op": "replace", "path": "/spec/decisions/1/gate", "value": "code" },
        ]);
        table.refused("a copy of another's on another gate", cast.json(&cast.carl, copy).await, NOT_HIS);
        let forged = typed(decision("code", 1, "kate"))?;
        table.refused("another's, by replace", cast.replace(&cast.carl, |all| all.push(forged.clone())).await?, NOT_HIS);
        let by_nobody = json!({ "step": "review", "gate": "code", "attempt": 1, "subject": format!("sha256:{}", "0".repeat(64)), "verdict": "Approve" });
        table.refused("without a name", cast.merge(&cast.carl, json!([kates, by_nobody])).await, "by: Required value");
        let viewer = Person::user("viewer").await?.given(&namespace, "sopwith-view").await?.can(&namespace, "get agentruns.sopwith.dev").await?;
        table.refused("by one who only sees", cast.merge(&viewer, with(decision("code", 1, "viewer"))).await, "cannot patch resource \"agentruns\"");
        ensure!(cast.decisions().await?.len() == 1, "one of them came through");
        table.taken("one's own", cast.merge(&cast.carl, with(decision("code", 1, "carl"))).await);
        let account = cast.robot.name.clone();
        let add = json!([{ "op": "add", "path": "/spec/decisions/-", "value": decision("code", 1, &account) }]);
        table.taken("an account's own, who may", cast.json(&cast.robot, add).await);
        table.taken("one's own, by apply", cast.apply(&cast.kate, "kates-kubectl", &[decision("code", 1, "kate")]).await);
        let own = typed(decision("tests", 1, "kate"))?;
        let replaced = cast.replace(&cast.kate, |all| all.push(own.clone())).await?;
        table.taken("one's own, by replace", replaced);
        let all = cast.decisions().await?;
        table.end()?;
        ensure!(all.len() == 5, "{all:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_decision_is_changed_or_removed_by_any_way_of_writing() -> Result<()> {
    in_namespace("decide-stays", async |namespace| {
        let cast = Cast::gathered(&namespace).await?;
        let mine = decision("code", 1, "kate");
        cast.apply(&cast.kate, "kates-kubectl", std::slice::from_ref(&mine)).await?;
        let before = cast.decisions().await?;
        ensure!(before.len() == 2, "{before:?}");
        let mut table = Attempts::new("decisions: changed or removed");
        // Who decided, an other approver, and the cluster's administrator, whom admission asks no less.
        let admin = Person::user("admin").await?.given(&namespace, "cluster-admin").await?.can(&namespace, "update agentruns.sopwith.dev/approve").await?;
        for who in [&cast.kate, &cast.carl, &admin] {
            let name = &who.name;
            for (what, field, value) in [
                ("verdict", "verdict", json!("Reject")),
                ("reason", "reason", json!("on second thoughts")),
                ("time", "at", json!("2020-01-01T00:00:00Z")),
                ("subject", "subject", json!(format!("sha256:{}", "1".repeat(64)))),
                ("attempt", "attempt", json!(2)),
                ("name", "by", json!(name)),
            ] {
                let mut changed = decision("plan", 1, "kate");
                if changed[field] == value {
                    continue;
                }
                changed[field] = value.clone();
                let merged = cast.merge(who, json!([changed, mine])).await;
                table.refused(&format!("{name}: {what}, by merge patch"), merged, CHANGED);
                let patch = json!([{ "op": "add", "path": format!("/spec/decisions/0/{field}"), "value": value }]);
                table.refused(&format!("{name}: {what}, by JSON patch"), cast.json(who, patch).await, CHANGED);
            }
            let reject = cast.replace(who, |all| all[0].verdict = sopwith_crds::agent_run::DecisionVerdict::Reject).await?;
            table.refused(&format!("{name}: verdict, by replace"), reject, CHANGED);
            table.refused(&format!("{name}: removed, by replace"), cast.replace(who, |all| drop(all.remove(0))).await?, CHANGED);
            table.refused(&format!("{name}: all removed, by replace"), cast.replace(who, Vec::clear).await?, CHANGED);
            table.refused(&format!("{name}: all removed, by merge patch"), cast.merge(who, Value::Null).await, CHANGED);
            table.refused(&format!("{name}: an empty list, by merge patch"), cast.merge(who, json!([])).await, CHANGED);
            let remove = json!([{ "op": "remove", "path": "/spec/decisions/0" }]);
            table.refused(&format!("{name}: removed, by JSON patch"), cast.json(who, remove).await, CHANGED);
            let list = json!([{ "op": "remove", "path": "/spec/decisions" }]);
            table.refused(&format!("{name}: the list removed, by JSON patch"), cast.json(who, list).await, CHANGED);
            let instead = cast.merge(who, json!([mine, decision("tests", 1, name)])).await;
            table.refused(&format!("{name}: another in its place"), instead, CHANGED);
            let spec = Patch::Merge(json!({ "spec": null }));
            let without = cast.of(who).patch(RUN, &PatchParams::default(), &spec).await;
            table.refused(&format!("{name}: the whole spec removed"), without, "spec: Required value");
        }
        // The manager that applied a decision owns it: what it no longer applies is removed, or would be.
        table.refused("no longer applied by its manager", cast.apply(&cast.kate, "kates-kubectl", &[]).await, CHANGED);
        let mut changed = mine.clone();
        changed["verdict"] = "Reject".into();
        table.refused("applied otherwise by its manager", cast.apply(&cast.kate, "kates-kubectl", &[changed.clone()]).await, CHANGED);
        table.refused("applied otherwise by another manager, with force", cast.apply(&cast.kate, "other", &[changed.clone()]).await, CHANGED);
        table.refused("applied otherwise by another approver, with force", cast.apply(&cast.carl, "other", &[changed.clone()]).await, CHANGED);
        let twice = cast.merge(&cast.kate, json!([before[0], mine, changed])).await;
        table.refused("a second by the same on the same attempt", twice, "Duplicate value");
        ensure!(cast.decisions().await? == before, "{:?}", cast.decisions().await?);
        // Their order means nothing, and who changes it adds nothing.
        table.taken("in another order", cast.merge(&cast.carl, json!([mine, before[0]])).await);
        let after = cast.decisions().await?;
        ensure!(after.len() == 2 && before.iter().all(|decision| after.contains(decision)), "{after:?}");
        table.end()
    })
    .await
}

#[tokio::test]
async fn one_decision_at_a_time_on_a_run_that_is_there_through_its_spec() -> Result<()> {
    // Boxed: it is long, and so would be whatever waits for it.
    Box::pin(in_namespace("decide-how", async |namespace| {
        let cast = Cast::gathered(&namespace).await?;
        let kates = decision("plan", 1, "kate");
        let mut table = Attempts::new("decisions: one at a time, on what is there");
        let words = "takes one more decision in a request";
        let two = json!([kates, decision("code", 1, "kate"), decision("tests", 1, "kate")]);
        table.refused("two of one's own", cast.merge(&cast.kate, two).await, words);
        let mixed = json!([kates, decision("code", 1, "kate"), decision("code", 1, "carl")]);
        table.refused("one's own and another's", cast.merge(&cast.kate, mixed).await, words);
        let applied = [decision("code", 1, "kate"), decision("tests", 1, "kate")];
        table.refused("two by apply", cast.apply(&cast.kate, "kates-kubectl", &applied).await, words);
        let both = (typed(applied[0].clone())?, typed(applied[1].clone())?);
        table.refused("two by replace", cast.replace(&cast.kate, |all| all.extend([both.0.clone(), both.1.clone()])).await?, words);
        let both = json!([
            { "op": "add", "path": "/spec/decisions/-", "value": applied[0] },
            { "op": "add", "path": "/spec/decisions/-", "value": applied[1] },
        ]);
        table.refused("two by JSON patch", cast.json(&cast.kate, both).await, words);
        let on_creation = idle("other", json!({ "decisions": [decision("code", 1, "dev")] }));
        let words = "spec.decisions must be empty in a new AgentRun";
        table.refused("with the creation", cast.of(&cast.dev).create(&PostParams::default(), &on_creation).await, words);
        let admin = namespace.api::<AgentRun>();
        table.refused("with the creation, by an administrator", admin.create(&PostParams::default(), &on_creation).await, words);
        let whole = json!({
            "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "metadata": { "name": "other" },
            "spec": { "idea": "x", "sopRef": { "name": "none" }, "decisions": [decision("code", 1, "dev")] },
        });
        let params = PatchParams::apply("devs-kubectl");
        let created = cast.of(&cast.dev).patch("other", &params, &Patch::Apply(whole)).await;
        table.refused("with the creation, by apply", created, words);
        let spec = Patch::Merge(json!({ "spec": { "decisions": [kates, decision("code", 1, "carl")] } }));
        let status = cast.of(&cast.carl).patch_status(RUN, &PatchParams::default(), &spec).await;
        table.refused("through the status", status, "cannot patch resource \"agentruns/status\"");
        let status = admin.patch_status(RUN, &PatchParams::default(), &spec).await;
        table.refused("through the status, by an administrator", status, "only the operator does");
        let stale = cast.of(&cast.carl).get(RUN).await?;
        cast.merge(&cast.kate, json!([kates, decision("code", 1, "kate")])).await?;
        let replaced = cast.of(&cast.carl).replace(RUN, &PostParams::default(), &stale).await;
        table.refused("by replace of what has changed since", replaced, "the object has been modified");
        // Who deletes the run and creates it again takes no decision along.
        let uid = stale.metadata.uid.clone().context("no uid")?;
        cast.of(&cast.dev).delete(RUN, &DeleteParams::background()).await?;
        let gone = kube::runtime::wait::await_condition(admin.clone(), RUN, kube::runtime::wait::conditions::is_deleted(&uid));
        tokio::time::timeout(std::time::Duration::from_secs(30), gone).await??;
        let mut again = stale.clone();
        again.metadata = kube::api::ObjectMeta { name: Some(RUN.to_owned()), ..Default::default() };
        table.refused("with a run created again", cast.of(&cast.dev).create(&PostParams::default(), &again).await, words);
        again.spec.decisions.clear();
        table.taken("a run created again, without", cast.of(&cast.dev).create(&PostParams::default(), &again).await);
        ensure!(cast.decisions().await?.is_empty(), "it kept decisions");
        table.end()
    }))
    .await
}
