//! What is kept of a stream that may be endless. Pure.

use std::collections::VecDeque;

/// One captured output stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured {
    /// What was kept: all of it, or its beginning and its end with a line between them that says so.
    pub bytes: Vec<u8>,
    /// How many bytes were left out; 0 if the stream is whole.
    pub dropped: u64,
}

impl Captured {
    /// Whether something was left out.
    pub fn truncated(&self) -> bool {
        self.dropped > 0
    }

    /// The stream as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Keeps the first and the last half of `limit` bytes.
#[derive(Debug)]
pub(super) struct Keeper {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Keeper {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            head: Vec::new(),
            tail: VecDeque::new(),
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        let head_limit = self.limit.div_ceil(2);
        let room = head_limit.saturating_sub(self.head.len());
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        bytes = rest;
        let tail_limit = self.limit - head_limit;
        if bytes.len() > tail_limit {
            let skip = bytes.len() - tail_limit;
            self.dropped += skip as u64;
            bytes = &bytes[skip..];
        }
        let excess = (self.tail.len() + bytes.len()).saturating_sub(tail_limit);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
        self.tail.extend(bytes);
    }

    pub(super) fn finish(self) -> Captured {
        let mut bytes = self.head;
        if self.dropped > 0 {
            bytes.extend_from_slice(
                format!("\n[... {} bytes left out ...]\n", self.dropped).as_bytes(),
            );
        }
        bytes.extend(self.tail);
        Captured {
            bytes,
            dropped: self.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_kept_whatever_the_pieces() {
        let table = [
            (4, vec!["ab"], "ab", 0),
            (4, vec!["abcd"], "abcd", 0),
            (4, vec!["abcde"], "ab\n[... 1 bytes left out ...]\nde", 1),
            (
                4,
                vec!["a", "b", "c", "d", "e", "f"],
                "ab\n[... 2 bytes left out ...]\nef",
                2,
            ),
            (
                4,
                vec!["abcdefgh", "i"],
                "ab\n[... 5 bytes left out ...]\nhi",
                5,
            ),
            (
                5,
                vec!["abc", "defgh"],
                "abc\n[... 3 bytes left out ...]\ngh",
                3,
            ),
            (1, vec!["abc"], "a\n[... 2 bytes left out ...]\n", 2),
            (0, vec!["abc"], "\n[... 3 bytes left out ...]\n", 3),
        ];
        for (limit, pieces, expected, dropped) in table {
            let mut keeper = Keeper::new(limit);
            for piece in &pieces {
                keeper.push(piece.as_bytes());
            }
            let captured = keeper.finish();
            assert_eq!(captured.text(), expected, "{limit} {pieces:?}");
            assert_eq!(captured.dropped, dropped, "{limit} {pieces:?}");
        }
    }
}
