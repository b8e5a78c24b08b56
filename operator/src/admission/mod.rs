//! Admission: whether the `ValidatingAdmissionPolicies` of the chart are in force, so that the names in a run can be believed.
//!
//! A controller never sees who asked for what it reads. `spec.requestedBy` and `spec.decisions[].by` are proven by the API server when
//! they are written, or not at all; all that the operator can know is whether that proof is asked for.

mod judge;
mod watch;

pub use judge::{Found, NOT_ENFORCED, POLICIES, Seen, Standing, judge};
pub use watch::{Admission, account};
