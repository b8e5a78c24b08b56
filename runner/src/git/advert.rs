//! What a server says it has: its branches and tags, and what it can. Pure.

use gix_hash::ObjectId;
use sopwith_crds::repository::is_commit_id;

use super::{
    Fault,
    pkt::{self, Line, plain},
};

/// Most bytes of a list of branches and tags.
pub const MAX_BYTES: usize = 32 << 20;
/// Most names in a message.
const MAX_NAMED: usize = 10;

/// Branches and tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Ids by full name, in the server's order.
    pub refs: Vec<(String, ObjectId)>,
    capabilities: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id: a commit, or a tag of one.
    pub id: ObjectId,
    /// The branch that points to it, if that is what was named.
    pub branch: Option<String>,
}

/// Reads a list that comes in pieces.
#[derive(Debug, Default)]
pub struct Reading {
    bytes: Vec<u8>,
    at: usize,
    found: Advertisement,
    lines: usize,
    heading: bool,
}

impl Reading {
    /// Takes a piece; true once the list has ended.
    pub fn feed(&mut self, piece: &[u8]) -> Result<bool, Fault> {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > MAX_BYTES {
            return Err(Fault::protocol(format!(
                "the list of its branches and tags is longer than {MAX_BYTES} bytes"
            )));
        }
        while let Some((line, rest)) = pkt::next(&self.bytes[self.at..])? {
            let next = self.bytes.len() - rest.len();
            let ended = match line {
                Line::Flush => !std::mem::take(&mut self.heading),
                // Over http this line and a flush come first.
                Line::Data(data) if self.lines == 0 && data.starts_with(b"# service=") => {
                    self.heading = true;
                    false
                }
                Line::Data(data) => {
                    self.lines += 1;
                    read_line(&mut self.found, data, self.lines == 1)?;
                    false
                }
            };
            self.at = next;
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The list.
    pub fn finish(self) -> Result<Advertisement, Fault> {
        match self.found.capability("object-format=") {
            None | Some("sha1") => Ok(self.found),
            Some(other) => Err(Fault::protocol(format!(
                "it is a repository of the object format {other}, and only sha1 is supported"
            ))),
        }
    }
}

fn read_line(found: &mut Advertisement, data: &[u8], first: bool) -> Result<(), Fault> {
    if let Some(error) = data.strip_prefix(b"ERR ") {
        return Err(Fault::Refused(plain(error)));
    }
    let (entry, capabilities) = match data.iter().position(|byte| *byte == 0).filter(|_| first) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let words = String::from_utf8_lossy(capabilities);
    found
        .capabilities
        .extend(words.split_whitespace().map(str::to_owned));
    let entry = String::from_utf8_lossy(entry);
    let Some((id, name)) = entry.trim_end().split_once(' ') else {
        return Err(Fault::protocol("a line of its list has no name"));
    };
    // `capabilities^{}` stands for no reference at all, `shallow` for none; what a tag points to is found in the tag.
    if name.ends_with("^{}") || id == "shallow" {
        return Ok(());
    }
    let id = ObjectId::from_hex(id.as_bytes())
        .map_err(|_| Fault::protocol(format!("{:?} is no id", plain(id.as_bytes()))))?;
    if id.kind() != super::object::HASH {
        return Err(Fault::protocol("its ids are not those of sha1"));
    }
    found.refs.push((name.to_owned(), id));
    Ok(())
}

impl Advertisement {
    /// Whether the server can do something.
    pub fn can(&self, what: &str) -> bool {
        self.capabilities.iter().any(|known| known == what)
    }

    /// The value of the first capability that begins so.
    pub fn capability(&self, prefix: &str) -> Option<&str> {
        let mut values = self.capabilities.iter();
        values.find_map(|known| known.strip_prefix(prefix))
    }

    /// Where a reference of this full name points to.
    pub fn get(&self, name: &str) -> Option<ObjectId> {
        let mut refs = self.refs.iter();
        refs.find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    /// What a run asks for: a branch, a tag, a full name or the id of a commit; without one, the default branch. None in a
    /// repository without commits.
    pub fn wanted(&self, reference: Option<&str>) -> Result<Option<Wanted>, Fault> {
        if let Some(name) = reference.filter(|name| *name != "HEAD") {
            return self.named(name).map(Some);
        }
        if self.refs.is_empty() {
            return Ok(None);
        }
        let id = self.get("HEAD").ok_or_else(|| {
            Fault::Missing(format!(
                "its default branch has no commit; {}",
                self.names()
            ))
        })?;
        let branch = self.capability("symref=HEAD:").and_then(branch);
        Ok(Some(Wanted { id, branch }))
    }

    fn named(&self, name: &str) -> Result<Wanted, Fault> {
        let (head, tag) = (format!("refs/heads/{name}"), format!("refs/tags/{name}"));
        let full = match (self.get(name), self.get(&head), self.get(&tag)) {
            (Some(id), _, _) => Some((name, id)),
            (None, Some(id), None) => Some((head.as_str(), id)),
            (None, None, Some(id)) => Some((tag.as_str(), id)),
            (None, Some(_), Some(_)) => {
                return Err(Fault::Missing(format!(
                    "\"{name}\" is a branch and a tag; write {head} or {tag}"
                )));
            }
            (None, None, None) => None,
        };
        match full {
            Some((full, id)) => Ok(Wanted {
                id,
                branch: branch(full),
            }),
            None if is_commit_id(name) => Ok(Wanted {
                id: self.commit(name)?,
                branch: None,
            }),
            None => Err(Fault::Missing(format!(
                "there is no branch or tag \"{name}\"; {}",
                self.names()
            ))),
        }
    }

    /// A commit by its id, where the server gives it.
    fn commit(&self, name: &str) -> Result<ObjectId, Fault> {
        let id = ObjectId::from_hex(name.as_bytes())
            .map_err(|_| Fault::Missing(format!("\"{name}\" is no id of a commit")))?;
        let gives = self.can("allow-reachable-sha1-in-want") || self.can("allow-tip-sha1-in-want");
        if gives || self.refs.iter().any(|(_, known)| *known == id) {
            return Ok(id);
        }
        Err(Fault::Missing(format!(
            "no branch or tag points to the commit {name}, and the server gives no others (uploadpack.allowReachableSHA1InWant); name a \
             branch or tag"
        )))
    }

    /// Says which branches there are.
    fn names(&self) -> String {
        let branches = self
            .refs
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("refs/heads/"));
        let mut names: Vec<&str> = branches.take(MAX_NAMED + 1).collect();
        let more = if names.len() > MAX_NAMED { " …" } else { "" };
        names.truncate(MAX_NAMED);
        if names.is_empty() {
            "it has no branches".to_owned()
        } else {
            format!(
                "it has the branches {}{more}",
                plain(names.join(", ").as_bytes())
            )
        }
    }
}

/// The branch of a full name, if it is one of a branch.
fn branch(name: &str) -> Option<String> {
    name.strip_prefix("refs/heads/").map(str::to_owned)
}
