//! Real Git servers for tests: git's own http-backend behind TLS, and OpenSSH's sshd. Both serve the bare repositories of one
//! folder.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

/// The one user that may come in over https, and the password.
pub(crate) const USER: &str = "ada";
/// Its password, and the token that is taken as well.
pub(crate) const PASSWORD: &str = "correct-horse-battery";
/// Both together in base64, as browsers send them.
const PAIR: &str = "YWRhOmNvcnJlY3QtaG9yc2UtYmF0dGVyeQ==";

/// Bare repositories below one folder.
pub(crate) struct Repositories {
    folder: tempfile::TempDir,
}

impl Repositories {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A new bare repository that can be pushed to.
    pub(crate) fn add(&self, name: &str) -> Repository {
        let path = self.root().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let repository = Repository { path };
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        repository.git(&["config", "http.receivepack", "true"]);
        repository.git(&["config", "gc.auto", "0"]);
        repository.git(&["config", "receive.fsckObjects", "true"]);
        repository
    }
}

/// A bare repository on the server.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
}

/// A file of a commit: path, mode as Git has it, content. Of a submodule the content is the commit's id.
pub(crate) type File<'a> = (&'a str, &'a str, &'a [u8]);

impl Repository {
    /// Runs git in the repository and gives what it says.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.git_with(args, &[])
    }

    pub(crate) fn git_with(&self, args: &[&str], input: &[u8]) -> String {
        let (good, out) = self.try_git(args, input);
        assert!(good, "git {args:?}: {out}");
        out
    }

    pub(crate) fn try_git(&self, args: &[&str], input: &[u8]) -> (bool, String) {
        use std::io::Write;
        let mut git = clean(Command::new("git"))
            .args(args)
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git is installed");
        git.stdin.take().unwrap().write_all(input).unwrap();
        let done = git.wait_with_output().unwrap();
        let out = if done.status.success() {
            done.stdout
        } else {
            done.stderr
        };
        (
            done.status.success(),
            String::from_utf8_lossy(&out).trim_end().to_owned(),
        )
    }

    /// Makes a commit of exactly these files on a branch, on top of what the branch has; gives its id.
    pub(crate) fn commit(&self, branch: &str, files: &[File<'_>]) -> String {
        let index = self.path.join("test-index");
        let _ = std::fs::remove_file(&index);
        let mut list = String::new();
        for (path, mode, content) in files {
            let id = if *mode == "160000" {
                String::from_utf8(content.to_vec()).unwrap()
            } else {
                self.git_with(&["hash-object", "-w", "--stdin"], content)
            };
            list = format!("{list}{mode} {id}\t{path}\n");
        }
        let with = format!("GIT_INDEX_FILE={}", index.display());
        let env = |args: &[&str], input: &[u8]| {
            use std::io::Write;
            let mut git = clean(Command::new("git"))
                .env("GIT_INDEX_FILE", with.split_once('=').unwrap().1)
                .args(args)
                .current_dir(&self.path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            git.stdin.take().unwrap().write_all(input).unwrap();
            let done = git.wait_with_output().unwrap();
            assert!(done.status.success(), "git {args:?}");
            String::from_utf8(done.stdout)
                .unwrap()
                .trim_end()
                .to_owned()
        };
        env(&["update-index", "--index-info"], list.as_bytes());
        let tree = env(&["write-tree"], b"");
        let name = format!("refs/heads/{branch}");
        let mut args = vec!["commit-tree", "-m", "as people left it", &tree];
        let parent = self.head(branch);
        if let Some(parent) = &parent {
            args.extend(["-p", parent]);
        }
        let commit = self.git(&args);
        self.git(&["update-ref", &name, &commit]);
        commit
    }

    /// Where a branch is.
    pub(crate) fn head(&self, branch: &str) -> Option<String> {
        let (good, id) = self.try_git(
            &[
                "rev-parse",
                "--verify",
                "--quiet",
                &format!("refs/heads/{branch}"),
            ],
            b"",
        );
        good.then_some(id)
    }

    /// What git itself finds wrong with the repository.
    pub(crate) fn fsck(&self) -> String {
        self.git(&["fsck", "--full", "--strict", "--no-dangling"])
    }
}

/// Without the configuration of whoever runs the tests.
fn clean(mut command: Command) -> Command {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_AUTHOR_DATE", "1700000000 +0100")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_DATE", "1700000000 +0100");
    command
}

/// What becomes of a request in place of an answer of Git.
#[derive(Clone, Debug)]
pub(crate) enum Trick {
    /// This status, with these header lines.
    Status(u16, String),
    /// Git's answer, but only so many bytes of it.
    Cut(usize),
    /// Git does what it is asked, and nobody hears of it.
    Silent,
}

/// git's http-backend behind TLS.
#[derive(Clone)]
pub(crate) struct Https {
    /// `https://HOST:PORT`.
    pub(crate) url: String,
    /// The certificate to check it against.
    pub(crate) authority: String,
    state: Arc<State>,
}

struct State {
    root: PathBuf,
    tricks: Mutex<VecDeque<(String, Trick)>>,
    calls: Mutex<Vec<String>>,
}

impl Https {
    /// Serves the repositories on this machine only.
    pub(crate) async fn serve(repositories: &Repositories) -> Self {
        Self::serve_at(repositories, "127.0.0.1".parse().unwrap(), "localhost").await
    }

    /// Serves the repositories at an address, under the name that its certificate has.
    pub(crate) async fn serve_at(repositories: &Repositories, at: IpAddr, name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = made.signing_key.serialize_der();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(SocketAddr::new(at, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            root: repositories.root().to_owned(),
            tricks: Mutex::default(),
            calls: Mutex::default(),
        });
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        state.answer(stream).await;
                    }
                });
            }
        });
        Self {
            url: format!("https://{name}:{port}"),
            authority: made.cert.pem(),
            state,
        }
    }

    /// The next request whose first line has the text gets the trick.
    pub(crate) fn play(&self, line: &str, trick: Trick) {
        self.state
            .tricks
            .lock()
            .unwrap()
            .push_back((line.to_owned(), trick));
    }

    /// The first lines of all requests so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }
}

impl State {
    async fn answer(&self, mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
        let Some((head, body)) = request(&mut stream).await else {
            return;
        };
        let line = head.lines().next().unwrap_or_default().to_owned();
        self.calls.lock().unwrap().push(line.clone());
        let trick = {
            let mut tricks = self.tricks.lock().unwrap();
            let found = tricks
                .iter()
                .position(|(text, _)| line.contains(text.as_str()));
            found
                .and_then(|index| tricks.remove(index))
                .map(|(_, trick)| trick)
        };
        let answer = match &trick {
            Some(Trick::Status(status, head)) => {
                format!("HTTP/1.1 {status} x\r\n{head}\r\n").into_bytes()
            }
            _ if !allowed(&head) => {
                b"HTTP/1.1 401 x\r\nwww-authenticate: Basic realm=\"git\"\r\n\r\n".to_vec()
            }
            _ => self.backend(&line, &head, body).await,
        };
        let end = match trick {
            Some(Trick::Cut(most)) => answer.len().min(most),
            Some(Trick::Silent) => 0,
            _ => answer.len(),
        };
        let _ = stream.write_all(&answer[..end]).await;
        let _ = stream.shutdown().await;
    }

    /// Asks git, as a web server does (CGI).
    async fn backend(&self, line: &str, head: &str, body: Vec<u8>) -> Vec<u8> {
        let mut words = line.split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut git = tokio::process::Command::from(clean(Command::new("git")))
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", header(head, "content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("REMOTE_USER", USER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("git is installed");
        let mut input = git.stdin.take().unwrap();
        let feed = async move {
            let _ = input.write_all(&body).await;
        };
        let (done, ()) = tokio::join!(git.wait_with_output(), feed);
        let out = done.unwrap().stdout;
        let end = out
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap_or(out.len());
        let cgi = String::from_utf8_lossy(&out[..end]).into_owned();
        let status = cgi
            .lines()
            .find_map(|line| line.strip_prefix("Status: "))
            .unwrap_or("200 OK");
        let mut answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{cgi}").into_bytes();
        answer.extend_from_slice(&out[end..]);
        answer
    }
}

/// Whether a request has the credential, as password or as token.
fn allowed(head: &str) -> bool {
    let given = header(head, "authorization");
    given == format!("Basic {PAIR}") || given == format!("Bearer {PASSWORD}")
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    found.unwrap_or_default()
}

async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = header(&head, "content-length").parse().unwrap_or(0);
            let mut body = bytes.split_off(end + 4);
            while body.len() < length {
                if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
            return Some((head, body));
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// OpenSSH's server.
const SSHD: &str = "/usr/sbin/sshd";

/// OpenSSH's sshd, started for each connection.
pub(crate) struct Ssh {
    /// `ssh://USER@HOST:PORT/FOLDER`, the folder with the repositories.
    pub(crate) url: String,
    /// The private key that may come in.
    pub(crate) key: String,
    /// The line of the host in `known_hosts`.
    pub(crate) known_hosts: String,
    _folder: tempfile::TempDir,
}

impl Ssh {
    /// Serves the repositories on this machine only.
    pub(crate) async fn serve(repositories: &Repositories) -> Self {
        Self::serve_at(repositories, "127.0.0.1".parse().unwrap()).await
    }

    /// Serves the repositories at an address.
    pub(crate) async fn serve_at(repositories: &Repositories, at: IpAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host_key = generated(folder.path(), "host");
        let user_key = generated(folder.path(), "user");
        let place = |name: &str| folder.path().join(name).display().to_string();
        std::fs::copy(place("user.pub"), place("authorized")).unwrap();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n\
             AcceptEnv none\nLogLevel ERROR\n",
            place("host"),
            place("authorized")
        );
        std::fs::write(place("config"), config).unwrap();
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is not there: Debian's package openssh-server has it"
        );
        // Where sshd of root locks itself in.
        if Path::new("/run")
            .metadata()
            .is_ok_and(|run| run.permissions().mode() & 0o200 != 0)
        {
            let _ = std::fs::create_dir("/run/sshd");
        }
        let listener = TcpListener::bind(SocketAddr::new(at, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = place("config");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = config.clone();
                tokio::spawn(async move { session(stream, &config).await });
            }
        });
        let user = said(Command::new("id").arg("-un"));
        Self {
            url: format!("ssh://{user}@{at}:{port}{}", repositories.root().display()),
            key: user_key.0,
            known_hosts: format!("[{at}]:{port} {}\n", host_key.1),
            _folder: folder,
        }
    }
}

/// A connection, handed to a sshd of its own.
async fn session(stream: TcpStream, config: &str) {
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let (input, output) = (stream.try_clone().unwrap(), stream);
    let sshd = tokio::process::Command::new(SSHD)
        .args(["-i", "-e", "-f", config])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(input)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(output)))
        .kill_on_drop(true)
        .status()
        .await;
    sshd.unwrap();
}

/// A new key pair: the private key, and the public one without its comment.
pub(crate) fn generated(folder: &Path, name: &str) -> (String, String) {
    let path = folder.join(name);
    said(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&path),
    );
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let public = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    (std::fs::read_to_string(path).unwrap(), public)
}

fn said(command: &mut Command) -> String {
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        done.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}
