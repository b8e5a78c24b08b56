//! The operator itself: what its pod may do, and what is in the images of ours.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::ListParams;
use sopwith_e2e::{OPERATOR_NAMESPACE, kubectl, namespace::in_namespace};
use std::{collections::BTreeSet, path::Path};

#[tokio::test]
async fn the_operator_runs_without_rights_on_its_node() -> Result<()> {
    in_namespace("operator-pod", async |namespace| {
        let pods = kube::Api::<Pod>::namespaced(namespace.client.clone(), OPERATOR_NAMESPACE);
        let label = ListParams::default().labels("app.kubernetes.io/component=operator");
        let pods = pods.list(&label).await?.items;
        ensure!(!pods.is_empty(), "no operator");
        for pod in pods {
            let spec = pod.spec.context("no spec")?;
            the_pod_is_confined(&spec)?;
            let statuses = pod.status.and_then(|status| status.container_statuses);
            for status in statuses.context("no container")? {
                let image = Image::of(&status.image).await?;
                image.has_only(&["sopwith-operator"])?;
            }
            let mut args = spec
                .containers
                .iter()
                .flat_map(|container| container.args.iter().flatten());
            let runner = args.find_map(|arg| arg.strip_prefix("--runner-image="));
            let runner = Image::of(runner.context("no runner image among the arguments")?).await?;
            runner.has_only(&["sopwith-runner"])?;
        }
        Ok(())
    })
    .await
}

fn the_pod_is_confined(spec: &PodSpec) -> Result<()> {
    ensure!(
        !spec.host_network.unwrap_or(false)
            && !spec.host_pid.unwrap_or(false)
            && !spec.host_ipc.unwrap_or(false),
        "it shares the host's namespaces"
    );
    let volumes = spec.volumes.iter().flatten();
    let host: Vec<_> = volumes
        .filter(|volume| volume.host_path.is_some())
        .collect();
    ensure!(host.is_empty(), "folders of the host: {host:?}");
    let pod = spec.security_context.clone().unwrap_or_default();
    let seccomp = pod.seccomp_profile.map(|profile| profile.type_);
    ensure!(
        seccomp.as_deref() == Some("RuntimeDefault"),
        "seccomp {seccomp:?}"
    );
    let (user, non_root) = (pod.run_as_user, pod.run_as_non_root);
    ensure!(
        non_root == Some(true) && user.is_some_and(|user| user > 0),
        "user {user:?}"
    );
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        the_container_is_confined(container).with_context(|| container.name.clone())?;
    }
    Ok(())
}

fn the_container_is_confined(container: &Container) -> Result<()> {
    let context = container
        .security_context
        .clone()
        .context("no security context")?;
    ensure!(context.privileged != Some(true), "privileged");
    ensure!(
        context.run_as_user != Some(0) && context.run_as_non_root != Some(false),
        "root"
    );
    ensure!(
        context.allow_privilege_escalation == Some(false),
        "may gain privileges"
    );
    ensure!(
        context.read_only_root_filesystem == Some(true),
        "writes into its image"
    );
    let capabilities = context.capabilities.unwrap_or_default();
    ensure!(
        capabilities.drop.as_deref() == Some(&["ALL".to_owned()]) && capabilities.add.is_none(),
        "{capabilities:?}"
    );
    Ok(())
}

/// An image of the local cluster, unpacked.
struct Image {
    name: String,
    folder: tempfile::TempDir,
}

impl Image {
    async fn of(name: &str) -> Result<Self> {
        let state = std::env::var("SOPWITH_STATE")
            .context("SOPWITH_STATE is not set: e2e/cluster/env.sh")?;
        let socket = format!("{state}/containerd/containerd.sock");
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let archive = path("image.tar");
        run(
            "ctr",
            &[
                "-a", &socket, "-n", "k8s.io", "images", "export", &archive, name,
            ],
        )
        .await?;
        let (blobs, root) = (path("archive"), path("root"));
        std::fs::create_dir(&blobs)?;
        std::fs::create_dir(&root)?;
        run("tar", &["-x", "-C", &blobs, "-f", &archive]).await?;
        let manifest = std::fs::read_to_string(Path::new(&blobs).join("manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        for layer in manifest[0]["Layers"].as_array().context("no layers")? {
            let layer = format!("{blobs}/{}", layer.as_str().unwrap_or_default());
            run("tar", &["-x", "-C", &root, "-f", &layer]).await?;
        }
        Ok(Self {
            name: name.to_owned(),
            folder,
        })
    }

    /// These programs, certificates that anybody may have, and nothing that speaks for anybody.
    fn has_only(&self, programs: &[&str]) -> Result<()> {
        let root = self.folder.path().join("root");
        let mut found = BTreeSet::new();
        files(&root, &root, &mut found)?;
        let mut expected: BTreeSet<String> = programs.iter().map(ToString::to_string).collect();
        expected.insert("etc/ssl/certs/ca-certificates.crt".to_owned());
        ensure!(found == expected, "in {}: {found:?}", self.name);
        for path in found {
            let bytes = std::fs::read(root.join(&path))?;
            for mark in [
                "eyJhbGciOi",
                "-----BEGIN PRIVATE KEY-----\nM",
                "-----BEGIN RSA PRIVATE KEY-----\nM",
            ] {
                let there = bytes
                    .windows(mark.len())
                    .any(|window| window == mark.as_bytes());
                ensure!(!there, "{mark} in {path} of {}", self.name);
            }
        }
        Ok(())
    }
}

fn files(top: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(top, &entry.path(), found)?;
        } else {
            found.insert(
                entry
                    .path()
                    .strip_prefix(top)?
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    Ok(())
}

async fn run(program: &str, args: &[&str]) -> Result<()> {
    let said = kubectl::run(program, args, &[], "").await?;
    if said.code != 0 {
        bail!("{program} {}: {}", args.join(" "), said.all());
    }
    Ok(())
}
