//! Programs that users would call: kubectl, its plugin, and kstatus' own code.

use anyhow::{Context as _, Result, bail};
use std::{ffi::OsStr, process::Stdio};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Said {
    /// Everything it said, for messages of tests.
    pub fn all(&self) -> String {
        format!(
            "exit {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// Runs a program to its end, with these variables beside our own.
pub async fn run(
    program: &str,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    variables: &[(&str, &OsStr)],
    stdin: &str,
) -> Result<Said> {
    let mut child = Command::new(program)
        .args(args)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!("starting {program}: is the cluster's environment loaded (e2e/cluster/env.sh)?")
        })?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    pipe.write_all(stdin.as_bytes()).await?;
    drop(pipe);
    let output = child.wait_with_output().await?;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs kubectl and fails where it fails.
pub async fn kubectl(args: &[&str]) -> Result<String> {
    let said = run("kubectl", args, &[], "").await?;
    if said.code != 0 {
        bail!("kubectl {}: {}", args.join(" "), said.all());
    }
    Ok(said.stdout)
}

/// The status that kstatus' own code computes for an object: `InProgress`, `Current`, `Failed` …
pub async fn kstatus(object: &impl serde::Serialize) -> Result<String> {
    let said = run("kstatus", [""; 0], &[], &serde_json::to_string(object)?).await?;
    // 1 says that the object is not Current.
    if !(0..=1).contains(&said.code) {
        bail!("kstatus: {}", said.all());
    }
    Ok(said
        .stdout
        .split(':')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned())
}
