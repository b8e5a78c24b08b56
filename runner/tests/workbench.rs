//! The workbench with real processes: the built binary as server, python as the code that nobody trusts.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by ending"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sopwith_runner::workbench::{
    CommandRequest, CommandResult, Exit, FetchRequest, Fetched, LeftOutReason, Listener, Mode,
    WorkFile, Workbench, WorkbenchError,
};

const RUNNER: &str = env!("CARGO_BIN_EXE_sopwith-runner");

struct Bench {
    workbench: Workbench,
    root: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let workbench = Workbench::local(Path::new(RUNNER), root.path())
            .await
            .unwrap();
        Self { workbench, root }
    }

    fn tree(&self) -> std::path::PathBuf {
        self.root.path().join("tree")
    }

    async fn run(&self, argv: &[&str]) -> CommandResult {
        self.workbench.run(request(argv)).await.unwrap()
    }

    /// Runs python, which must succeed; gives what it printed.
    async fn python(&self, code: &str) -> String {
        let result = self.run(&["python3", "-c", code]).await;
        assert_eq!(result.exit, Exit::Code(0), "{}", result.stderr.text());
        result.stdout.text()
    }

    async fn fetch(&self, include: &[&str]) -> Fetched {
        self.workbench.fetch(fetch(include)).await.unwrap()
    }
}

fn request(argv: &[&str]) -> CommandRequest {
    CommandRequest {
        argv: argv.iter().map(ToString::to_string).collect(),
        cwd: String::new(),
        env: BTreeMap::new(),
        stdin: vec![],
        timeout: Duration::from_secs(30),
        output_limit_bytes: 64 << 10,
    }
}

fn fetch(include: &[&str]) -> FetchRequest {
    FetchRequest {
        include: include.iter().map(ToString::to_string).collect(),
        max_files: 100,
        max_bytes_each: 1 << 20,
        max_total_bytes: 10 << 20,
    }
}

fn file(path: &str, text: &str) -> WorkFile {
    WorkFile {
        path: path.into(),
        mode: Mode::Regular,
        bytes: text.into(),
    }
}

fn paths(fetched: &Fetched) -> Vec<&str> {
    fetched
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

fn reason(fetched: &Fetched, path: &str) -> Option<LeftOutReason> {
    fetched
        .left_out
        .iter()
        .find(|left| left.path == path)
        .map(|left| left.reason)
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

#[tokio::test]
async fn a_command_reports_how_it_ended() {
    let bench = Bench::start().await;
    assert_eq!(bench.run(&["true"]).await.exit, Exit::Code(0));
    assert_eq!(bench.run(&["sh", "-c", "exit 7"]).await.exit, Exit::Code(7));
    assert_eq!(
        bench.run(&["sh", "-c", "kill -9 $$"]).await.exit,
        Exit::Signal(9)
    );
    let Exit::NotFound(message) = bench.run(&["no-such-program"]).await.exit else {
        panic!("a program that is not there was found");
    };
    assert!(message.contains("no-such-program"), "{message}");
    let refused = bench.workbench.run(request(&[])).await.unwrap_err();
    assert!(matches!(&refused, WorkbenchError::Refused(message) if message.contains("argv")));
    assert!(refused.usable_after());
    let elsewhere = CommandRequest {
        cwd: "../..".into(),
        ..request(&["true"])
    };
    let refused = bench.workbench.run(elsewhere).await.unwrap_err();
    assert!(matches!(refused, WorkbenchError::Refused(message) if message.contains("cwd")));
}

#[tokio::test]
async fn streams_and_use_are_reported() {
    let bench = Bench::start().await;
    let with_stdin = CommandRequest {
        stdin: vec![b'x'; 300_000],
        output_limit_bytes: 1 << 20,
        ..request(&["sh", "-c", "cat; echo error >&2"])
    };
    let result = bench.workbench.run(with_stdin).await.unwrap();
    assert_eq!(result.stdout.bytes.len(), 300_000);
    assert_eq!(result.stderr.text(), "error\n");
    assert!(!result.stdout.truncated());
    let code = "x = bytearray(50_000_000)\nfor i in range(3_000_000): pass";
    let usage = bench.run(&["python3", "-c", code]).await.usage;
    assert!(usage.max_rss_bytes > 50_000_000, "{usage:?}");
    assert!(
        usage.user_seconds > 0.0 && usage.wall_seconds > 0.0,
        "{usage:?}"
    );
}

#[tokio::test]
async fn the_environment_is_what_the_request_says_and_four_variables() {
    let bench = Bench::start().await;
    let env = BTreeMap::from([("GIVEN".to_owned(), "1".to_owned())]);
    let result = bench
        .workbench
        .run(CommandRequest {
            env,
            ..request(&["env"])
        })
        .await
        .unwrap();
    let text = result.stdout.text();
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["GIVEN", "HOME", "LANG", "PATH", "TMPDIR"], "{text}");
    let result = bench
        .run(&["sh", "-c", "touch ~/a \"$TMPDIR\"/b && pwd"])
        .await;
    assert_eq!(result.exit, Exit::Code(0), "{}", result.stderr.text());
    assert_eq!(
        Path::new(result.stdout.text().trim()),
        bench.tree().canonicalize().unwrap()
    );
}

#[tokio::test]
async fn a_command_inherits_three_descriptors_and_no_core_limit() {
    let bench = Bench::start().await;
    let code = "import os, resource, signal\n\
                print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])\n\
                print(resource.getrlimit(resource.RLIMIT_CORE), signal.pthread_sigmask(0, []))\n\
                print(os.getsid(0) == os.getpid(), open('/proc/self/oom_score_adj').read().strip())\n\
                print([l for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp:'))])";
    assert_eq!(
        bench.python(code).await,
        "[0, 1, 2]\n(0, 0) set()\nTrue 1000\n['NoNewPrivs:\\t1\\n', 'Seccomp:\\t2\\n']\n"
    );
}

#[tokio::test]
async fn endless_output_is_bounded_and_keeps_both_ends() {
    let bench = Bench::start().await;
    let bounded = CommandRequest {
        output_limit_bytes: 1000,
        ..request(&["sh", "-c", "echo first; yes | head -c 20000000; echo last"])
    };
    let result = bench.workbench.run(bounded).await.unwrap();
    assert_eq!(result.exit, Exit::Code(0));
    assert!(result.stdout.truncated());
    assert_eq!(result.stdout.dropped, 20_000_011 - 1000);
    assert!(result.stdout.bytes.len() < 1100);
    let text = result.stdout.text();
    assert!(
        text.starts_with("first\n") && text.ends_with("last\n"),
        "{text}"
    );
    let forever = CommandRequest {
        timeout: Duration::from_millis(300),
        ..request(&["yes"])
    };
    assert_eq!(
        bench.workbench.run(forever).await.unwrap().exit,
        Exit::TimedOut
    );
}

#[tokio::test]
async fn a_time_out_kills_what_ignores_sigterm_and_its_grandchildren() {
    let bench = Bench::start().await;
    let script = "trap '' TERM; (trap '' TERM; setsid sh -c 'echo $$; sleep 300' & sleep 300) & echo $$; wait";
    let timeout = Duration::from_millis(500);
    let stubborn = CommandRequest {
        timeout,
        ..request(&["sh", "-c", script])
    };
    let started = Instant::now();
    let result = bench.workbench.run(stubborn).await.unwrap();
    assert_eq!(result.exit, Exit::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(10));
    let text = result.stdout.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.lines().any(alive), "{text}");
}

#[tokio::test]
async fn what_a_command_leaves_running_is_gone_before_its_result() {
    let bench = Bench::start().await;
    // Twice forked and in a session of its own, with all streams closed: nothing but its ancestry leads to it.
    let script = "setsid sh -c 'echo $$ > pid; exec sleep 300' >/dev/null 2>&1 </dev/null & while [ ! -s pid ]; do :; done";
    let result = bench.run(&["sh", "-c", script]).await;
    assert_eq!(result.exit, Exit::Code(0));
    let pid = &bench.fetch(&["pid"]).await.files[0].bytes;
    assert!(!alive(std::str::from_utf8(pid).unwrap()));
    // One that keeps the streams open does not hold up the result either.
    let started = Instant::now();
    let result = bench.run(&["sh", "-c", "sleep 300 & echo done"]).await;
    assert_eq!(
        (result.exit, result.stdout.text().as_str()),
        (Exit::Code(0), "done\n")
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Each generation forks and exits, so that no process lives long enough to be found by its number.
const RABBIT: &str = r"
import os
open('pid', 'w').write(str(os.getpgrp()))
if os.fork(): os._exit(0)
while True:
    if os.fork(): os._exit(0)
";

#[tokio::test]
async fn what_forks_faster_than_one_can_look_is_ended() {
    let bench = Bench::start().await;
    let started = Instant::now();
    assert_eq!(
        bench.run(&["python3", "-c", RABBIT]).await.exit,
        Exit::Code(0)
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let group = std::fs::read_to_string(bench.tree().join("pid")).unwrap();
    let found = Command::new("kill")
        .args(["-0", "--", &format!("-{group}")])
        .output()
        .unwrap();
    assert!(
        !found.status.success(),
        "something of group {group} is left"
    );
}

#[tokio::test]
async fn a_command_that_closes_its_streams_is_waited_for() {
    let bench = Bench::start().await;
    let code = "import os, time\nos.closerange(0, 3)\ntime.sleep(0.2)\nos._exit(3)";
    assert_eq!(
        bench.run(&["python3", "-c", code]).await.exit,
        Exit::Code(3)
    );
}

#[tokio::test]
async fn sockets_other_than_unix_are_refused() {
    let bench = Bench::start().await;
    let code = "import socket\n\
        for f in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK):\n\
        \x20   try: socket.socket(f, socket.SOCK_RAW if f == 17 else socket.SOCK_DGRAM); print('open', f)\n\
        \x20   except PermissionError: pass\n\
        a, b = socket.socketpair(socket.AF_UNIX)\n\
        a.send(b'unix works'); print(b.recv(20))\n\
        s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()";
    assert_eq!(bench.python(code).await, "b'unix works'\n");
    // From a process that it starts, too.
    let code = "import subprocess, sys\n\
        print(subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], stderr=subprocess.PIPE).stderr.splitlines()[-1])";
    assert!(bench.python(code).await.contains("PermissionError"));
}

#[tokio::test]
async fn the_server_is_out_of_reach_and_the_own_children_are_not() {
    let bench = Bench::start().await;
    let code = r"
import ctypes, os, signal, subprocess, errno
libc = ctypes.CDLL(None, use_errno=True)
server = os.getppid()
def refused(name, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(*arguments) != -1 or ctypes.get_errno() != errno.EPERM:
        print('not refused:', name, errno.errorcode.get(ctypes.get_errno()))
import platform
x86 = platform.machine() == 'x86_64'
numbers = dict(kill=62, tkill=200, tgkill=234, prlimit64=302, ptrace=101, process_vm_readv=310, process_vm_writev=311, mount=165, unshare=272, setns=308, bpf=321, perf_event_open=298, keyctl=250, add_key=248, userfaultfd=323, setpriority=141, sched_setscheduler=144, kcmp=312, rt_sigqueueinfo=129, clone=56) if x86 else dict(
    kill=129, tkill=130, tgkill=131, prlimit64=261, ptrace=117, process_vm_readv=270, process_vm_writev=271, mount=40, unshare=97, setns=268, bpf=280, perf_event_open=241, keyctl=219, add_key=217, userfaultfd=282, setpriority=140, sched_setscheduler=119, kcmp=272, rt_sigqueueinfo=138, clone=220)
for signalled in (server, -server, -1):
    refused(f'kill {signalled}', numbers['kill'], signalled, 0)
refused('tkill', numbers['tkill'], server, 0)
refused('tgkill', numbers['tgkill'], server, server, 0)
refused('rt_sigqueueinfo', numbers['rt_sigqueueinfo'], server, 0, 0)
refused('prlimit64', numbers['prlimit64'], server, 7, 0, 0)
refused('setpriority', numbers['setpriority'], 0, server, 19)
refused('sched_setscheduler', numbers['sched_setscheduler'], server, 0, 0)
for name in ('ptrace', 'process_vm_readv', 'process_vm_writev', 'mount', 'unshare', 'setns', 'bpf', 'perf_event_open', 'keyctl', 'add_key', 'userfaultfd', 'kcmp'):
    refused(name, numbers[name], 0, 0, 0, 0, 0, 0)
for name, number in dict(pidfd_send_signal=424, io_uring_setup=425, pidfd_open=434, pidfd_getfd=438, open_tree=428).items():
    refused(name, number, 0, 0, 0, 0)
refused('clone of a user namespace', numbers['clone'], 0x10000000 | 17, 0, 0, 0, 0)
if x86:
    assert libc.syscall(0x40000000 | 41, 2, 1, 0) == -1 and ctypes.get_errno() == errno.ENOSYS, 'x32 socket'
import fcntl
reading, writing = os.pipe()
for name, order in {
    'fcntl F_SETOWN of the server': lambda: fcntl.fcntl(reading, fcntl.F_SETOWN, server),
    'fcntl F_SETOWN of its group': lambda: fcntl.fcntl(reading, fcntl.F_SETOWN, -server),
    'fcntl F_SETOWN_EX': lambda: fcntl.fcntl(reading, 15, b'\1\0\0\0' * 2),
    'ioctl FIOSETOWN': lambda: fcntl.ioctl(reading, 0x8901, b'\1\0\0\0'),
    'ioctl SIOCSPGRP': lambda: fcntl.ioctl(reading, 0x8902, b'\1\0\0\0'),
}.items():
    try: order(); print('not refused:', name)
    except PermissionError: pass
fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
for name, number in (dict(shmget=29, semget=64, msgget=68, mq_open=240) if x86 else dict(shmget=194, semget=190, msgget=186, mq_open=180)).items():
    if libc.syscall(number, 0, 4096, 0o1600, 0) != -1 or ctypes.get_errno() != errno.ENOSYS: print('not refused:', name)
child = subprocess.Popen(['sleep', '300'])
child.terminate()
print(child.wait() == -signal.SIGTERM)
import threading
t = threading.Thread(target=print, args=('threads work',)); t.start(); t.join()
os.kill(os.getpid(), 0)
try: open(f'/proc/{server}/mem'); print('memory' if os.getuid() else 'root')
except PermissionError: print('root')
";
    assert_eq!(bench.python(code).await, "True\nthreads work\nroot\n");
}

#[tokio::test]
async fn files_are_laid_out_and_fetched_as_they_are() {
    let bench = Bench::start().await;
    let script = WorkFile {
        mode: Mode::Executable,
        ..file("bin/go", "#!/bin/sh\necho ran\n")
    };
    let bytes = WorkFile {
        bytes: (0..=255).collect(),
        ..file("data/raw.bin", "")
    };
    let files = vec![script, bytes, file("empty", ""), file("ünï cödé/a b", "x")];
    bench.workbench.lay(files.clone(), true).await.unwrap();
    assert_eq!(bench.run(&["bin/go"]).await.stdout.text(), "ran\n");
    let below = CommandRequest {
        cwd: "bin".into(),
        ..request(&["./go"])
    };
    assert_eq!(
        bench.workbench.run(below).await.unwrap().stdout.text(),
        "ran\n"
    );
    let fetched = bench.fetch(&["**"]).await;
    assert_eq!((fetched.files, fetched.left_out), (files, vec![]));
    assert_eq!(paths(&bench.fetch(&["*"]).await), ["empty"]);
    assert_eq!(
        paths(&bench.fetch(&["**/*.{bin,py}"]).await),
        ["data/raw.bin"]
    );
    bench
        .workbench
        .lay(vec![file("empty", "full")], false)
        .await
        .unwrap();
    assert_eq!(bench.fetch(&["**"]).await.files.len(), 4);
    bench
        .workbench
        .lay(vec![file("only", "")], true)
        .await
        .unwrap();
    assert_eq!(paths(&bench.fetch(&["**"]).await), ["only"]);
    let refused = bench
        .workbench
        .fetch(fetch(&["a[", "b"]))
        .await
        .unwrap_err();
    assert!(matches!(refused, WorkbenchError::Refused(message) if message.contains("a[")));
}

#[tokio::test]
async fn paths_that_leave_the_tree_are_not_laid_out() {
    let bench = Bench::start().await;
    for path in [
        "../x",
        "/etc/x",
        "a/../../x",
        ".git/config",
        "a/.git/hooks/x",
        "a\nb",
        "",
    ] {
        let refused = bench
            .workbench
            .lay(vec![file(path, "")], false)
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, WorkbenchError::Refused(_)),
            "{path:?}: {refused}"
        );
    }
    let twice = vec![file("a", ""), file("a/b", "")];
    assert!(bench.workbench.lay(twice, false).await.is_err());
}

#[tokio::test]
async fn links_devices_repositories_and_strange_names_stay_behind() {
    let bench = Bench::start().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let code = format!(
        r"
import os, socket
os.symlink('{outside}', 'dir-link'); os.symlink('{outside}/secret', 'link')
os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('sock')
for d in ('.git', 'sub/.git/hooks', 'sub/.GIT'): os.makedirs(d)
for f in ('.git/config', 'sub/.git/hooks/x', 'sub/.GIT/x', 'new\nline', b'\xff', 'good', 'sub/.gitignore'): open(f, 'w').write('x')
os.truncate('good', 1); open('huge', 'w').truncate(1 << 30)
",
        outside = outside.path().display()
    );
    bench.python(&code).await;
    let fetched = bench.fetch(&["**"]).await;
    assert_eq!(paths(&fetched), ["good", "sub/.gitignore"]);
    let expected = [
        ("dir-link", LeftOutReason::Link),
        ("link", LeftOutReason::Link),
        ("pipe", LeftOutReason::Special),
        ("sock", LeftOutReason::Special),
        (".git", LeftOutReason::Git),
        ("sub/.git", LeftOutReason::Git),
        ("sub/.GIT", LeftOutReason::Git),
        ("new\u{fffd}line", LeftOutReason::Name),
        ("\u{fffd}", LeftOutReason::Name),
        ("huge", LeftOutReason::TooLarge),
    ];
    for (path, why) in expected {
        assert_eq!(reason(&fetched, path), Some(why), "{path}");
    }
    assert_eq!(
        fetched.left_out.len(),
        expected.len(),
        "{:?}",
        fetched.left_out
    );
}

#[tokio::test]
async fn laying_out_does_not_write_through_links() {
    let bench = Bench::start().await;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "whole").unwrap();
    let plant = format!(
        "ln -s {0} dir; ln -s {0}/victim file; mkdir place; touch place/x; touch was-file; ln {0}/victim hard",
        outside.path().display()
    );
    assert_eq!(bench.run(&["sh", "-c", &plant]).await.exit, Exit::Code(0));
    let files =
        ["dir/victim", "file", "place", "was-file/below", "hard"].map(|path| file(path, "new"));
    bench.workbench.lay(files.to_vec(), false).await.unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    assert_eq!(bench.fetch(&["**"]).await.files.len(), 5);
    // The tree itself replaced by a link.
    let plant = format!(
        "cd ..; rm -rf tree; ln -s {} tree",
        outside.path().display()
    );
    bench.run(&["sh", "-c", &plant]).await;
    bench
        .workbench
        .lay(vec![file("victim", "new")], false)
        .await
        .unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    let plant = format!(
        "cd ..; rm -rf tree home; ln -s {0} tree; ln -s {0} home",
        outside.path().display()
    );
    bench.run(&["sh", "-c", &plant]).await;
    bench.workbench.lay(vec![], true).await.unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
}

#[tokio::test]
async fn a_fresh_tree_holds_nothing_of_the_one_before() {
    let bench = Bench::start().await;
    let code = r"
import os
os.makedirs(os.path.expanduser('~/.local/lib')); open(os.environ['TMPDIR'] + '/x', 'w'); os.makedirs('../extra/y')
os.makedirs('locked/in'); open('locked/in/x', 'w'); os.chmod('locked/in', 0); os.chmod('locked', 0)
os.mkdir('ro'); open('ro/x', 'w'); os.chmod('ro', 0o500)
for i in range(1500):
    os.mkdir('deep-directory'); os.chdir('deep-directory'); open('f', 'w')
";
    bench.python(code).await;
    bench
        .workbench
        .lay(vec![file("a", "")], true)
        .await
        .unwrap();
    let left = bench
        .run(&["sh", "-c", "cd ..; find . -mindepth 1 | sort"])
        .await;
    assert_eq!(left.stdout.text(), "./home\n./tmp\n./tree\n./tree/a\n");
}

#[tokio::test]
async fn a_tree_that_is_too_large_comes_in_part_and_says_so() {
    let bench = Bench::start().await;
    bench
        .python("for i in range(3000): open(f'{i:04}', 'w').write('x' * 10)")
        .await;
    let few = FetchRequest {
        max_files: 5,
        ..fetch(&["**"])
    };
    let fetched = bench.workbench.fetch(few).await.unwrap();
    assert_eq!(paths(&fetched), ["0000", "0001", "0002", "0003", "0004"]);
    assert_eq!(
        (fetched.left_out.len(), fetched.left_out_more),
        (1000, 1995)
    );
    assert_eq!(reason(&fetched, "0005"), Some(LeftOutReason::TooManyFiles));
    let small = FetchRequest {
        max_total_bytes: 25,
        ..fetch(&["000*"])
    };
    let fetched = bench.workbench.fetch(small).await.unwrap();
    assert_eq!(fetched.files.len(), 2);
    assert_eq!(reason(&fetched, "0002"), Some(LeftOutReason::TotalTooLarge));
}

#[tokio::test]
async fn large_trees_cross_in_pieces() {
    let bench = Bench::start().await;
    let files: Vec<WorkFile> = (0..5)
        .map(|i| WorkFile {
            bytes: vec![i; 3_000_001],
            ..file(&format!("f{i}"), "")
        })
        .collect();
    bench.workbench.lay(files.clone(), true).await.unwrap();
    let all = FetchRequest {
        max_bytes_each: 4 << 20,
        max_total_bytes: 64 << 20,
        ..fetch(&["**"])
    };
    assert_eq!(bench.workbench.fetch(all).await.unwrap().files, files);
}

#[tokio::test]
async fn requests_of_clones_are_carried_out_one_after_the_other() {
    let bench = Bench::start().await;
    // Fails if two run at once.
    let exclusive = "mkdir lock && sleep 0.1 && rmdir lock";
    let runs = (0..4).map(|_| {
        let workbench = bench.workbench.clone();
        async move {
            workbench
                .run(request(&["sh", "-c", exclusive]))
                .await
                .unwrap()
                .exit
        }
    });
    assert_eq!(
        futures::future::join_all(runs).await,
        vec![Exit::Code(0); 4]
    );
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_is_ended() {
    let bench = Bench::start().await;
    let long = CommandRequest {
        timeout: Duration::from_secs(300),
        ..request(&["sh", "-c", "echo $$ > pid; sleep 300"])
    };
    let running = tokio::spawn({
        let workbench = bench.workbench.clone();
        async move { workbench.run(long).await }
    });
    let pid = wait_for(|| {
        std::fs::read_to_string(bench.tree().join("pid"))
            .ok()
            .filter(|pid| pid.ends_with('\n'))
    })
    .await;
    running.abort();
    assert_eq!(bench.run(&["echo", "next"]).await.stdout.text(), "next\n");
    assert!(!alive(&pid));
}

#[tokio::test]
async fn a_lost_workbench_is_a_typed_error_then_and_later() {
    let bench = Bench::start().await;
    let server = bench.python("import os; print(os.getppid())").await;
    let running = tokio::spawn({
        let workbench = bench.workbench.clone();
        async move {
            workbench
                .run(request(&["sh", "-c", "touch started; exec sleep 300"]))
                .await
        }
    });
    wait_for(|| bench.tree().join("started").exists().then_some(())).await;
    let killed = Command::new("kill")
        .args(["-KILL", server.trim()])
        .status()
        .unwrap();
    assert!(killed.success());
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkbenchError::Lost(_)), "{error}");
    assert!(!error.usable_after());
    let later = bench.workbench.run(request(&["true"])).await.unwrap_err();
    assert!(matches!(later, WorkbenchError::Lost(_)), "{later}");
}

#[tokio::test]
async fn the_server_and_its_command_end_with_the_connection() {
    let bench = Bench::start().await;
    let server = bench.python("import os; print(os.getppid())").await;
    let running = tokio::spawn({
        let workbench = bench.workbench.clone();
        async move {
            workbench
                .run(request(&["sh", "-c", "echo $$ > pid; sleep 300"]))
                .await
        }
    });
    let pid = wait_for(|| {
        std::fs::read_to_string(bench.tree().join("pid"))
            .ok()
            .filter(|pid| pid.ends_with('\n'))
    })
    .await;
    running.abort();
    drop(bench);
    wait_for(|| (!alive(&server) && !alive(&pid)).then_some(())).await;
}

#[tokio::test]
async fn one_connection_is_accepted_and_the_socket_goes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("workbench-python.sock");
    // What an earlier runner left is in the way.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    // The server is there first, and tries until somebody listens.
    std::fs::remove_file(&socket).unwrap();
    let mut server = Command::new(RUNNER)
        .arg("workbench")
        .args(["--socket".as_ref(), socket.as_os_str()])
        .args(["--root".as_ref(), directory.path().join("root").as_os_str()])
        .spawn()
        .unwrap();
    wait_for(|| directory.path().join("root").exists().then_some(())).await;
    let listener = Listener::bind(&socket).unwrap();
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let workbench = listener.accept(Duration::from_secs(10)).await.unwrap();
    assert!(!socket.exists());
    assert_eq!(
        workbench.run(request(&["true"])).await.unwrap().exit,
        Exit::Code(0)
    );
    // SIGTERM ends the server at once, also beside a command.
    let running = tokio::spawn({
        let workbench = workbench.clone();
        async move {
            workbench
                .run(request(&["sh", "-c", "touch started; exec sleep 300"]))
                .await
        }
    });
    wait_for(|| {
        directory
            .path()
            .join("root/tree/started")
            .exists()
            .then_some(())
    })
    .await;
    Command::new("kill")
        .arg(server.id().to_string())
        .status()
        .unwrap();
    let started = Instant::now();
    assert!(server.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(
        running.await.unwrap(),
        Err(WorkbenchError::Lost(_))
    ));
}

#[tokio::test]
async fn as_pid_1_it_ends_all_others_and_cannot_be_ended_by_them() {
    let directory = tempfile::tempdir().unwrap();
    let [socket, root, scratch] =
        ["workbench.sock", "root", "scratch"].map(|name| directory.path().join(name));
    std::fs::create_dir(&scratch).unwrap();
    let listener = Listener::bind(&socket).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]);
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let mut server = unshare
        .args([
            RUNNER.as_ref(),
            "workbench".as_ref(),
            "--socket".as_ref(),
            socket.as_os_str(),
        ])
        .args([
            "--root".as_ref(),
            root.as_os_str(),
            "--scratch".as_ref(),
            scratch.as_os_str(),
        ])
        .spawn()
        .unwrap();
    let workbench = listener.accept(Duration::from_secs(10)).await.unwrap();
    let processes = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit() and p != str(os.getpid())))";
    let script = format!(
        "touch {}/left; for i in 1 2 3; do setsid sleep 300 & done; setsid python3 -c \"$0\" & kill -TERM 1; kill -KILL 1; kill -KILL -1; echo $?",
        scratch.display()
    );
    for _ in 0..3 {
        let result = workbench
            .run(request(&["sh", "-c", &script, RABBIT]))
            .await
            .unwrap();
        assert_eq!(
            (result.exit, result.stdout.text().as_str()),
            (Exit::Code(0), "1\n")
        );
        let left = workbench
            .run(request(&["python3", "-c", processes]))
            .await
            .unwrap();
        assert_eq!(left.stdout.text(), "[1]\n");
    }
    assert!(scratch.join("left").exists());
    workbench.lay(vec![], true).await.unwrap();
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    drop(workbench);
    assert!(wait_for(|| server.try_wait().unwrap()).await.success());
}

#[tokio::test]
async fn what_takes_too_much_room_is_ended_and_its_files_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let [socket, root, log] =
        ["workbench.sock", "root", "log"].map(|name| directory.path().join(name));
    std::fs::write(&log, "").unwrap();
    let listener = Listener::bind(&socket).unwrap();
    let mut server = Command::new(RUNNER)
        .args(["workbench", "--max-disk", "8"])
        .args(["--socket".as_ref(), socket.as_os_str()])
        .args(["--root".as_ref(), root.as_os_str()])
        .args(["--scratch".as_ref(), log.as_os_str()])
        .spawn()
        .unwrap();
    let workbench = listener.accept(Duration::from_secs(10)).await.unwrap();
    let python = |code: &str| request(&["python3", "-c", code]);
    let fills =
        "import time\nwhile True: open(str(time.monotonic_ns()), 'wb').write(b'x' * 100_000)";
    let at_the_end = "open(HOME + '/big', 'wb').write(b'x' * 9_000_000)"
        .replace("HOME", "__import__('os').environ['HOME']");
    let many = "for i in range(3000): open(str(i), 'w')";
    let elsewhere = format!("open({:?}, 'wb').write(b'x' * 9_000_000)", log.display());
    for code in [fills, &at_the_end, many, &elsewhere] {
        let started = Instant::now();
        let exit = workbench.run(python(code)).await.unwrap().exit;
        assert!(
            matches!(&exit, Exit::Exceeded(what) if what.contains("more than 8 MiB on disk")),
            "{code}: {exit:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(
            workbench.fetch(fetch(&["**"])).await.unwrap(),
            Fetched::default()
        );
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
    }
    let sparse = "open('sparse', 'wb').truncate(1 << 30); print(end='fits')";
    let result = workbench.run(python(sparse)).await.unwrap();
    assert_eq!(
        (result.exit, result.stdout.text().as_str()),
        (Exit::Code(0), "fits")
    );
    let larger = "open('larger', 'wb').truncate((1 << 30) + 1)";
    let result = workbench.run(python(larger)).await.unwrap();
    assert_eq!(result.exit, Exit::Code(1));
    assert!(
        result.stderr.text().contains("File too large"),
        "{}",
        result.stderr.text()
    );
    drop(workbench);
    assert!(wait_for(|| server.try_wait().unwrap()).await.success());
}

#[tokio::test]
async fn a_workbench_that_never_comes_is_a_typed_error() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("workbench.sock");
    // Left by an earlier process: replaced.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listener = Listener::bind(&socket).unwrap();
    let error = listener
        .accept(Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(error, WorkbenchError::NeverConnected { .. }),
        "{error}"
    );
    assert!(!socket.exists());
    let error = Workbench::local(Path::new("/no/such/runner"), directory.path())
        .await
        .unwrap_err();
    assert!(matches!(&error, WorkbenchError::Start { .. }), "{error}");
    let error = Listener::bind(&directory.path().join("no/such/x.sock")).unwrap_err();
    assert!(matches!(&error, WorkbenchError::Listen { .. }), "{error}");
}

#[test]
fn inject_copies_the_binary_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("sopwith");
    for _ in 0..2 {
        let status = Command::new(RUNNER)
            .args(["inject".as_ref(), "--to".as_ref(), to.as_os_str()])
            .status();
        assert!(status.unwrap().success());
    }
    let copy = to.join("runner");
    assert_eq!(
        std::fs::metadata(&copy).unwrap().permissions().mode() & 0o7777,
        0o555
    );
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(RUNNER).unwrap()
    );
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1);
    assert!(
        Command::new(copy)
            .arg("--version")
            .status()
            .unwrap()
            .success()
    );
}

/// Waits until a condition holds and gives what it found; after half a minute the test has failed.
async fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "the condition did not come to hold"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
