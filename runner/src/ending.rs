//! Saving, handing over reports, and how a launch ends.

use sopwith_crds::{
    cassette,
    contract::{
        Digest,
        report::{Outcome, What},
    },
    status::{Failure, FailureReason},
};

use crate::{engine::Engine, gate::trust, gateway::GatewayError, report::Stop};

/// How a launch ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// Why, where it failed.
    pub failure: Option<Failure>,
    /// The last snapshot.
    pub snapshot: Option<Digest>,
}

impl Engine {
    pub(crate) async fn save(&mut self) -> Result<Digest, End> {
        self.say_calls();
        self.keep_list();
        self.record.machine.tool_calls = self.tools.limits.all_made();
        if let Err(error) = self.keep_recorded() {
            return Err(self.cut_off(&error));
        }
        let tree = self.tree.read(Clone::clone);
        let spent = self.llm.spent();
        let reporter = self.reporter.clone();
        let saved = tokio::select! {
            biased;
            saved = self.blobs.save(&self.plan_digest, &tree, &self.record, spent) => saved,
            () = reporter.out_of_time() => Err(GatewayError::Away("the process is told to end".to_owned())),
        };
        match saved {
            Ok(digest) => {
                self.snapshot = Some(digest.clone());
                Ok(digest)
            }
            Err(error) => Err(self.cut_off(&error)),
        }
    }

    /// Keeps what models were asked and answered since the last snapshot.
    fn keep_recorded(&mut self) -> Result<(), GatewayError> {
        let recorded = self.llm.take_recorded();
        if recorded.is_empty() {
            return Ok(());
        }
        let bytes = cassette::encode(&recorded).map_err(|error| {
            GatewayError::Refused(format!("the recording cannot be written: {error}"))
        })?;
        let digest = self.blobs.add(bytes.into());
        self.record.cassette.push(digest);
        Ok(())
    }

    /// Hands over what is pending; an error is the end of the launch.
    pub(crate) async fn deliver(&mut self) -> Result<(), End> {
        self.reporter.record(std::mem::take(&mut self.pending));
        match self.reporter.deliver().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.cut_off(&error)),
        }
    }

    pub(crate) fn cut_off(&self, error: &GatewayError) -> End {
        tracing::error!(%error, "the launch cannot go on");
        End {
            outcome: Outcome::Interrupted,
            failure: None,
            snapshot: self.snapshot.clone(),
        }
    }

    pub(crate) async fn stop(&mut self, stop: Stop) -> End {
        match stop {
            Stop::Suspend => self.end(Outcome::Suspended, None).await,
            Stop::Cancel => self.end(Outcome::Cancelled, None).await,
            Stop::Terminated => self.interrupted().await,
            Stop::Superseded => End {
                outcome: Outcome::Interrupted,
                failure: None,
                snapshot: self.snapshot.clone(),
            },
        }
    }

    /// Every step is done; what the policy asks for must be there as well before anything is pushed.
    pub(crate) async fn succeeded(&mut self) -> End {
        let rules = self.plan.evidence.as_ref();
        let missing = rules.and_then(|rules| trust::missing(rules, &self.record.trail));
        match missing {
            None => match self.push().await {
                Ok(()) => self.end(Outcome::Succeeded, None).await,
                Err(end) => end,
            },
            Some(message) => {
                let failure = Failure {
                    reason: FailureReason::PolicyDenied,
                    step: None,
                    message,
                };
                self.end(Outcome::Failed, Some(failure)).await
            }
        }
    }

    pub(crate) async fn interrupted(&mut self) -> End {
        self.end(Outcome::Interrupted, None).await
    }

    /// The last report, together with what the last step left to tell.
    pub(crate) async fn end(&mut self, outcome: Outcome, failure: Option<Failure>) -> End {
        let snapshot = self.snapshot.clone();
        self.pending.push(What::LaunchEnded {
            outcome,
            snapshot: snapshot.clone(),
            failure: failure.clone(),
        });
        // What cannot be delivered is in the last words.
        let _ = self.deliver().await;
        End {
            outcome,
            failure,
            snapshot,
        }
    }
}
