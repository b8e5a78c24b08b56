//! Running programs in a workbench: for actions, and for gates.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sopwith_crds::{
    check::defaults,
    sop_definition::{Command, CommandGate},
    status::FailureReason,
};
use tokio::sync::Mutex;

use crate::{
    context::{Place, SharedTree},
    gate::{CanaryRan, Observation, Ran, ReportFile, canonical, described},
    guard::Guard,
    ownership::{others, refusal},
    tree::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES},
    workbench::{
        CommandRequest, Exit, FetchRequest, Fetched, LeftOut, LeftOutReason, Mode, WorkFile,
        Workbench, WorkbenchError,
    },
};

/// Bytes kept of each of a program's streams.
const OUTPUT_BYTES: u64 = 256 << 10;
/// Most entries that stayed behind and are named.
const MAX_LEFT: usize = 5;
/// Bytes of a report.
const REPORT_BYTES: u64 = 16 << 20;

/// The workbenches of a run by image.
#[derive(Debug, Default, Clone)]
pub struct Benches {
    benches: BTreeMap<String, Workbench>,
    /// Who lays out a tree has all workbenches to itself until it has what its programs left.
    turn: Arc<Mutex<()>>,
}

impl Benches {
    /// Workbenches by image.
    pub fn new(benches: BTreeMap<String, Workbench>) -> Self {
        Self {
            benches,
            turn: Arc::default(),
        }
    }

    fn of(&self, image: &str) -> Result<&Workbench, CommandError> {
        self.benches.get(image).ok_or_else(|| {
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

/// What an action's command may hand back.
#[derive(Debug, Clone, Copy)]
pub struct Collect<'a> {
    /// Patterns of paths.
    pub patterns: &'a [String],
    /// The step that it works for.
    pub step: &'a str,
    /// Whose the paths of the project are.
    pub places: &'a [Place],
    /// Which nobody may write.
    pub guard: &'a Guard,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Paths that changed.
    pub wrote: Vec<String>,
    /// What cannot be part of a project and stayed behind, each with why; the first few.
    pub left: Vec<String>,
}

/// A test that must fail, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedCanary {
    /// Its name.
    pub name: String,
    /// Where it stands in the project.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The program that must find it failed.
    pub run: Rendered,
    /// The exit code that says so.
    pub exit_code: i32,
}

/// Runs an action's command on a fresh copy of the tree and takes files back.
pub async fn act(
    benches: &Benches,
    tree: &SharedTree,
    command: &Rendered,
    collect: Collect<'_>,
) -> Result<Taken, CommandError> {
    let (ran, taken) = call(benches, tree, command, Vec::new(), collect).await?;
    let program = command.argv.join(" ");
    match &ran.exit {
        Exit::Code(0) => Ok(taken),
        Exit::TimedOut => {
            let message = format!(
                "`{program}` was still running after its {} s and was killed",
                ran.seconds
            );
            Err(CommandError::Failed(FailureReason::StepTimeout, message))
        }
        _ => {
            let message = format!(
                "`{program}` {}\n{}",
                described(&ran),
                canonical(&ran.output)
            );
            Err(CommandError::Failed(
                FailureReason::GateFailed,
                message.trim_end().to_owned(),
            ))
        }
    }
}

/// Runs a program on a fresh copy of the tree. Where it ends well, files are taken back.
pub(crate) async fn call(
    benches: &Benches,
    tree: &SharedTree,
    command: &Rendered,
    stdin: Vec<u8>,
    collect: Collect<'_>,
) -> Result<(Ran, Taken), CommandError> {
    let _turn = benches.turn.lock().await;
    let bench = benches.of(&command.image)?;
    bench
        .lay(tree.read(crate::tree::Tree::work_files), true)
        .await?;
    let ran = run(bench, command, stdin).await?;
    if ran.exit != Exit::Code(0) || collect.patterns.is_empty() {
        return Ok((ran, Taken::default()));
    }
    let fetched = fetch(bench, collect.patterns.to_vec(), MAX_FILE_BYTES as u64).await?;
    let taken = take(tree, collect, fetched)?;
    Ok((ran, taken))
}

/// Runs a gate's programs on a fresh copy of the tree and fetches their reports; then its canaries.
///
/// A report that is in the tree already is not laid out: only what the programs write counts.
pub async fn observe(
    benches: &Benches,
    tree: &SharedTree,
    gate: &CommandGate,
    commands: &[Rendered],
    canaries: &[RenderedCanary],
) -> Result<Observation, CommandError> {
    let without_reports = || {
        let mut files = tree.read(crate::tree::Tree::work_files);
        files.retain(|file| gate.reports.iter().all(|report| report.path != file.path));
        files
    };
    let _turn = benches.turn.lock().await;
    let mut observation = Observation::default();
    let mut laid: Vec<&str> = Vec::new();
    for command in commands {
        let bench = benches.of(&command.image)?;
        if !laid.contains(&command.image.as_str()) {
            bench.lay(without_reports(), true).await?;
            laid.push(&command.image);
        }
        let ran = run(bench, command, Vec::new()).await?;
        let good = ran.exit == Exit::Code(0);
        observation.ran.push(ran);
        // With an own condition all programs run: the later ones write the reports it looks at.
        if !good && gate.pass.is_none() {
            break;
        }
    }
    for report in &gate.reports {
        let mut bytes = Err("was not written".to_owned());
        for image in &laid {
            let path = vec![globset::escape(&report.path)];
            let fetched = fetch(benches.of(image)?, path, REPORT_BYTES).await?;
            let left = fetched
                .left_out
                .iter()
                .find(|left| left.path == report.path);
            bytes = match (fetched.files.into_iter().next(), left) {
                (Some(file), _) => Ok(file.bytes),
                (None, Some(left)) => Err(why(left, REPORT_BYTES)),
                (None, None) => bytes,
            };
        }
        observation.reports.push(ReportFile {
            name: report.name.clone(),
            format: report.format,
            path: report.path.clone(),
            bytes,
        });
    }
    let failed = observation
        .ran
        .last()
        .is_none_or(|ran| ran.exit != Exit::Code(0));
    if gate.pass.is_none() && failed {
        return Ok(observation);
    }
    for canary in canaries {
        let mut files = without_reports();
        files.retain(|file| file.path != canary.path);
        files.push(WorkFile {
            path: canary.path.clone(),
            mode: Mode::Regular,
            bytes: canary.text.clone().into_bytes(),
        });
        let bench = benches.of(&canary.run.image)?;
        bench.lay(files, true).await?;
        observation.canaries.push(CanaryRan {
            name: canary.name.clone(),
            ran: run(bench, &canary.run, Vec::new()).await?,
            exit_code: canary.exit_code,
        });
    }
    Ok(observation)
}

async fn run(bench: &Workbench, command: &Rendered, stdin: Vec<u8>) -> Result<Ran, CommandError> {
    let request = CommandRequest {
        argv: command.argv.clone(),
        cwd: command.cwd.clone(),
        env: BTreeMap::new(),
        stdin,
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
) -> Result<Fetched, CommandError> {
    let request = FetchRequest {
        include,
        max_files: MAX_FILES,
        max_bytes_each: each,
        max_total_bytes: MAX_TOTAL_BYTES as u64,
    };
    Ok(bench.fetch(request).await?)
}

/// Why something stayed in the workbench.
fn why(left: &LeftOut, each: u64) -> String {
    match left.reason {
        LeftOutReason::Link => "is a link".to_owned(),
        LeftOutReason::Special => "is no regular file".to_owned(),
        LeftOutReason::Git => "belongs to a git repository".to_owned(),
        LeftOutReason::Name => {
            "has a name that is too long, too deep, not UTF-8 or with control characters".to_owned()
        }
        LeftOutReason::Unreadable => "cannot be read".to_owned(),
        LeftOutReason::TooLarge => format!("is larger than {each} bytes, the most of one file"),
        LeftOutReason::TooManyFiles => {
            format!("is one file too many: {MAX_FILES} are the most of a project")
        }
        LeftOutReason::TotalTooLarge => format!(
            "is too large beside the others: {MAX_TOTAL_BYTES} bytes are the most of a project"
        ),
        LeftOutReason::WalkEnded => {
            "is where the search for files ended: there are too many of them".to_owned()
        }
    }
}

/// Writes what a command left into the tree, all of it or nothing.
fn take(tree: &SharedTree, collect: Collect<'_>, fetched: Fetched) -> Result<Taken, CommandError> {
    let failed = |message: String| CommandError::Failed(FailureReason::GateFailed, message);
    let each = MAX_FILE_BYTES as u64;
    // A part of what was asked for would be taken for all of it.
    let too_much = |left: &&LeftOut| {
        matches!(
            left.reason,
            LeftOutReason::TooLarge
                | LeftOutReason::TooManyFiles
                | LeftOutReason::TotalTooLarge
                | LeftOutReason::WalkEnded
        )
    };
    if let Some(left) = fetched.left_out.iter().find(too_much) {
        let more = fetched.left_out.iter().filter(too_much).count() as u64 + fetched.left_out_more;
        return Err(failed(format!(
            "the command left what a project cannot take: {:?} {} ({more} in all); have it write less, or collect fewer files",
            left.path,
            why(left, each)
        )));
    }
    let mut taken = Taken {
        left: fetched
            .left_out
            .iter()
            .take(MAX_LEFT)
            .map(|left| format!("{:?} {}", left.path, why(left, each)))
            .collect(),
        ..Taken::default()
    };
    tree.write(|tree| {
        let mut changed = tree.clone();
        for file in fetched.files {
            let executable = file.mode == Mode::Executable;
            if !changed
                .write(&file.path, file.bytes.into(), executable)
                .map_err(|error| failed(error.to_string()))?
            {
                continue;
            }
            let owners = others(&file.path, collect.step, collect.places)
                .map_err(|error| failed(error.to_string()))?;
            if !owners.is_empty() {
                return Err(failed(refusal(&file.path, &owners)));
            }
            if let Some(refusal) = collect.guard.refusal(&file.path) {
                return Err(CommandError::Failed(FailureReason::PolicyDenied, refusal));
            }
            taken.wrote.push(file.path);
        }
        *tree = changed;
        Ok(taken)
    })
}
