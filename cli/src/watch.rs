//! `kubectl sop watch`: follows a run to its end.

mod changes;
#[cfg(test)]
mod changes_tests;
mod table;

use crate::{
    args::{EXIT_FAILED, EXIT_SUCCEEDED, EXIT_TIMEOUT, WatchArgs},
    cluster::{Cluster, Error},
    text,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream::BoxStream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Timestamp, Unit};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use sopwith_crds::{AgentRun, status::Phase};
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

/// What the operator warns of stands in the status too, and is told from there.
const OPERATOR: &str = "sopwith";

/// Follows the run; the answer is the exit code.
pub(crate) async fn run(cluster: &Cluster, args: &WatchArgs) -> Result<u8, Error> {
    let first = cluster.run(&args.name).await?;
    let mut screen = Screen::new(!args.plain && io::stdout().is_terminal());
    let end = follow(cluster, first, &mut screen);
    let ended = match args.timeout {
        None => Ok(end.await),
        Some(limit) => tokio::time::timeout(limit, end).await,
    };
    screen.finish();
    if let Ok(code) = ended {
        return code;
    }
    let name = &args.name;
    eprintln!(
        "error: AgentRun \"{name}\" had not ended in time; it goes on; see kubectl describe agentrun {name}"
    );
    Ok(EXIT_TIMEOUT)
}

/// Shows every change until the end.
async fn follow(cluster: &Cluster, first: AgentRun, screen: &mut Screen) -> Result<u8, Error> {
    let name = first.name_any();
    let uid = first.uid();
    let mut seen: Option<AgentRun> = None;
    let mut runs = watcher::watch_object(cluster.runs(), &name)
        .default_backoff()
        .boxed();
    let mut warnings = warnings(cluster, &uid.clone().unwrap_or_default());
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    if let Some(code) = screen.shows(&mut seen, first) {
        return Ok(code);
    }
    loop {
        tokio::select! {
            next = runs.next() => match next {
                Some(Ok(Some(run))) if run.uid() == uid => {
                    if let Some(code) = screen.shows(&mut seen, run) {
                        return Ok(code);
                    }
                }
                Some(Ok(_)) | None => return Err(Error::Deleted(name)),
                Some(Err(error)) => refused(error, &name)?,
            },
            Some(warning) = warnings.next() => screen.line(None, &warning),
            _ = tick.tick() => screen.draw(seen.as_ref()),
        }
    }
}

/// A watch is tried again by itself, unless it can never work.
fn refused(error: watcher::Error, name: &str) -> Result<(), Error> {
    match error {
        watcher::Error::InitialListFailed(error @ kube::Error::Api(_))
        | watcher::Error::WatchStartFailed(error @ kube::Error::Api(_)) => {
            let sorted = Error::of(
                error,
                format!("watch AgentRun \"{name}\""),
                "ask for the role \"view\" in the namespace",
            );
            if matches!(sorted, Error::Forbidden { .. }) {
                Err(sorted)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// Warnings of others about the run, admission or queueing say, from Events. Who may not read Events does without them.
fn warnings(cluster: &Cluster, uid: &str) -> BoxStream<'static, String> {
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let config =
        watcher::Config::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
    until_forbidden(watcher(events, config).default_backoff().applied_objects())
        .filter_map(|event| future::ready(warning(&event)))
        .boxed()
}

fn until_forbidden(
    stream: impl Stream<Item = watcher::Result<Event>> + Send + 'static,
) -> impl Stream<Item = Event> + Send {
    stream
        .map_err(|error| {
            matches!(
                error,
                watcher::Error::InitialListFailed(kube::Error::Api(s))
                | watcher::Error::WatchStartFailed(kube::Error::Api(s)) if s.code == 403
            )
        })
        .take_while(|next| future::ready(!matches!(next, Err(true))))
        .filter_map(|next| future::ready(next.ok()))
}

fn warning(event: &Event) -> Option<String> {
    let source = event.source.as_ref().and_then(|s| s.component.as_deref());
    let reporter = event
        .reporting_component
        .as_deref()
        .filter(|r| !r.is_empty())
        .or(source)
        .unwrap_or_default();
    let reason = event.reason.as_deref().unwrap_or_default();
    let message = text::one_line(event.message.as_deref().unwrap_or_default(), 400);
    (!reporter.starts_with(OPERATOR)).then(|| format!("warning: {reason}: {message}"))
}

/// Where the lines and the table go.
struct Screen {
    table: Option<ProgressBar>,
}

impl Screen {
    fn new(terminal: bool) -> Self {
        let table = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.with_style(
                ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            )
        });
        Self { table }
    }

    /// Shows what changed; the answer is the exit code once the run has ended.
    fn shows(&mut self, seen: &mut Option<AgentRun>, run: AgentRun) -> Option<u8> {
        let status = run.status.clone().unwrap_or_default();
        let old = seen.as_ref().and_then(|r| r.status.as_ref());
        for line in changes::changes(old, &status) {
            self.line(line.at, &line.text);
        }
        self.draw(Some(&run));
        *seen = Some(run);
        let last_words = changes::ending(&status)?;
        for line in last_words.lines() {
            self.line(status.finished_at.as_ref().map(|t| t.0), line);
        }
        Some(match status.phase {
            Some(Phase::Succeeded) => EXIT_SUCCEEDED,
            _ => EXIT_FAILED,
        })
    }

    /// A line with its time; now, where the status does not say when.
    fn line(&self, at: Option<Timestamp>, text: &str) {
        let at = at.unwrap_or_else(Timestamp::now);
        let at = at.round(Unit::Second).unwrap_or(at);
        let line = format!("{at} {text}");
        match &self.table {
            Some(bar) => bar.println(line),
            // Nobody reads any more: the exit code still tells.
            None => drop(writeln!(io::stdout(), "{line}")),
        }
    }

    fn draw(&self, run: Option<&AgentRun>) {
        if let (Some(bar), Some(run)) = (&self.table, run) {
            bar.set_message(table::table(run, Timestamp::now()));
            bar.tick();
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.table {
            bar.abandon();
        }
    }
}
