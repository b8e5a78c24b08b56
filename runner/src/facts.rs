//! Long-term memory of runs on this machine: a folder, in it a folder for each project with a file for each run that succeeded.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{memory::Facts, plan::RunPlan, snapshot::Message},
    memory::{self, MAX_RUNS},
};

/// A file of the memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}; move it away, or name another folder with --memory", path.display())]
pub struct FactsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// What earlier runs of a project left; nothing where there was none. What is no name of a project is the checker's to refuse.
pub fn of_project(folder: &Path, project: &str) -> Result<Vec<Facts>, FactsError> {
    if project.contains('/') || project.starts_with('.') {
        return Ok(Vec::new());
    }
    let paths = newest_first(&folder.join(project))?;
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(at(path))?;
        serde_json::from_slice(&bytes).map_err(|error| FactsError {
            path: path.clone(),
            why: format!("is not what a run left: {error}"),
        })
    };
    paths.iter().take(MAX_RUNS).map(read).collect()
}

/// Keeps what a run leaves that succeeded at a time; of a project the newest runs are kept.
pub fn keep(
    folder: &Path,
    plan: &RunPlan,
    messages: &[Message],
    now: Timestamp,
) -> Result<(), FactsError> {
    let folder = folder.join(&plan.options.project_name);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    // Runs on this machine have no UID of their own.
    let name = format!("{:014}-{}.json", now.as_millisecond(), plan.run.name);
    let path = folder.join(name);
    let left = memory::left(plan, messages, now);
    let bytes = serde_json::to_vec_pretty(&left).map_err(|error| FactsError {
        path: path.clone(),
        why: error.to_string(),
    })?;
    fs::write(&path, bytes).map_err(at(&path))?;
    for old in newest_first(&folder)?.iter().skip(MAX_RUNS) {
        fs::remove_file(old).map_err(at(old))?;
    }
    Ok(())
}

/// The files of a project: their names begin with the time.
fn newest_first(folder: &Path) -> Result<Vec<PathBuf>, FactsError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(folder))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(at(folder))?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    paths.reverse();
    Ok(paths)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FactsError + '_ {
    move |error| FactsError {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::plan::{RunIdentity, RunOptions};

    fn plan(project: &str) -> RunPlan {
        RunPlan {
            run: RunIdentity {
                name: "run".into(),
                ..RunIdentity::default()
            },
            options: RunOptions {
                idea: format!("about {project}"),
                project_name: project.into(),
                ..RunOptions::default()
            },
            ..RunPlan::default()
        }
    }

    #[test]
    fn the_newest_runs_of_a_project_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for project in ["game", "../game", "..", ""] {
            assert_eq!(of_project(folder, project).unwrap(), []);
        }
        let count = i64::try_from(MAX_RUNS).unwrap();
        for n in 0..count + 2 {
            let now = Timestamp::from_second(n).unwrap();
            keep(folder, &plan("game"), &[], now).unwrap();
        }
        let now = Timestamp::from_second(5).unwrap();
        keep(folder, &plan("other"), &[], now).unwrap();
        let left = of_project(folder, "game").unwrap();
        assert_eq!(left.len(), MAX_RUNS);
        let newest = left[0].at.as_second();
        let oldest = left[MAX_RUNS - 1].at.as_second();
        assert_eq!((newest, oldest), (count + 1, 2));
        assert_eq!(left[0].facts[0].text, "about game");
        assert_eq!(of_project(folder, "other").unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_no_run_left_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let game = folder.path().join("game");
        fs::create_dir(&game).unwrap();
        fs::write(game.join("notes.txt"), "mine").unwrap();
        assert_eq!(of_project(folder.path(), "game").unwrap(), []);
        fs::write(game.join("x.json"), "{").unwrap();
        let error = of_project(folder.path(), "game").unwrap_err().to_string();
        assert!(
            error.contains("game/x.json: is not what a run left: "),
            "{error}"
        );
    }
}
