//! Leadership: of several replicas one works, and what it does is refused once it may not be the leader any more.
//!
//! The leader holds the Lease `sopwith-operator`. Three things stand between a leader of yesterday and an effect today:
//!
//! 1. Its lease counts from *before* the request that renewed it, on a clock that runs on while the process or the machine
//!    is frozen. Every write of the cluster or the store, and every answer of the gateway, asks that clock first.
//! 2. What slips between the question and the write carries a precondition: a resource version, a UID, an etag, or a name
//!    that can be taken once.
//! 3. A process that finds the lease in other hands ends. The next one begins as a follower, from nothing.

mod announce;
mod clock;
mod fence;
mod lease;
mod term;

pub use announce::{Address, announce};
pub use fence::{Leadership, NotLeader, fenced};
pub use lease::{Election, LEASE_NAME, Leader, Lost};
