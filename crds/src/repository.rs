//! Addresses of Git repositories, names of their branches, and which entry of a policy speaks for them. Pure.
//!
//! An address that could be read in two ways could reach another repository than the one that the policy allows. So only
//! plain ones are taken, and they are compared part by part, never as texts.

use crate::tool_policy::AllowedGit;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// User of an ssh address that names none.
const SSH_USER: &str = "git";

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `https://`.
    Https,
    /// `ssh://`.
    Ssh,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Ssh => 22,
        }
    }
}

/// The address of a repository, or the first part of addresses: `https://HOST[:PORT]/PATH` or
/// `ssh://[USER@]HOST[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryUrl {
    scheme: Scheme,
    user: Option<String>,
    host: String,
    port: u16,
    path: Vec<String>,
}

/// What is wrong with an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlMistake(String);

impl RepositoryUrl {
    /// How it is reached.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user of an ssh address; `git` where it names none.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(SSH_USER)
    }

    /// The host, in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, that of the scheme where the address names none.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path on the host, with a slash before it.
    pub fn path(&self) -> String {
        format!("/{}", self.path.join("/"))
    }

    /// Whether it begins with `prefix`, whole parts of the path at a time.
    pub fn is_within(&self, prefix: &Self) -> bool {
        self.scheme == prefix.scheme
            && self.host == prefix.host
            && self.port == prefix.port
            && (self.scheme == Scheme::Https || self.user() == prefix.user())
            && self.path.starts_with(&prefix.path)
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path())
    }
}

impl FromStr for RepositoryUrl {
    type Err = UrlMistake;

    fn from_str(text: &str) -> Result<Self, UrlMistake> {
        let mistake = |why: &str| UrlMistake(format!("\"{}\" {why}", without_user(text)));
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("ssh", rest)) => (Scheme::Ssh, rest),
            Some(("http", _)) => {
                return Err(mistake(
                    "is not encrypted; write an https:// or ssh:// address",
                ));
            }
            None if is_scp_like(text) => {
                return Err(mistake(
                    "is the short form of ssh; write ssh://git@HOST/PATH",
                ));
            }
            _ => {
                return Err(mistake(
                    "is no address that runs may reach; write https://HOST/PATH or ssh://git@HOST/PATH",
                ));
            }
        };
        if rest.contains(['?', '#']) {
            return Err(mistake("has a query or fragment; write the address only"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if let Some(why) = user.and_then(|user| user_mistake(user, scheme)) {
            return Err(mistake(why));
        }
        let (host, port) = host_and_port(place, scheme)
            .ok_or_else(|| mistake("has no host, or a port that is none; write for example https://git.example.com/team/game"))?;
        let parts = path.trim_end_matches('/').split('/');
        let path: Vec<String> = parts
            .filter(|part| !path.is_empty() || !part.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(part) = path.iter().find(|part| !is_part(part)) {
            return Err(mistake(&format!(
                "has the part \"{part}\" in its path, which could be read in more than one way; write plain names between the slashes"
            )));
        }
        Ok(Self {
            scheme,
            user: user.map(str::to_owned),
            host,
            port,
            path,
        })
    }
}

impl Serialize for RepositoryUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RepositoryUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The entry of a policy that speaks for a repository: of those that it begins with, the longest.
pub fn entry_for<'a>(entries: &'a [AllowedGit], url: &RepositoryUrl) -> Option<&'a AllowedGit> {
    let within = entries.iter().filter_map(|entry| {
        let prefix: RepositoryUrl = entry.url.parse().ok()?;
        url.is_within(&prefix).then_some((prefix.path.len(), entry))
    });
    within
        .max_by_key(|(length, _)| *length)
        .map(|(_, entry)| entry)
}

/// What is wrong with the name of a branch or tag, if anything; by the rules of git check-ref-format.
pub fn reference_mistake(name: &str) -> Option<String> {
    let bad_part = |part: &str| {
        part.is_empty() || part.starts_with('.') || part.strip_suffix(".lock").is_some()
    };
    let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let reason = if name.split('/').any(bad_part) {
        "has a part that is empty, begins with a dot or ends with .lock"
    } else if name.contains("..") || name.contains("@{") || name == "@" || name.ends_with('.') {
        "has `..` or `@{` in it, is `@`, or ends with a dot"
    } else if name.starts_with('-') {
        "begins with a dash"
    } else if name.chars().any(bad_char) {
        "has a character that names of Git cannot have"
    } else {
        return None;
    };
    Some(format!(
        "{name:?} {reason}; write a name as Git allows it, for example main or feature/login"
    ))
}

/// Whether a text is the id of a commit: 40 hexadecimal digits in lower case.
pub fn is_commit_id(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `git@host:path`, but no address with a scheme of its own as `ext::sh -c …`.
fn is_scp_like(text: &str) -> bool {
    text.split_once(':').is_some_and(|(place, path)| {
        !place.contains('/') && place.contains('@') && !path.starts_with(':')
    })
}

/// What is wrong with what stands before the host, if anything.
fn user_mistake(user: &str, scheme: Scheme) -> Option<&'static str> {
    if scheme == Scheme::Https {
        Some(
            "has a user or token before the host; credentials come from the Secret that the policy's git entry names",
        )
    } else if user.contains(':') {
        Some("has a password; ssh takes the key of the Secret that the policy's git entry names")
    } else {
        (!is_word(user, "._-"))
            .then_some("has a user that is none; write for example ssh://git@HOST/PATH")
    }
}

/// A text for a message: what stands before an `@` may be secret.
fn without_user(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    match rest.rfind('@') {
        Some(at) => format!("{scheme}…{}", &rest[at..]),
        None => text.to_owned(),
    }
}

fn is_word(text: &str, also: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn host_and_port(place: &str, scheme: Scheme) -> Option<(String, u16)> {
    let address = place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let (host, after) = if let Some((address, after)) = address {
        address.parse::<std::net::Ipv6Addr>().ok()?;
        (format!("[{address}]"), after)
    } else {
        let end = place.find(':').unwrap_or(place.len());
        (place[..end].to_owned(), &place[end..])
    };
    let port = match after.strip_prefix(':') {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0)?
        }
        None if after.is_empty() => scheme.default_port(),
        _ => return None,
    };
    let host = host.to_ascii_lowercase();
    (host.starts_with('[') || is_word(&host, ".-")).then_some((host, port))
}

/// A part of a path that every server reads alike.
fn is_part(part: &str) -> bool {
    let mut bytes = part.bytes();
    let mut plain = true;
    while let Some(byte) = bytes.next() {
        plain &= match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let decoded = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                // A space or a letter of another script; no dot, slash or percent sign in disguise.
                decoded.is_some_and(|byte| byte == 0x20 || byte >= 0x80)
            }
            byte => byte.is_ascii_alphanumeric() || b"._-~+@".contains(&byte),
        };
    }
    plain && !part.is_empty() && part != "." && part != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RepositoryUrl {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_written_in_one_way() {
        let table = [
            (
                "https://Git.Example.com/team/game.git",
                "https://git.example.com/team/game.git",
            ),
            (
                "https://git.example.com:443/a/",
                "https://git.example.com/a",
            ),
            (
                "https://git.example.com:8443/a",
                "https://git.example.com:8443/a",
            ),
            ("https://git.example.com", "https://git.example.com/"),
            (
                "https://dev.azure.com/org/my%20project/_git/game",
                "https://dev.azure.com/org/my%20project/_git/game",
            ),
            ("ssh://git@host/~ada/game", "ssh://git@host/~ada/game"),
            ("ssh://host:22/game", "ssh://host/game"),
            ("ssh://git@[::1]:2222/game", "ssh://git@[::1]:2222/game"),
        ];
        for (text, expected) in table {
            assert_eq!(url(text).to_string(), expected);
        }
        let ssh = url("ssh://[::1]:2222/srv/game");
        assert_eq!((ssh.user(), ssh.host(), ssh.port()), ("git", "::1", 2222));
        assert_eq!(ssh.path(), "/srv/game");
    }

    #[test]
    fn an_address_that_is_none_says_what_to_write() {
        let table = [
            ("http://git.example.com/a", "is not encrypted"),
            ("git@github.com:acme/game.git", "write ssh://git@HOST/PATH"),
            ("file:///etc", "no address that runs may reach"),
            ("/srv/git/game", "no address that runs may reach"),
            ("ext::sh -c id", "no address that runs may reach"),
            ("git://host/a", "no address that runs may reach"),
            ("HTTPS://host/a", "no address that runs may reach"),
            (
                "https://ada:hunter2@host/a",
                "credentials come from the Secret",
            ),
            ("https://token@host/a", "credentials come from the Secret"),
            ("ssh://ada:hunter2@host/a", "has a password"),
            ("https://ada:hunter2/x@host/a", "has no host"),
            ("ssh://-oProxyCommand=id@host/a", "has a user that is none"),
            ("ssh://-oProxyCommand=id/a", "has no host"),
            ("https:///a", "has no host"),
            ("https://host:0/a", "has no host"),
            ("https://host:99999/a", "has no host"),
            ("https://host:+80/a", "has no host"),
            ("https://[::1/a", "has no host"),
            ("https://host/a?token=x", "has a query"),
            ("https://host/a#b", "has a query"),
            ("https://host/team/../other", "more than one way"),
            ("https://host/team/%2e%2e/other", "more than one way"),
            ("https://host/team/%2E./other", "more than one way"),
            ("https://host/team%2fother", "more than one way"),
            ("https://host/team%252e", "more than one way"),
            ("https://host/team//other", "more than one way"),
            ("https://host//other", "more than one way"),
            ("https://host/team/%", "more than one way"),
            ("https://host/team\\other", "more than one way"),
            ("https://host/a b", "more than one way"),
            ("ssh://host/a'; id; '", "more than one way"),
            ("https://host/a\nb", "more than one way"),
        ];
        for (text, expected) in table {
            let mistake = text.parse::<RepositoryUrl>().unwrap_err().to_string();
            assert!(mistake.contains(expected), "{text}: {mistake}");
            assert!(
                !mistake.contains("hunter2") && !mistake.contains("token@"),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let table = [
            ("https://host/team", "https://host/team/game", true),
            ("https://host/team/", "https://host/team/game", true),
            ("https://host/team/game", "https://host/team/game", true),
            ("https://host", "https://host/team/game", true),
            ("https://host/team", "https://host/team-evil/game", false),
            (
                "https://host/team/game",
                "https://host/team/game.git",
                false,
            ),
            ("https://host/team/game", "https://host/team", false),
            ("https://host", "https://host.evil/team", false),
            ("https://host", "https://host:8443/team", false),
            ("https://host", "ssh://host/team", false),
            ("ssh://host", "ssh://git@host/team", true),
            ("ssh://git@host", "ssh://root@host/team", false),
        ];
        for (prefix, address, expected) in table {
            assert_eq!(
                url(address).is_within(&url(prefix)),
                expected,
                "{prefix} {address}"
            );
        }
    }

    #[test]
    fn the_longest_entry_speaks() {
        let entry = |url: &str, branch: &str| AllowedGit {
            url: url.into(),
            branches: vec![branch.into()],
            ..AllowedGit::default()
        };
        let entries = [
            entry("https://host/team", "team"),
            entry("https://host/team/game", "game"),
            entry("https://host", "host"),
            entry("nonsense", "none"),
        ];
        let of = |address: &str| Some(entry_for(&entries, &url(address))?.branches[0].as_str());
        assert_eq!(of("https://host/team/game"), Some("game"));
        assert_eq!(of("https://host/team/other"), Some("team"));
        assert_eq!(of("https://host/teams"), Some("host"));
        assert_eq!(of("https://elsewhere/team"), None);
    }

    #[test]
    fn names_of_branches_are_those_of_git() {
        for good in [
            "main",
            "feature/login",
            "v1.2",
            "sopwith/run-1",
            "ünï",
            "@home",
        ] {
            assert_eq!(reference_mistake(good), None, "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a..b", "a@{1}", "@", "a.",
            "-a", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a\nb", "a\u{7f}",
        ] {
            assert!(reference_mistake(bad).is_some(), "{bad:?}");
        }
        assert!(is_commit_id(&"a1".repeat(20)));
        assert!(!is_commit_id(&"A1".repeat(20)) && !is_commit_id("a1"));
    }
}
