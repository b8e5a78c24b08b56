//! The clock that leases are measured with.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since the machine was started, suspended or not. Nobody can set it, and it runs on while a process is stopped.
///
/// A clock that cannot be read shows the end of time, so that no lease is believed.
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}
