//! The few calls that std and nix do not offer safely. The only file of the runner with unsafe code.
#![allow(
    unsafe_code,
    reason = "wait4 with resource use, close_range, and a hook between fork and exec have no safe interface"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;

/// What became of the children of this process.
#[derive(Debug)]
pub(super) enum Waited {
    /// One ended and was reaped.
    Ended(Ended),
    /// There are children, none has ended.
    Running,
    /// There are none.
    NoChildren,
}

/// A process that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) pid: libc::pid_t,
    /// The status as of wait(2).
    pub(super) status: libc::c_int,
    pub(super) user_seconds: f64,
    pub(super) system_seconds: f64,
    pub(super) max_rss_bytes: u64,
}

/// Reaps one child that has ended, without waiting for it.
pub(super) fn reap_one() -> nix::Result<Waited> {
    let mut status = 0;
    // SAFETY: rusage is a plain structure of integers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live, exclusively borrowed values of the types that wait4 writes.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match Errno::result(pid) {
        Ok(0) | Err(Errno::EINTR) => Ok(Waited::Running),
        Ok(pid) => Ok(Waited::Ended(Ended {
            pid,
            status,
            user_seconds: seconds(usage.ru_utime),
            system_seconds: seconds(usage.ru_stime),
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        })),
        Err(Errno::ECHILD) => Ok(Waited::NoChildren),
        Err(errno) => Err(errno),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "seconds of CPU time are far below 2^52"
)]
fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Makes every descriptor from 3 on close at the next exec.
pub(super) fn close_others_on_exec() -> nix::Result<()> {
    // SAFETY: the call takes integers only, and with this flag it closes nothing now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Errno::result(result).map(drop)
}

/// Runs `hook` in the child, between fork and exec; an error of it is the error of the spawn.
///
/// The hook must not allocate or take locks: it may only make system calls. (This server has one thread, so that even
/// then nothing could hang; the rule keeps it so if that changes.)
pub(super) fn before_exec(
    command: &mut Command,
    hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: see the rule above, which the only caller keeps.
    unsafe {
        command.pre_exec(hook);
    }
}
