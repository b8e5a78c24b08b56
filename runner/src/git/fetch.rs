//! Asking for one commit without its history, and reading the answer. Pure.

use gix_hash::ObjectId;

use super::{
    Fault,
    advert::Advertisement,
    pkt::{self, Line, plain},
};
use crate::tree::MAX_TOTAL_BYTES;

/// Most bytes of a pack: it is compressed, but random bytes grow a little.
pub const MAX_PACK_BYTES: usize = MAX_TOTAL_BYTES + (16 << 20);

/// The request for a commit, and the tags on the way to it, without what came before.
pub fn request(server: &Advertisement, id: ObjectId) -> Result<Vec<u8>, Fault> {
    if !server.can("shallow") {
        return Err(Fault::protocol(
            "it cannot give a commit without its history (shallow)",
        ));
    }
    let mut capabilities = String::new();
    // Some servers speak with those only who can do the last of these, though nothing is negotiated here.
    for wanted in ["side-band-64k", "ofs-delta", "multi_ack_detailed"] {
        if server.can(wanted) {
            capabilities = format!("{capabilities} {wanted}");
        }
    }
    if server.capability("agent=").is_some() {
        capabilities = format!("{capabilities} agent={}", agent());
    }
    let mut out = Vec::new();
    pkt::line(&mut out, &format!("want {id}{capabilities}\n"));
    pkt::line(&mut out, "deepen 1\n");
    pkt::flush(&mut out);
    pkt::line(&mut out, "done\n");
    Ok(out)
}

/// How this program names itself to servers.
pub fn agent() -> String {
    format!("sopwith/{}", env!("CARGO_PKG_VERSION"))
}

/// Reads an answer that comes in pieces.
#[derive(Debug)]
pub struct Reading {
    banded: bool,
    begun: bool,
    ended: bool,
    buffer: Vec<u8>,
    pack: Vec<u8>,
}

impl Reading {
    /// The answer of a server to a request that was made for it.
    pub fn new(server: &Advertisement) -> Self {
        Self {
            banded: server.can("side-band-64k"),
            begun: false,
            ended: false,
            buffer: Vec::new(),
            pack: Vec::new(),
        }
    }

    /// Takes a piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.begun && !self.banded {
            return self.take(piece);
        }
        self.buffer.extend_from_slice(piece);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some((line, after)) = pkt::next(rest)? {
            rest = after;
            match line {
                Line::Data(data) if self.begun => self.band(data)?,
                Line::Data(data) => self.head(data)?,
                Line::Flush => self.ended = self.begun,
            }
            if self.begun && !self.banded {
                return self.take(rest);
            }
        }
        self.buffer = rest.to_vec();
        Ok(())
    }

    /// A line before the pack: where the history is cut, then that nothing is in common.
    fn head(&mut self, data: &[u8]) -> Result<(), Fault> {
        if let Some(error) = data.strip_prefix(b"ERR ") {
            return Err(Fault::Refused(plain(error)));
        }
        self.begun = data.starts_with(b"NAK") || data.starts_with(b"ACK");
        if self.begun || data.starts_with(b"shallow ") || data.starts_with(b"unshallow ") {
            return Ok(());
        }
        Err(Fault::protocol(format!(
            "it says \"{}\" before the pack",
            plain(data)
        )))
    }

    fn band(&mut self, data: &[u8]) -> Result<(), Fault> {
        match data.split_first() {
            Some((1, piece)) => self.take(piece),
            Some((2, _)) => Ok(()),
            Some((3, error)) => Err(Fault::Refused(plain(error))),
            _ => Err(Fault::protocol("a piece of the pack has no band")),
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.pack.len() + piece.len() > MAX_PACK_BYTES {
            return Err(Fault::TooMuch(format!(
                "the repository has more than {MAX_PACK_BYTES} bytes at this commit, compressed; a project has at most {MAX_TOTAL_BYTES}"
            )));
        }
        self.pack.extend_from_slice(piece);
        Ok(())
    }

    /// The pack.
    pub fn finish(self) -> Result<Vec<u8>, Fault> {
        if !self.begun || self.banded && !self.ended {
            return Err(Fault::Away("the server's answer was cut off".into()));
        }
        Ok(self.pack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::advert;

    fn server(capabilities: &str) -> Advertisement {
        let id = "a".repeat(40);
        let mut out = Vec::new();
        pkt::line(&mut out, &format!("{id} HEAD\0{capabilities}\n"));
        pkt::flush(&mut out);
        let mut reading = advert::Reading::default();
        assert!(reading.feed(&out).unwrap());
        reading.finish().unwrap()
    }

    fn band(out: &mut Vec<u8>, number: u8, data: &[u8]) {
        out.extend(format!("{:04x}", data.len() + 5).into_bytes());
        out.push(number);
        out.extend(data);
    }

    /// The answer in pieces of every size.
    fn read(server: &Advertisement, answer: &[u8]) -> Result<Vec<u8>, Fault> {
        let results: Vec<Result<Vec<u8>, Fault>> = [1, 2, 7, answer.len()]
            .into_iter()
            .map(|size| {
                let mut reading = Reading::new(server);
                for piece in answer.chunks(size) {
                    reading.feed(piece)?;
                }
                reading.finish()
            })
            .collect();
        assert!(
            results
                .iter()
                .all(|result| result.is_ok() == results[0].is_ok()),
            "{results:?}"
        );
        results.into_iter().next_back().unwrap()
    }

    #[test]
    fn a_request_asks_for_what_the_server_can() {
        let id = ObjectId::from_hex("b".repeat(40).as_bytes()).unwrap();
        let text =
            |capabilities| String::from_utf8(request(&server(capabilities), id).unwrap()).unwrap();
        assert_eq!(
            text("multi_ack shallow ofs-delta side-band-64k thin-pack"),
            format!("004awant {id} side-band-64k ofs-delta\n000ddeepen 1\n00000009done\n")
        );
        assert!(text("shallow agent=git/2").contains(&format!("{id} agent=sopwith/")));
        assert!(matches!(
            request(&server("ofs-delta"), id),
            Err(Fault::Protocol(_))
        ));
    }

    #[test]
    fn a_pack_is_read_in_pieces_of_any_size() {
        let mut answer = Vec::new();
        pkt::line(&mut answer, &format!("shallow {}\n", "a".repeat(40)));
        pkt::flush(&mut answer);
        pkt::line(&mut answer, "NAK\n");
        let plain = [&answer[..], b"PACK1234"].concat();
        band(&mut answer, 2, b"Counting objects");
        band(&mut answer, 1, b"PACK");
        band(&mut answer, 1, b"1234");
        pkt::flush(&mut answer);
        let banded = server("shallow side-band-64k");
        assert_eq!(read(&banded, &answer).unwrap(), b"PACK1234");
        assert_eq!(read(&server("shallow"), &plain).unwrap(), b"PACK1234");
        let cut = &answer[..answer.len() - 4];
        assert_eq!(
            read(&banded, cut),
            Err(Fault::Away("the server's answer was cut off".into()))
        );
    }

    #[test]
    fn what_the_server_refuses_is_told() {
        let banded = server("shallow side-band-64k");
        let mut answer = Vec::new();
        pkt::line(&mut answer, "ERR upload-pack: not our ref\n");
        assert_eq!(
            read(&banded, &answer),
            Err(Fault::Refused("upload-pack: not our ref".into()))
        );
        let mut answer = Vec::new();
        pkt::line(&mut answer, "NAK\n");
        band(&mut answer, 3, b"out of\nmemory");
        assert_eq!(
            read(&banded, &answer),
            Err(Fault::Refused("out of memory".into()))
        );
        assert!(matches!(read(&banded, b"<html>"), Err(Fault::Protocol(_))));
    }
}
