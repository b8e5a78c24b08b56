//! Reports: a spool of events, numbered batches, signs of life, and the orders that come back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{
        VERSION,
        report::{Event, MAX_BATCH_BYTES, Orders, Outcome, ReportBatch, ReportReply, What},
    },
    status::Usage,
};
use tokio::{sync::watch, time::Instant};

use crate::gateway::{Gateway, GatewayError};

/// From one report to the next: the contract's bound less the time of a call.
const EVERY: Duration = Duration::from_secs(2);
/// How long a batch that must be acknowledged is tried.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a process that is told to end tries to get its last report through: less than the pod's grace period, so that
/// its last words are written in any case.
const LAST_TRIES: Duration = Duration::from_secs(20);
/// Bytes of events in one batch; the rest of the bound is for what is around them.
const MOST: usize = MAX_BATCH_BYTES / 2;

/// Why a launch must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// By order: everything is kept.
    Suspend,
    /// By order.
    Cancel,
    /// The process is told to end.
    Terminated,
    /// Another launch has taken over, or the gateway refuses this one.
    Superseded,
}

impl Stop {
    /// How a launch ends that stops before its engine began.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Suspend => Outcome::Suspended,
            Self::Cancel => Outcome::Cancelled,
            Self::Terminated | Self::Superseded => Outcome::Interrupted,
        }
    }
}

/// What gives the usage of this launch so far.
type Used = Arc<dyn Fn() -> Usage + Send + Sync>;

/// Reports of one launch. Clones share the spool.
#[derive(Clone)]
pub struct Reporter(Arc<Shared>);

struct Shared {
    gateway: Gateway,
    used: Used,
    spool: Mutex<Spool>,
    sending: tokio::sync::Mutex<()>,
    stop: watch::Sender<Option<Stop>>,
    leave_at: watch::Sender<Option<Instant>>,
}

#[derive(Default)]
struct Spool {
    waiting: Vec<Event>,
    flight: Option<ReportBatch>,
    sequence: u64,
    acknowledged: u64,
    witness: Option<fn(&Event)>,
}

impl Reporter {
    /// Reports after batch `acknowledged`.
    pub fn new(gateway: Gateway, acknowledged: u64, orders: Orders, used: Used) -> Self {
        let spool = Spool {
            sequence: acknowledged,
            acknowledged,
            ..Spool::default()
        };
        let reporter = Self(Arc::new(Shared {
            gateway,
            used,
            spool: Mutex::new(spool),
            sending: tokio::sync::Mutex::default(),
            stop: watch::Sender::new(None),
            leave_at: watch::Sender::new(None),
        }));
        reporter.obey(orders);
        reporter
    }

    /// Shows every event to `witness` as well.
    pub fn witnessed_by(&self, witness: fn(&Event)) {
        self.spool().witness = Some(witness);
    }

    /// Spools events, which are handed over together.
    pub fn record(&self, events: impl IntoIterator<Item = What>) {
        let at = Timestamp::now();
        let mut spool = self.spool();
        for what in events {
            let event = Event { at, what };
            if let Some(witness) = spool.witness {
                witness(&event);
            }
            spool.waiting.push(event);
        }
    }

    /// Hands over all that is spooled and waits until it is stored, or the process has no more time.
    pub async fn deliver(&self) -> Result<(), GatewayError> {
        tokio::select! {
            biased;
            delivered = self.deliver_all() => delivered,
            () = self.out_of_time() => Err(GatewayError::Away("the process is told to end".to_owned())),
        }
    }

    async fn deliver_all(&self) -> Result<(), GatewayError> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(3))
            .with_total_delay(Some(PATIENCE))
            .without_max_times()
            .build();
        let _turn = self.0.sending.lock().await;
        while let Some(batch) = self.next() {
            match self.0.gateway.report(&batch).await {
                Ok(reply) => self.acknowledge(&reply),
                Err(error @ GatewayError::Away(_)) => match pauses.next() {
                    Some(pause) => {
                        tracing::warn!(%error, "a report waits");
                        tokio::time::sleep(pause).await;
                    }
                    None => return Err(error),
                },
                Err(error) => {
                    self.end(Stop::Superseded);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reports every few seconds: what is spooled, or a sign of life. Runs until it is dropped.
    pub async fn live(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            // Whoever delivers now is the sign of life.
            let Ok(_turn) = self.0.sending.try_lock() else {
                continue;
            };
            let batch = self.next().unwrap_or_else(|| self.sign_of_life());
            match self.0.gateway.report(&batch).await {
                Ok(reply) => self.acknowledge(&reply),
                Err(error @ GatewayError::Away(_)) => tracing::warn!(%error, "a report waits"),
                Err(error) => {
                    tracing::error!(%error, "a report was refused");
                    self.end(Stop::Superseded);
                }
            }
        }
    }

    /// Ends the launch.
    pub fn end(&self, why: Stop) {
        self.0
            .stop
            .send_if_modified(|stop| stop.is_none() && stop.replace(why).is_none());
    }

    /// The process is told to end: the launch stops, and nothing is waited for any longer than the process will live.
    pub fn terminate(&self) {
        self.0
            .leave_at
            .send_replace(Some(Instant::now() + LAST_TRIES));
        self.end(Stop::Terminated);
    }

    /// Waits until the process is told to end and has no more time to get a report through.
    pub async fn out_of_time(&self) {
        let mut leave_at = self.0.leave_at.subscribe();
        loop {
            let at = *leave_at.borrow_and_update();
            if let Some(at) = at {
                return tokio::time::sleep_until(at).await;
            }
            if leave_at.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the launch must stop.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.0.stop.subscribe();
        loop {
            if let Some(why) = *stop.borrow_and_update() {
                return why;
            }
            if stop.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why the launch must stop, where it must.
    pub fn stop(&self) -> Option<Stop> {
        *self.0.stop.borrow()
    }

    /// The highest number that is stored.
    pub fn acknowledged(&self) -> u64 {
        self.spool().acknowledged
    }

    /// The batch to hand over next: the same as the last time until it is stored.
    fn next(&self) -> Option<ReportBatch> {
        let usage = (self.0.used)();
        let mut spool = self.spool();
        if spool.flight.is_none() && !spool.waiting.is_empty() {
            let count = fitting(&spool.waiting);
            spool.sequence += 1;
            let batch = ReportBatch {
                version: VERSION,
                sequence: spool.sequence,
                events: spool.waiting.drain(..count).collect(),
                usage,
            };
            spool.flight = Some(batch);
        }
        spool.flight.clone()
    }

    fn sign_of_life(&self) -> ReportBatch {
        ReportBatch {
            version: VERSION,
            sequence: self.spool().sequence,
            events: Vec::new(),
            usage: (self.0.used)(),
        }
    }

    fn acknowledge(&self, reply: &ReportReply) {
        let mut spool = self.spool();
        spool.acknowledged = spool.acknowledged.max(reply.acknowledged);
        if spool
            .flight
            .as_ref()
            .is_some_and(|batch| batch.sequence <= reply.acknowledged)
        {
            spool.flight = None;
        }
        drop(spool);
        self.obey(reply.orders);
    }

    fn obey(&self, orders: Orders) {
        if orders.cancel {
            self.end(Stop::Cancel);
        } else if orders.suspend {
            self.end(Stop::Suspend);
        }
    }

    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.0.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many events fit into a batch; at least one.
fn fitting(events: &[Event]) -> usize {
    let mut bytes = 0;
    let fit = events.iter().take_while(|event| {
        bytes += serde_json::to_vec(event).map_or(0, |event| event.len());
        bytes <= MOST
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::LocalGateway;

    fn reporter(gateway: &LocalGateway) -> Reporter {
        Reporter::new(
            Gateway::Local(gateway.clone()),
            0,
            Orders::default(),
            Arc::new(Usage::default),
        )
    }

    #[tokio::test]
    async fn batches_are_numbered_and_what_was_recorded_together_arrives_together() {
        let gateway = LocalGateway::default();
        let reporter = reporter(&gateway);
        reporter.record([What::SecretsFound, What::RoundStarted { round: 1 }]);
        reporter.deliver().await.unwrap();
        reporter.record([What::RoundStarted { round: 2 }]);
        reporter.deliver().await.unwrap();
        reporter.deliver().await.unwrap();
        let batches = gateway.batches();
        let shape: Vec<(u64, usize)> = batches
            .iter()
            .map(|batch| (batch.sequence, batch.events.len()))
            .collect();
        assert_eq!(shape, [(1, 2), (2, 1)]);
        assert_eq!(reporter.acknowledged(), 2);
    }

    #[tokio::test]
    async fn an_order_stops_the_launch_and_the_first_reason_stays() {
        let gateway = LocalGateway::default();
        let reporter = reporter(&gateway);
        gateway.order(Orders {
            suspend: true,
            cancel: false,
        });
        reporter.record([What::SecretsFound]);
        reporter.deliver().await.unwrap();
        assert_eq!(reporter.stopped().await, Stop::Suspend);
        reporter.end(Stop::Terminated);
        assert_eq!(reporter.stop(), Some(Stop::Suspend));
    }

    #[test]
    fn a_large_spool_is_cut_into_batches() {
        let big = Event {
            at: Timestamp::UNIX_EPOCH,
            what: What::StepSkipped {
                step: "s".into(),
                message: "x".repeat(MOST / 2),
            },
        };
        assert_eq!(fitting(&[big.clone(), big.clone(), big.clone()]), 1);
        let huge = Event {
            what: What::StepSkipped {
                step: "s".into(),
                message: "x".repeat(MOST),
            },
            ..big
        };
        assert_eq!(fitting(&[huge]), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_end_stops_waiting_for_a_gateway_that_is_away_before_he_is_killed() {
        // Another test in this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let run = sopwith_crds::contract::plan::RunIdentity {
            namespace: "demo".into(),
            name: "game".into(),
            uid: "u".into(),
        };
        // Without a token no call is made: as away as a gateway can be.
        let token = folder.path().join("token");
        let gateway =
            crate::gateway::HttpGateway::new("https://gateway", b"", &token, &run, 1).unwrap();
        let reporter = Reporter::new(
            Gateway::Http(Arc::new(gateway)),
            0,
            Orders {
                suspend: true,
                cancel: false,
            },
            Arc::new(Usage::default),
        );
        reporter.record([What::SecretsFound]);
        let begun = Instant::now();
        reporter.terminate();
        let delivered = reporter.deliver().await;
        assert!(
            matches!(delivered, Err(GatewayError::Away(_))),
            "{delivered:?}"
        );
        assert_eq!(begun.elapsed().as_secs(), LAST_TRIES.as_secs());
        assert_eq!(reporter.stop(), Some(Stop::Suspend));
    }
}
