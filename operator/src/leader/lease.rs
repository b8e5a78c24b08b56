//! The Lease of the leader: taken, renewed, given back.

use super::{
    clock,
    fence::Leadership,
    term::{self, Step, Times},
};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Name of the Lease.
pub const LEASE_NAME: &str = "sopwith-operator";

/// The lease is in other hands.
#[derive(Debug, thiserror::Error)]
#[error("the Lease {LEASE_NAME} is {holder}: this process ends and begins again as a follower")]
pub struct Lost {
    holder: String,
}

/// The Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    TooSlow(Duration),
}

/// A replica that may become the leader.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    times: Times,
}

/// A replica that is the leader.
pub struct Leader {
    election: Election,
    leadership: Leadership,
    lease: Lease,
}

impl Election {
    /// For the Lease in `namespace`. `identity` is that of one process at a time; `lease` is how long the others wait.
    pub fn new(client: Client, namespace: &str, identity: String, lease: Duration) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            times: Times { lease },
        }
    }

    /// Waits until this replica is the leader.
    pub async fn win(self) -> Leader {
        let mut seen = None;
        let mut told = None;
        loop {
            let sent = clock::now();
            let wait = match self.look().await {
                Ok(None) => match self.take(None, sent).await {
                    Ok(led) => return self.leads(led),
                    Err(error) => self.failed(&error),
                },
                Ok(Some(lease)) => {
                    match term::step(&self.identity, &lease, &mut seen, self.times, clock::now()) {
                        Step::Wait(wait) => {
                            tell(&mut told, &lease);
                            wait
                        }
                        Step::Take => match self.take(Some(lease), clock::now()).await {
                            Ok(led) => return self.leads(led),
                            Err(error) => self.failed(&error),
                        },
                    }
                }
                Err(error) => self.failed(&error),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn leads(self, (leadership, lease): (Leadership, Lease)) -> Leader {
        tracing::info!(identity = self.identity, "this replica is the leader");
        Leader {
            election: self,
            leadership,
            lease,
        }
    }

    /// How long to wait after a failure.
    fn failed(&self, error: &LeaseError) -> Duration {
        if is_conflict(error) {
            tracing::debug!("another replica was faster");
            return self.times.look_every();
        }
        tracing::warn!(%error, lease = LEASE_NAME, "the Lease could not be had; it is tried again");
        self.times.renew_every()
    }

    async fn look(&self) -> Result<Option<Lease>, LeaseError> {
        self.bounded(self.leases.get_opt(LEASE_NAME)).await
    }

    /// Begins a term: valid from `sent`, which lies before the request.
    async fn take(
        &self,
        there: Option<Lease>,
        sent: Duration,
    ) -> Result<(Leadership, Lease), LeaseError> {
        let new = there.is_none();
        let mut lease = there.unwrap_or_default();
        lease.metadata.name = Some(LEASE_NAME.to_owned());
        let lease = term::taken(&self.identity, lease, self.times, Timestamp::now());
        let lease = if new {
            let params = PostParams::default();
            self.bounded(self.leases.create(&params, &lease)).await?
        } else {
            self.write(&lease).await?
        };
        let leadership = Leadership::until(sent + self.times.valid());
        Ok((leadership, lease))
    }

    /// Over the version that was read: whoever wrote meanwhile wins.
    async fn write(&self, lease: &Lease) -> Result<Lease, LeaseError> {
        let params = PostParams::default();
        self.bounded(self.leases.replace(LEASE_NAME, &params, lease))
            .await
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        let most = self.times.renew_every();
        let answer = tokio::time::timeout(most, call).await;
        Ok(answer.map_err(|_| LeaseError::TooSlow(most))??)
    }
}

impl Leader {
    /// What everything asks that only the leader may do.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Renews the lease, until it is in other hands. A lease that could not be renewed in time and that nobody took is
    /// ours again with the next renewal; meanwhile nothing is done.
    pub async fn keep(&mut self) -> Lost {
        let every = self.election.times.renew_every();
        let mut turns = tokio::time::interval_at(Instant::now() + every, every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut lapsed = false;
        loop {
            turns.tick().await;
            match self.write(term::renewed).await {
                Ok(Ok(sent)) => {
                    self.leadership.extend(sent + self.election.times.valid());
                    if std::mem::take(&mut lapsed) {
                        tracing::info!("the lease is renewed: nobody had taken it");
                    }
                }
                Ok(Err(lost)) => {
                    self.leadership.end();
                    return lost;
                }
                Err(error) => {
                    lapsed = self.leadership.check().is_err();
                    tracing::warn!(%error, lapsed, "the lease could not be renewed; it is tried again");
                }
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait. Nothing may be done afterwards.
    pub async fn release(mut self) {
        self.leadership.end();
        match self.write(term::released).await {
            Ok(Ok(_)) => tracing::info!("the lease is given back"),
            Ok(Err(lost)) => tracing::info!(%lost, "the lease is not ours to give back"),
            Err(error) => {
                tracing::info!(%error, "the lease could not be given back; it will run out");
            }
        }
    }

    /// Writes our term with this change, and says when the request was sent. Over what others wrote into it meanwhile,
    /// and over a write of ours whose answer was lost, but never over another term.
    async fn write(
        &mut self,
        change: fn(Lease, Timestamp) -> Lease,
    ) -> Result<Result<Duration, Lost>, LeaseError> {
        let sent = clock::now();
        let error = match self.write_once(change).await {
            Ok(()) => return Ok(Ok(sent)),
            Err(error) if is_conflict(&error) || is_gone(&error) => error,
            Err(error) => return Err(error),
        };
        let there = self.election.look().await?.unwrap_or_default();
        if !term::same_term(&self.lease, &there) {
            return Ok(Err(lost(&there)));
        }
        tracing::debug!(%error, "the Lease was changed by others");
        self.lease = there;
        let sent = clock::now();
        self.write_once(change).await?;
        Ok(Ok(sent))
    }

    async fn write_once(
        &mut self,
        change: fn(Lease, Timestamp) -> Lease,
    ) -> Result<(), LeaseError> {
        let changed = change(self.lease.clone(), Timestamp::now());
        self.lease = self.election.write(&changed).await?;
        Ok(())
    }
}

fn lost(there: &Lease) -> Lost {
    let holder = there.spec.as_ref().and_then(|s| s.holder_identity.clone());
    Lost {
        holder: match holder.as_deref() {
            None | Some("") => "nobody's".to_owned(),
            Some(holder) => format!("held by {holder}"),
        },
    }
}

/// Says once for each leader who is waited for.
fn tell(told: &mut Option<String>, lease: &Lease) {
    let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone());
    if *told != holder {
        tracing::info!(leader = holder, "this replica follows");
        *told = holder;
    }
}

fn is_conflict(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Kube(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
}

fn is_gone(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Kube(kube::Error::Api(status)) if status.is_not_found())
}
