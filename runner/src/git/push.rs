//! Pushing commits to one branch: what is to be done, the request, and the server's answer. Pure.

use gix_hash::ObjectId;

use super::{
    Fault,
    advert::Advertisement,
    fetch::agent,
    pkt::{self, Line, plain},
};

/// Most bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;
/// Most bytes of what hooks say that are kept.
const MAX_SAID: usize = 4096;

/// What stands between a branch and the commits of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The branch is there already: an earlier launch pushed it.
    Done,
    /// The commits from this number on are missing.
    Push {
        /// What the branch points to now; none where it is not there.
        from: Option<ObjectId>,
        /// The first commit that the server does not have.
        first: usize,
    },
}

/// What to do so that `branch` is at the last of the run's commits, made on top of `base`. Nothing of others is ever
/// overwritten: a branch that is at none of these commits has moved.
pub fn plan(
    server: &Advertisement,
    branch: &str,
    base: Option<ObjectId>,
    made: &[ObjectId],
) -> Result<Plan, Fault> {
    let at = server.get(&format!("refs/heads/{branch}"));
    let Some(at) = at else {
        return Ok(Plan::Push {
            from: None,
            first: 0,
        });
    };
    let own = made.iter().position(|commit| *commit == at);
    match own {
        Some(index) if index + 1 == made.len() => Ok(Plan::Done),
        Some(index) => Ok(Plan::Push {
            from: Some(at),
            first: index + 1,
        }),
        None if Some(at) == base => Ok(Plan::Push {
            from: Some(at),
            first: 0,
        }),
        None => Err(Fault::Refused(match base {
            Some(base) => format!(
                "the branch {branch} is at {at}, and the run began from {base}: somebody wrote to it meanwhile, or it is older than the run"
            ),
            None => format!(
                "the branch {branch} is at {at}, and the run began from an empty repository"
            ),
        })),
    }
}

/// The request that moves a branch, with the pack of what is missing.
pub fn request(
    server: &Advertisement,
    branch: &str,
    from: Option<ObjectId>,
    to: ObjectId,
    pack: &[u8],
) -> Result<Vec<u8>, Fault> {
    if !server.can("report-status") {
        return Err(Fault::protocol(
            "it does not say what becomes of a push (report-status)",
        ));
    }
    let from = from.unwrap_or(super::object::HASH.null());
    let mut capabilities = "report-status".to_owned();
    if server.can("side-band-64k") {
        capabilities.push_str(" side-band-64k");
    }
    if server.capability("agent=").is_some() {
        capabilities = format!("{capabilities} agent={}", agent());
    }
    let mut out = Vec::with_capacity(pack.len() + 512);
    pkt::line(
        &mut out,
        &format!("{from} {to} refs/heads/{branch}\0 {capabilities}\n"),
    );
    pkt::flush(&mut out);
    out.extend_from_slice(pack);
    Ok(out)
}

/// Reads an answer that comes in pieces.
#[derive(Debug)]
pub struct Reading {
    banded: bool,
    buffer: Vec<u8>,
    report: Vec<u8>,
    said: Vec<u8>,
}

impl Reading {
    /// The answer of a server to a request that was made for it.
    pub fn new(server: &Advertisement) -> Self {
        Self {
            banded: server.can("side-band-64k"),
            buffer: Vec::new(),
            report: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Takes a piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.buffer.len() + self.report.len() + piece.len() > MAX_ANSWER {
            return Err(Fault::protocol(format!(
                "its answer to the push is longer than {MAX_ANSWER} bytes"
            )));
        }
        if !self.banded {
            self.report.extend_from_slice(piece);
            return Ok(());
        }
        self.buffer.extend_from_slice(piece);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some((line, after)) = pkt::next(rest)? {
            rest = after;
            match line {
                Line::Data([1, piece @ ..]) => self.report.extend_from_slice(piece),
                // What hooks say is why they refuse.
                Line::Data([2, piece @ ..]) if self.said.len() + piece.len() <= MAX_SAID => {
                    self.said.extend_from_slice(piece);
                }
                Line::Data([3, error @ ..]) => return Err(Fault::Refused(plain(error))),
                Line::Data(data) => {
                    if let Some(error) = data.strip_prefix(b"ERR ") {
                        return Err(Fault::Refused(plain(error)));
                    }
                }
                Line::Flush => {}
            }
        }
        self.buffer = rest.to_vec();
        Ok(())
    }

    /// Whether the branch has moved; an error says why not, or that nobody knows.
    pub fn finish(self, branch: &str) -> Result<(), Fault> {
        let name = format!("refs/heads/{branch}");
        let mut rest = &self.report[..];
        let mut moved = false;
        while let Some((line, after)) = pkt::next(rest)? {
            rest = after;
            let Line::Data(data) = line else { break };
            let text = plain(data);
            if let Some(why) = text.strip_prefix("unpack ").filter(|why| *why != "ok") {
                return Err(self.refused(why));
            }
            if let Some(why) = text.strip_prefix(&format!("ng {name} ")) {
                return Err(self.refused(why));
            }
            moved |= text == format!("ok {name}");
        }
        if moved {
            Ok(())
        } else {
            Err(Fault::Away(
                "the server did not say what became of the push".into(),
            ))
        }
    }

    fn refused(&self, why: &str) -> Fault {
        let said = plain(&self.said);
        Fault::Refused(if said.is_empty() {
            why.to_owned()
        } else {
            format!("{why}; it says: {said}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::advert;

    fn id(letter: char) -> ObjectId {
        ObjectId::from_hex(letter.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn server(refs: &[(&str, char)], capabilities: &str) -> Advertisement {
        let mut out = Vec::new();
        for (name, letter) in refs {
            pkt::line(
                &mut out,
                &format!("{} {name}\0{capabilities}\n", id(*letter)),
            );
        }
        pkt::flush(&mut out);
        let mut reading = advert::Reading::default();
        assert!(reading.feed(&out).unwrap());
        reading.finish().unwrap()
    }

    #[test]
    fn only_what_is_missing_is_pushed_and_nothing_of_others_is_overwritten() {
        let (base, made) = (Some(id('a')), [id('b'), id('c'), id('d')]);
        let push = |from: Option<char>, first| {
            Some(Plan::Push {
                from: from.map(id),
                first,
            })
        };
        let table = [
            ("other", 'e', push(None, 0)),
            ("refs/heads/x", 'a', push(Some('a'), 0)),
            ("refs/heads/x", 'b', push(Some('b'), 1)),
            ("refs/heads/x", 'c', push(Some('c'), 2)),
            ("refs/heads/x", 'd', Some(Plan::Done)),
            ("refs/heads/x", 'e', None),
        ];
        for (name, letter, expected) in table {
            let found = plan(&server(&[(name, letter)], ""), "x", base, &made);
            assert_eq!(found.clone().ok(), expected, "{name} {letter}");
            if expected.is_none() {
                let why = found.unwrap_err().to_string();
                assert!(why.contains("somebody wrote to it meanwhile"), "{why}");
            }
        }
        assert!(plan(&server(&[("refs/heads/x", 'e')], ""), "x", None, &made).is_err());
    }

    #[test]
    fn a_request_names_what_it_moves_and_never_forces() {
        let server = server(
            &[("refs/heads/x", 'a')],
            "report-status side-band-64k delete-refs",
        );
        let request = request(&server, "x", Some(id('a')), id('b'), b"PACK").unwrap();
        let text = String::from_utf8(request).unwrap();
        let expected = format!(
            "{} {} refs/heads/x\0 report-status side-band-64k\n0000PACK",
            id('a'),
            id('b')
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    fn answered(capabilities: &str, answer: &[u8]) -> Result<(), Fault> {
        let mut reading = Reading::new(&server(&[("refs/heads/x", 'a')], capabilities));
        for piece in answer.chunks(3) {
            reading.feed(piece)?;
        }
        reading.finish("x")
    }

    #[test]
    fn the_server_says_whether_the_branch_has_moved() {
        let mut good = Vec::new();
        pkt::line(&mut good, "unpack ok\n");
        pkt::line(&mut good, "ok refs/heads/x\n");
        pkt::flush(&mut good);
        assert_eq!(answered("report-status", &good), Ok(()));
        let mut bad = Vec::new();
        pkt::line(&mut bad, "unpack ok\n");
        pkt::line(&mut bad, "ng refs/heads/x pre-receive hook declined\n");
        pkt::flush(&mut bad);
        let mut banded = Vec::new();
        for (band, data) in [(2, &b"GitLab: protected branch\n"[..]), (1, &bad)] {
            banded.extend(format!("{:04x}", data.len() + 5).into_bytes());
            banded.push(band);
            banded.extend(data);
        }
        pkt::flush(&mut banded);
        assert_eq!(
            answered("report-status side-band-64k", &banded),
            Err(Fault::Refused(
                "pre-receive hook declined; it says: GitLab: protected branch".into()
            ))
        );
        let mut lost = Vec::new();
        pkt::line(&mut lost, "unpack index-pack abnormal exit\n");
        assert_eq!(
            answered("report-status", &lost),
            Err(Fault::Refused("index-pack abnormal exit".into()))
        );
        assert!(matches!(
            answered("report-status", b""),
            Err(Fault::Away(_))
        ));
    }
}
