//! The way to the repository of a run: credentials from the Secret that the policy grants, one fetch, one push.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use gix_hash::ObjectId;
use secrecy::{ExposeSecret, SecretString};
use sopwith_crds::{agent_run::KeyRef, contract::plan::Repository, repository::Scheme};

use super::{
    Fault,
    advert::Advertisement,
    fetch,
    https::Https,
    object::Objects,
    pack::{self, Limits},
    push, source,
    ssh::{self, Ssh},
};
use crate::{
    llm::transport::Places,
    tree::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES},
};

/// Longest time of one try.
const TRY: Duration = Duration::from_secs(600);
/// Longest time that a server which is away is tried again.
const PATIENCE: Duration = Duration::from_secs(300);
/// User of a password that comes alone: servers that take tokens as passwords ask for some user.
const USER: &str = "git";
/// Keys of the Secret.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const TOKEN: &str = "token";
const PRIVATE_KEY: &str = "ssh-privatekey";
const KNOWN_HOSTS: &str = "known_hosts";

/// What is read of a repository: as much as a project may have, and the folders around it.
pub(crate) const LIMITS: Limits = Limits {
    objects: 4 * MAX_FILES,
    each: MAX_FILE_BYTES,
    total: MAX_TOTAL_BYTES + (32 << 20),
};

/// Takes the answer of a server as it comes.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), Fault> + Send + 'a;

/// What a server is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Fetch,
    Push,
}

impl Service {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "git-upload-pack",
            Self::Push => "git-receive-pack",
        }
    }

    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Fetch => "read",
            Self::Push => "write to",
        }
    }
}

/// How one proves who asks.
pub(super) enum Credential {
    None,
    Password {
        user: String,
        password: SecretString,
    },
    Token(SecretString),
    Key {
        key: SecretString,
    },
}

/// The way to a repository. Its Secret is read for each use, so that a renewed one is used at once.
#[derive(Debug, Clone)]
pub struct Remote {
    repository: Repository,
    places: Places,
}

/// A commit, without what came before.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The commit.
    pub commit: ObjectId,
    /// The branch, where it is one.
    pub branch: Option<String>,
    /// Everything that belongs to it.
    pub objects: Objects,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The branch has moved.
    Moved,
    /// It was there already: an earlier launch pushed it and could not say so.
    There,
}

enum Way {
    Https(Box<Https>),
    Ssh(Box<Ssh>),
}

enum Open<'a> {
    Https(&'a Https),
    Ssh(Box<ssh::Session>),
}

impl Remote {
    /// The way to a plan's repository.
    pub fn new(repository: &Repository, places: &Places) -> Self {
        Self {
            repository: repository.clone(),
            places: places.clone(),
        }
    }

    /// The repository.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Keys of the Secret that are needed and not there.
    pub fn missing_secrets(&self) -> Vec<KeyRef> {
        let Some(name) = &self.repository.secret else {
            return Vec::new();
        };
        let lacks = |key: &&str| self.secret(key).is_none();
        let missing: Vec<&str> = match self.repository.url.scheme() {
            Scheme::Https if lacks(&PASSWORD) && lacks(&TOKEN) => vec![PASSWORD],
            Scheme::Https => Vec::new(),
            Scheme::Ssh => [PRIVATE_KEY, KNOWN_HOSTS]
                .into_iter()
                .filter(lacks)
                .collect(),
        };
        let key = |key: &str| KeyRef {
            name: name.clone(),
            key: key.to_owned(),
        };
        missing.into_iter().map(key).collect()
    }

    /// A key of the Secret, unless it is missing or empty.
    fn secret(&self, key: &str) -> Option<SecretString> {
        let name = self.repository.secret.as_ref()?;
        let text = std::fs::read_to_string(self.places.secrets.join(name).join(key)).ok()?;
        // A private key needs the end of its last line.
        let text = text.trim();
        (!text.is_empty()).then(|| {
            SecretString::from(format!(
                "{text}{}",
                if key == PRIVATE_KEY { "\n" } else { "" }
            ))
        })
    }

    fn credential(&self) -> Result<Credential, Fault> {
        let Some(name) = &self.repository.secret else {
            return Ok(Credential::None);
        };
        if let Some(missing) = self.missing_secrets().first() {
            return Err(Fault::Credential(format!(
                "the Secret \"{name}\" of the policy has no key {}; {}",
                missing.key,
                match self.repository.url.scheme() {
                    Scheme::Https =>
                        "https needs the key password (with username, if the server asks for one) or the key token",
                    Scheme::Ssh =>
                        "ssh needs the keys ssh-privatekey and known_hosts, as a host that is not known is not spoken to",
                }
            )));
        }
        let user = self.secret(USERNAME);
        let user = user.map_or_else(|| USER.to_owned(), |user| user.expose_secret().to_owned());
        Ok(
            match (
                self.secret(TOKEN),
                self.secret(PASSWORD),
                self.secret(PRIVATE_KEY),
            ) {
                (_, _, Some(key)) if self.repository.url.scheme() == Scheme::Ssh => {
                    Credential::Key { key }
                }
                (Some(token), _, _) => Credential::Token(token),
                (None, Some(password), _) => Credential::Password { user, password },
                (None, None, _) => Credential::None,
            },
        )
    }

    fn way(&self) -> Result<Way, Fault> {
        let credential = self.credential()?;
        if self.repository.url.scheme() == Scheme::Https {
            let (url, authorities) = (
                self.repository.url.to_string(),
                self.repository.ca_ref.as_ref(),
            );
            let https = Https::new(url, authorities, credential, &self.places)?;
            return Ok(Way::Https(Box::new(https)));
        }
        let (Credential::Key { key }, Some(secret)) = (credential, &self.repository.secret) else {
            return Err(Fault::Credential(
                "ssh needs a Secret with the keys ssh-privatekey and known_hosts; name it in secretRef of the policy's git entry".into(),
            ));
        };
        Ok(Way::Ssh(Box::new(Ssh {
            host: self.repository.url.host().to_owned(),
            port: self.repository.url.port(),
            user: self.repository.url.user().to_owned(),
            path: path_on_host(&self.repository.url.path()),
            key,
            known_hosts: self.places.secrets.join(secret).join(KNOWN_HOSTS),
        })))
    }

    /// The commit that the run begins from; none in a repository without commits. Tried again while the server is away.
    pub async fn fetch(&self) -> Result<Option<Fetched>, Fault> {
        self.patiently(|| self.fetch_once()).await
    }

    async fn fetch_once(&self) -> Result<Option<Fetched>, Fault> {
        let way = self.way()?;
        let (open, server) = way.open(Service::Fetch).await?;
        let Some(wanted) = server.wanted(self.repository.reference.as_deref())? else {
            return Ok(None);
        };
        let request = fetch::request(&server, wanted.id)?;
        let mut reading = fetch::Reading::new(&server);
        open.exchange(Service::Fetch, request, &mut |piece| reading.feed(piece))
            .await?;
        let pack = reading.finish()?;
        let read = tokio::task::spawn_blocking(move || pack::read(&pack, LIMITS)).await;
        let objects =
            read.map_err(|error| Fault::Away(format!("the pack could not be read: {error}")))??;
        let (commit, _) = source::commit(&objects, wanted.id)?;
        Ok(Some(Fetched {
            commit,
            branch: wanted.branch,
            objects,
        }))
    }

    /// Moves a branch to the last of `made`, built on `base`. `pack` gives the objects from a commit of `made` on. Harmless to
    /// repeat, and never forced. Tried again while the server is away.
    pub async fn push(
        &self,
        branch: &str,
        base: Option<ObjectId>,
        made: &[ObjectId],
        pack: impl Fn(usize) -> Result<Vec<u8>, Fault>,
    ) -> Result<Pushed, Fault> {
        self.patiently(|| self.push_once(branch, base, made, &pack))
            .await
    }

    async fn push_once(
        &self,
        branch: &str,
        base: Option<ObjectId>,
        made: &[ObjectId],
        pack: &impl Fn(usize) -> Result<Vec<u8>, Fault>,
    ) -> Result<Pushed, Fault> {
        let way = self.way()?;
        let (open, server) = way.open(Service::Push).await?;
        let push::Plan::Push { from, first } = push::plan(&server, branch, base, made)? else {
            return Ok(Pushed::There);
        };
        let Some(to) = made.last() else {
            return Ok(Pushed::There);
        };
        let request = push::request(&server, branch, from, *to, &pack(first)?)?;
        let mut reading = push::Reading::new(&server);
        open.exchange(Service::Push, request, &mut |piece| reading.feed(piece))
            .await?;
        reading.finish(branch)?;
        Ok(Pushed::Moved)
    }

    async fn patiently<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        once: impl Fn() -> F,
    ) -> Result<T, Fault> {
        let bounded = || async {
            let tried = tokio::time::timeout(TRY, once()).await;
            tried.unwrap_or_else(|_| {
                Err(Fault::Refused(format!(
                    "it was not done within {} s",
                    TRY.as_secs()
                )))
            })
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(15))
            .with_total_delay(Some(PATIENCE))
            .without_max_times();
        bounded
            .retry(pauses)
            .when(Fault::worth_another)
            .notify(|fault, pause| {
                let fault = self.masked(fault.to_string());
                tracing::warn!(%fault, seconds = pause.as_secs_f32(), "the repository is away");
            })
            .await
            .map_err(|fault| fault.mapped(|text| self.masked(text)))
    }

    /// A text without the credential, should the server have said it.
    fn masked(&self, text: String) -> String {
        let secrets = [PASSWORD, TOKEN, PRIVATE_KEY]
            .into_iter()
            .filter_map(|key| self.secret(key));
        secrets.fold(text, |text, secret| {
            text.replace(secret.expose_secret().trim(), "[masked]")
        })
    }
}

impl Way {
    async fn open(&self, service: Service) -> Result<(Open<'_>, Advertisement), Fault> {
        match self {
            Self::Https(https) => {
                let server = https.advertised(service).await?;
                Ok((Open::Https(https), server))
            }
            Self::Ssh(ssh) => {
                let (session, server) = ssh.open(service).await?;
                Ok((Open::Ssh(Box::new(session)), server))
            }
        }
    }
}

impl Open<'_> {
    async fn exchange(
        self,
        service: Service,
        request: Vec<u8>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        match self {
            Self::Https(https) => https.exchange(service, request, sink).await,
            Self::Ssh(session) => session.exchange(request, sink).await,
        }
    }
}

/// The path of an ssh address as the server's shell gets it. Addresses have no quotes: the checker refuses them.
fn path_on_host(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..2).filter(|_| byte == b'%');
        let decoded = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => bytes.push(byte),
        }
    }
    let path = String::from_utf8_lossy(&bytes).into_owned();
    match path.strip_prefix("/~") {
        Some(home) => format!("~{home}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_the_host_takes_it_for() {
        let table = [
            ("/srv/game.git", "/srv/game.git"),
            ("/~ada/game", "~ada/game"),
            ("/my%20project/game", "/my project/game"),
            ("/%C3%BC", "/ü"),
        ];
        for (path, expected) in table {
            assert_eq!(path_on_host(path), expected);
        }
    }

    fn remote(url: &str, keys: &[(&str, &str)]) -> (Remote, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("repo");
        std::fs::create_dir(&secret).unwrap();
        for (key, text) in keys {
            std::fs::write(secret.join(key), text).unwrap();
        }
        let repository = Repository {
            url: url.parse().unwrap(),
            reference: None,
            secret: Some("repo".into()),
            ca_ref: None,
            deliver: None,
        };
        let places = Places {
            secrets: folder.path().into(),
            config: folder.path().into(),
        };
        (Remote::new(&repository, &places), folder)
    }

    #[test]
    fn missing_keys_of_the_secret_are_named() {
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let table: [Row<'_>; 6] = [
            ("https://host/a", &[], &["password"]),
            ("https://host/a", &[("password", "")], &["password"]),
            ("https://host/a", &[("token", "t")], &[]),
            ("ssh://host/a", &[], &["ssh-privatekey", "known_hosts"]),
            ("ssh://host/a", &[("ssh-privatekey", "k")], &["known_hosts"]),
            (
                "ssh://host/a",
                &[("ssh-privatekey", "k"), ("known_hosts", "h")],
                &[],
            ),
        ];
        for (url, keys, expected) in table {
            let (remote, _folder) = remote(url, keys);
            let missing: Vec<String> = remote
                .missing_secrets()
                .into_iter()
                .map(|key| key.key)
                .collect();
            assert_eq!(missing, expected, "{url} {keys:?}");
        }
        let (remote, _folder) = remote("ssh://host/a", &[("ssh-privatekey", "k")]);
        let why = remote.credential().err().map(|fault| fault.to_string());
        assert!(why.is_some_and(|why| why.contains("a host that is not known is not spoken to")));
    }

    #[test]
    fn a_credential_that_the_server_repeats_is_masked() {
        let (remote, _folder) = remote(
            "https://host/a",
            &[("password", "hunter2\n"), ("username", "ada")],
        );
        assert_eq!(remote.masked("no hunter2".into()), "no [masked]");
        assert!(
            matches!(remote.credential(), Ok(Credential::Password { user, .. }) if user == "ada")
        );
    }
}
