//! This machine as the node of the local cluster: the processes of its pods, and signals to them.

use anyhow::{Context as _, Result, bail, ensure};
use std::{env, fs, path::PathBuf, process::Command, time::Duration};

/// Whether the cluster runs on this machine, so that its processes can be reached.
pub fn is_node() -> bool {
    state().is_ok()
}

/// The folder of the local cluster.
pub fn state() -> Result<PathBuf> {
    let folder = env::var_os("SOPWITH_STATE").map(PathBuf::from);
    folder
        .filter(|folder| folder.join("kubelet.yaml").exists())
        .context("the cluster is not one of this machine (e2e/cluster/env.sh): its processes cannot be reached")
}

/// Ids of the processes of a pod whose command line contains all these words.
pub fn processes_of(pod_uid: &str, words: &[&str]) -> Result<Vec<u32>> {
    ensure!(!pod_uid.is_empty(), "no pod");
    Ok(processes(|process| {
        let cgroup = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        // systemd as the cgroup driver writes names with underscores.
        let own = cgroup.contains(pod_uid) || cgroup.contains(&pod_uid.replace('-', "_"));
        own && says(process, words)
    }))
}

/// Ids of the processes of the cluster itself whose program is this one.
pub fn processes_of_cluster(program: &str) -> Result<Vec<u32>> {
    let state = state()?;
    let state = state.to_str().context("a path that is no text")?.to_owned();
    Ok(processes(|process| {
        let runs = fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with(program));
        runs && says(process, &[&state])
    }))
}

/// Waits until a pod has a process whose command line contains all these words; gives its id.
pub async fn process_of(pod_uid: &str, words: &[&str], seconds: u64) -> Result<u32> {
    let found = async {
        loop {
            if let Some(process) = processes_of(pod_uid, words)?.first() {
                return Ok(*process);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(seconds), found).await {
        Ok(found) => found,
        Err(_) => bail!("no process with {words:?} in pod {pod_uid} within {seconds} s"),
    }
}

/// Sends a signal, as `KILL`, to a process.
pub fn signal(process: u32, name: &str) -> Result<()> {
    let sent = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status()?;
    ensure!(sent.success(), "kill -{name} {process}: {sent}");
    Ok(())
}

fn processes(wanted: impl Fn(&std::path::Path) -> bool) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(|entry| wanted(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn says(process: &std::path::Path, words: &[&str]) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    !line.is_empty() && words.iter().all(|word| line.contains(word))
}
