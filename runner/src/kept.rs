//! What a run on this machine keeps of its state, so that another one can begin from any of its finished steps.
//!
//! `state/run.json` says which steps finished and with which snapshot; `state/blobs` holds what the snapshots refer to.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{Digest, delta::Delta, plan::RunPlan},
    plan::{Earlier, EarlierState},
};

use crate::gateway::LocalGateway;

/// Folder below what a run leaves.
const STATE: &str = "state";
const RUN: &str = "run.json";
const BLOBS: &str = "blobs";

/// Why a state cannot be kept or begun from.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not what a run kept.
    #[error("{} is not what a local run left: {why}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The run did not finish the step.
    #[error("the run in {} finished {there}; {wanted}", path.display())]
    NotFinished {
        /// The folder.
        path: PathBuf,
        /// What it finished.
        there: String,
        /// What was asked for.
        wanted: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    plan: RunPlan,
    finished: Vec<Finished>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    step: String,
    snapshot: Digest,
}

/// Keeps the state of a run below the folder in which it leaves what it made.
pub fn keep(out: &Path, plan: &RunPlan, gateway: &LocalGateway) -> Result<(), KeptError> {
    let state = out.join(STATE);
    let blobs = state.join(BLOBS);
    fs::create_dir_all(&blobs).map_err(at(&blobs))?;
    for (digest, bytes) in gateway.blobs() {
        let path = blobs.join(digest.hex());
        fs::write(&path, bytes).map_err(at(&path))?;
    }
    let finished = gateway.finished().into_iter();
    let kept = Kept {
        plan: plan.clone(),
        finished: finished
            .map(|(step, snapshot)| Finished { step, snapshot })
            .collect(),
    };
    let path = state.join(RUN);
    let text = serde_json::to_vec(&kept).map_err(|error| wrong(&path, &error))?;
    fs::write(&path, text).map_err(at(&path))
}

/// The run that left a folder, at one of its finished steps or the last.
pub fn earlier(out: &Path, step: Option<&str>) -> Result<Earlier, KeptError> {
    let path = out.join(STATE).join(RUN);
    let bytes = fs::read(&path).map_err(at(&path))?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| wrong(&path, &error))?;
    let wanted = |finished: &&Finished| step.is_none_or(|step| finished.step == step);
    let Some(found) = kept.finished.iter().rev().find(wanted) else {
        let mut names: Vec<&str> = kept.finished.iter().map(|f| f.step.as_str()).collect();
        names.dedup();
        let there = if names.is_empty() {
            "no step".to_owned()
        } else {
            names.join(", ")
        };
        let wanted = step.map_or("there is none to begin from".to_owned(), |step| {
            format!("it has not finished {step}")
        });
        let path = out.to_owned();
        return Err(KeptError::NotFinished {
            path,
            there,
            wanted,
        });
    };
    let blob = blob(out, &found.snapshot);
    let bytes = fs::read(&blob).map_err(at(&blob))?;
    let snapshot: Delta = serde_json::from_slice(&bytes).map_err(|error| wrong(&blob, &error))?;
    Ok(Earlier {
        name: kept.plan.run.name.clone(),
        uid: kept.plan.run.uid.clone(),
        snapshot: found.snapshot.clone(),
        project_name: kept.plan.options.project_name.clone(),
        state: Some(EarlierState {
            step: found.step.clone(),
            usage: snapshot.used_in_all(),
            plan: Arc::new(kept.plan),
        }),
    })
}

/// Gives a gateway everything that a run kept.
pub fn give(out: &Path, gateway: &LocalGateway) -> Result<(), KeptError> {
    let blobs = out.join(STATE).join(BLOBS);
    for entry in fs::read_dir(&blobs).map_err(at(&blobs))? {
        let path = entry.map_err(at(&blobs))?.path();
        gateway.keep(Bytes::from(fs::read(&path).map_err(at(&path))?));
    }
    Ok(())
}

fn blob(out: &Path, digest: &Digest) -> PathBuf {
    out.join(STATE).join(BLOBS).join(digest.hex())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeptError + '_ {
    move |source| KeptError::File {
        path: path.to_owned(),
        source,
    }
}

fn wrong(path: &Path, why: &impl ToString) -> KeptError {
    KeptError::Wrong {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
