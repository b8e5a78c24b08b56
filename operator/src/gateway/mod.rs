//! The gateway: where runners report, and where people read what runs left.
//!
//! A report is authenticated, bound to the run whose pod it came from, checked, booked in the ledger, stored, and only
//! then acknowledged and shown to the operator. Killed at any point, the same report can be sent again.

mod answer;
mod auth;
mod bind;
mod certificate;
mod inbox;
mod routes;
mod sequence;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod uploads;

pub use auth::{Authenticator, Identity, KubeReviewer, PodIdentity, ReviewError, Reviewer, Right};
pub use bind::{Binding, KubeBinding, LaunchBinding, Refusal, RunFacts, bind};
pub use certificate::CertificateError;
pub use inbox::{Inbox, RunLog, RunRef};
pub use routes::{Gateway, router};
pub use server::serve;
pub use tls::{GatewayTls, SECRET_NAME, TlsError};

use sopwith_crds::{agent_run::Environment, contract::report::ReportBatch};

/// Whose batch it is, in the words of metric labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchContext {
    /// Namespace of the run.
    pub namespace: String,
    /// Where the run belongs to.
    pub environment: Environment,
    /// Name of its procedure.
    pub sop: String,
    /// Name of its policy.
    pub policy: String,
}

/// Sees what passes through the gateway, for metrics. Must not block.
pub trait Observer: Send + Sync + 'static {
    /// A batch was stored. Called exactly once for each.
    fn on_batch(&self, context: &BatchContext, batch: &ReportBatch);
    /// A request was answered with this HTTP status.
    fn on_request(&self, status: u16);
}
