//! Running programs in a workbench: for actions, and for gates.

use std::{collections::BTreeMap, time::Duration};

use sopwith_crds::{
    check::defaults,
    sop_definition::{Command, CommandGate},
    status::FailureReason,
};

use crate::{
    context::SharedTree,
    gate::{Observation, Ran, ReportFile, canonical, described},
    tree::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES},
    workbench::{CommandRequest, Exit, FetchRequest, Mode, WorkFile, Workbench, WorkbenchError},
};

/// Bytes kept of each of a program's streams.
const OUTPUT_BYTES: u64 = 256 << 10;
/// Bytes of a report.
const REPORT_BYTES: u64 = 16 << 20;

/// The workbenches of a run by image.
#[derive(Debug, Default, Clone)]
pub struct Benches(BTreeMap<String, Workbench>);

impl Benches {
    /// Workbenches by image.
    pub fn new(benches: BTreeMap<String, Workbench>) -> Self {
        Self(benches)
    }

    fn of(&self, image: &str) -> Result<&Workbench, CommandError> {
        self.0.get(image).ok_or_else(|| {
            CommandError::Failed(
                FailureReason::InvalidPlan,
                format!("the plan has no workbench of image {image}"),
            )
        })
    }
}

/// Why a program's outcome is not known, or not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The step fails.
    #[error("{1}")]
    Failed(FailureReason, String),
    /// The workbench is gone; another launch may go on.
    #[error("{0}")]
    Lost(String),
}

impl From<WorkbenchError> for CommandError {
    fn from(error: WorkbenchError) -> Self {
        if error.usable_after() {
            return Self::Failed(FailureReason::Internal, error.to_string());
        }
        Self::Lost(error.to_string())
    }
}

/// A command with its templates rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The workbench's image.
    pub image: String,
    /// Folder to run in; empty for the tree's root.
    pub cwd: String,
    /// Most time.
    pub timeout: Duration,
}

impl Rendered {
    /// A command with these arguments. The program itself must be written out: policy allowed it by name.
    pub fn new(command: &Command, argv: Vec<String>) -> Result<Self, CommandError> {
        if argv.is_empty() || argv.first() != command.argv.first() {
            let message =
                "the program of a command (argv[0]) must be written out, without a template"
                    .to_owned();
            return Err(CommandError::Failed(FailureReason::PolicyDenied, message));
        }
        let seconds = command
            .timeout_seconds
            .unwrap_or(defaults::COMMAND_TIMEOUT_SECONDS);
        Ok(Self {
            argv,
            image: command.image.clone(),
            cwd: command.working_dir.clone().unwrap_or_default(),
            timeout: Duration::from_secs(seconds.into()),
        })
    }
}

/// Runs an action's command on a fresh copy of the tree and takes files back. Says what it did.
pub async fn act(
    benches: &Benches,
    tree: &SharedTree,
    command: &Rendered,
    collect: &[String],
) -> Result<Vec<String>, CommandError> {
    let bench = benches.of(&command.image)?;
    bench
        .lay(tree.read(crate::tree::Tree::work_files), true)
        .await?;
    let ran = run(bench, command).await?;
    let program = command.argv.join(" ");
    match &ran.exit {
        Exit::Code(0) => {}
        Exit::TimedOut => {
            let message = format!(
                "`{program}` was still running after its {} s and was killed",
                ran.seconds
            );
            return Err(CommandError::Failed(FailureReason::StepTimeout, message));
        }
        _ => {
            let message = format!(
                "`{program}` {}\n{}",
                described(&ran),
                canonical(&ran.output)
            );
            return Err(CommandError::Failed(
                FailureReason::GateFailed,
                message.trim_end().to_owned(),
            ));
        }
    }
    if collect.is_empty() {
        return Ok(Vec::new());
    }
    take(
        tree,
        fetch(bench, collect.to_vec(), MAX_FILE_BYTES as u64).await?,
    )
}

/// Runs a gate's programs on a fresh copy of the tree and fetches their reports.
pub async fn observe(
    benches: &Benches,
    tree: &SharedTree,
    gate: &CommandGate,
    commands: &[Rendered],
) -> Result<Observation, CommandError> {
    let mut observation = Observation::default();
    let mut laid: Vec<&str> = Vec::new();
    for command in commands {
        let bench = benches.of(&command.image)?;
        if !laid.contains(&command.image.as_str()) {
            bench
                .lay(tree.read(crate::tree::Tree::work_files), true)
                .await?;
            laid.push(&command.image);
        }
        let ran = run(bench, command).await?;
        let good = ran.exit == Exit::Code(0);
        observation.ran.push(ran);
        // With an own condition all programs run: the later ones write the reports it looks at.
        if !good && gate.pass.is_none() {
            break;
        }
    }
    for report in &gate.reports {
        let mut bytes = None;
        for image in &laid {
            let fetched = fetch(
                benches.of(image)?,
                vec![globset::escape(&report.path)],
                REPORT_BYTES,
            )
            .await?;
            bytes = fetched.into_iter().next().map(|file| file.bytes).or(bytes);
        }
        observation.reports.push(ReportFile {
            name: report.name.clone(),
            format: report.format,
            path: report.path.clone(),
            bytes,
        });
    }
    Ok(observation)
}

async fn run(bench: &Workbench, command: &Rendered) -> Result<Ran, CommandError> {
    let request = CommandRequest {
        argv: command.argv.clone(),
        cwd: command.cwd.clone(),
        env: BTreeMap::new(),
        stdin: Vec::new(),
        timeout: command.timeout,
        output_limit_bytes: OUTPUT_BYTES,
    };
    let result = bench.run(request).await?;
    let (out, err) = (result.stdout.text(), result.stderr.text());
    let between = if out.is_empty() || out.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok(Ran {
        argv: command.argv.clone(),
        exit: result.exit,
        seconds: command.timeout.as_secs(),
        output: format!("{out}{between}{err}"),
    })
}

async fn fetch(
    bench: &Workbench,
    include: Vec<String>,
    each: u64,
) -> Result<Vec<WorkFile>, CommandError> {
    let request = FetchRequest {
        include,
        max_files: MAX_FILES,
        max_bytes_each: each,
        max_total_bytes: MAX_TOTAL_BYTES as u64,
    };
    let fetched = bench.fetch(request).await?;
    if let Some(left) = fetched.left_out.first() {
        tracing::warn!(path = %left.path, reason = ?left.reason, "a file was left in the workbench");
    }
    Ok(fetched.files)
}

/// Writes what a command left into the tree; gives the paths that changed.
fn take(tree: &SharedTree, files: Vec<WorkFile>) -> Result<Vec<String>, CommandError> {
    let mut changed = Vec::new();
    tree.write(|tree| {
        for file in files {
            let executable = file.mode == Mode::Executable;
            if tree.write(&file.path, file.bytes.into(), executable)? {
                changed.push(file.path);
            }
        }
        Ok(changed)
    })
    .map_err(|error: crate::tree::TreeError| {
        CommandError::Failed(FailureReason::GateFailed, error.to_string())
    })
}
