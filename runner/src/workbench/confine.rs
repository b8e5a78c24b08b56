//! The system call filter of what runs in a workbench. Deciding which calls are refused is pure; installing is not.
//!
//! A filter sees numbers, not what pointers lead to, and knows no process tree. So calls that act on another process
//! are refused when they name a *protected* process (the server, PID 1 in a container), and where no ordinary program
//! needs them, altogether. Inside a container every other process belongs to the same command, so that is all there is
//! to protect; besides, the kernel itself drops SIGKILL and SIGSTOP that are sent to PID 1 from its own namespace.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The compiler refused it; a defect of this program.
    #[error("cannot compile the system call filter: {0}")]
    Compile(#[from] seccompiler::BackendError),
}

/// Compiled filters, to be installed one after the other; for a call the strictest answer counts.
#[derive(Debug, Clone)]
pub struct Confinement {
    programs: Vec<BpfProgram>,
}

impl Confinement {
    /// Compiles the filters; calls that name one of the `protected` process ids are refused.
    pub fn compile(protected: &[u32]) -> Result<Self, ConfineError> {
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let mut programs = vec![
            SeccompFilter::new(
                refused(protected)?,
                SeccompAction::Allow,
                SeccompAction::Errno(libc::EPERM.unsigned_abs()),
                architecture,
            )?
            .try_into()?,
            SeccompFilter::new(
                ABSENT.iter().map(|call| (*call, vec![])).collect(),
                SeccompAction::Allow,
                SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
                architecture,
            )?
            .try_into()?,
        ];
        if cfg!(target_arch = "x86_64") {
            programs.push(no_x32());
        }
        Ok(Self { programs })
    }

    /// Installs the filters in the calling thread and sets `no_new_privs`, for good. Does not allocate.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        self.programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
    }
}

/// x32 calls come under the same architecture with bit 30 set, which would slip past rules on numbers. Other foreign
/// architectures (32-bit `int 0x80`) end the process already: the compiled filters check for that.
fn no_x32() -> BpfProgram {
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        instruction(0x20, 0, 0, 0),           // load the number
        instruction(0x35, 0, 1, 0x4000_0000), // jump if greater or equal
        instruction(0x06, 0, 0, 0x0005_0000 | libc::ENOSYS.unsigned_abs()), // return this errno
        instruction(0x06, 0, 0, 0x7fff_0000), // allow
    ]
}

/// Calls that are as if the kernel did not have them.
const ABSENT: &[i64] = &[
    // Its flags are behind a pointer. C libraries fall back to clone.
    libc::SYS_clone3,
    // What these make outlives every process, and the containers of a pod share it.
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];

/// Calls refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Another process's memory, descriptors and state.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // Ways around the rule on sockets.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Namespaces and mounts.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // The kernel at large. Keyrings belong to a uid, not to a container.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
];

/// Flags of clone(2) that make namespaces: mount, cgroup, uts, ipc, user, pid, net. (Time has none in clone.)
const NAMESPACE_FLAGS: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// The command of fcntl(2) that names, behind a pointer, who is signalled when a descriptor is ready.
const F_SETOWN_EX: u64 = 15;
/// The requests of ioctl(2) that do the same: `FIOSETOWN` and `SIOCSPGRP`.
const SET_OWNER: [u64; 2] = [0x8901, 0x8902];

/// Calls whose argument of this index is a process id that must not be a protected one.
const NAMING_A_PROCESS: &[(i64, u8)] = &[
    (libc::SYS_kill, 0),
    (libc::SYS_tkill, 0),
    (libc::SYS_tgkill, 0),
    (libc::SYS_tgkill, 1),
    (libc::SYS_rt_sigqueueinfo, 0),
    (libc::SYS_rt_tgsigqueueinfo, 0),
    (libc::SYS_rt_tgsigqueueinfo, 1),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
];

fn refused(protected: &[u32]) -> Result<BTreeMap<i64, Vec<SeccompRule>>, ConfineError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules = Rules(REFUSED.iter().map(|call| (*call, vec![])).collect());
    let unix = libc::AF_UNIX.unsigned_abs().into();
    rules.refuse(libc::SYS_socket, &[(0, Ne, unix)])?;
    rules.refuse(libc::SYS_socketpair, &[(0, Ne, unix)])?;
    for flag in NAMESPACE_FLAGS {
        rules.refuse(libc::SYS_clone, &[(0, MaskedEq(flag), flag)])?;
    }
    // Zero is the caller; programs name themselves so.
    rules.refuse(libc::SYS_prlimit64, &[(0, Ne, 0)])?;
    rules.refuse(libc::SYS_move_pages, &[(0, Ne, 0)])?;
    rules.refuse(libc::SYS_migrate_pages, &[(0, Ne, 0)])?;
    rules.refuse(libc::SYS_fcntl, &[(1, Eq, F_SETOWN_EX)])?;
    for request in SET_OWNER {
        rules.refuse(libc::SYS_ioctl, &[(1, Eq, request)])?;
    }
    let set_owner = (1, Eq, libc::F_SETOWN.unsigned_abs().into());
    for pid in protected {
        for (call, argument) in NAMING_A_PROCESS {
            rules.refuse(*call, &[(*argument, Eq, u64::from(*pid))])?;
        }
        // A negative number is a process group.
        let group = u64::from(pid.wrapping_neg());
        rules.refuse(libc::SYS_kill, &[(0, Eq, group)])?;
        for owner in [u64::from(*pid), group] {
            rules.refuse(libc::SYS_fcntl, &[set_owner.clone(), (2, Eq, owner)])?;
        }
    }
    // Everything at once, and everything of this user.
    rules.refuse(libc::SYS_kill, &[(0, Eq, u32::MAX.into())])?;
    rules.refuse(libc::SYS_setpriority, &[(0, Eq, 2)])?;
    rules.refuse(libc::SYS_ioprio_set, &[(0, Eq, 3)])?;
    Ok(rules.0)
}

/// By call, when it is refused; always, where the list is empty.
struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    /// Refuses a call where all of these hold of its arguments, of which the lower 32 bits count.
    fn refuse(
        &mut self,
        call: i64,
        conditions: &[(u8, SeccompCmpOp, u64)],
    ) -> Result<(), ConfineError> {
        let conditions = conditions.iter().map(|(argument, operator, value)| {
            let bits = SeccompCmpArgLen::Dword;
            SeccompCondition::new(*argument, bits, operator.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_every_refused_call_is_in_them() {
        let rules = refused(&[1, 4711]).unwrap();
        for call in REFUSED {
            assert!(
                rules[call].is_empty(),
                "{call} must be refused whatever its arguments"
            );
        }
        for (call, _) in NAMING_A_PROCESS {
            assert!(
                rules[call].len() >= 2,
                "{call} must be refused for each protected process"
            );
        }
        assert!(
            !Confinement::compile(&[1, 4711])
                .unwrap()
                .programs
                .is_empty()
        );
    }
}
