//! The lines of Git's protocol: four hexadecimal digits of length, then the content. Pure.

/// Longest content of a line.
pub const MAX_CONTENT: usize = 65_516;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Content.
    Data(&'a [u8]),
    /// The end of a section: `0000`.
    Flush,
}

/// Something that is no line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "what the server sends is not the protocol of Git: it has {0:?} where the length of a line should be"
)]
pub struct NoLine(String);

/// The first line of `bytes` and what is behind it; none where it is not all there yet.
pub fn next(bytes: &[u8]) -> Result<Option<(Line<'_>, &[u8])>, NoLine> {
    let Some(digits) = bytes.get(..4) else {
        return Ok(None);
    };
    let no_line = || NoLine(String::from_utf8_lossy(digits).into_owned());
    let text = std::str::from_utf8(digits).map_err(|_| no_line())?;
    let simple = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let length = usize::from_str_radix(text, 16).map_err(|_| no_line())?;
    match length {
        0 => Ok(Some((Line::Flush, &bytes[4..]))),
        4.. if simple && length <= MAX_CONTENT + 4 => Ok(bytes
            .get(4..length)
            .map(|data| (Line::Data(data), &bytes[length..]))),
        _ => Err(no_line()),
    }
}

/// Adds a line.
pub fn line(out: &mut Vec<u8>, content: &str) {
    out.extend(format!("{:04x}{content}", content.len() + 4).into_bytes());
}

/// Ends a section.
pub fn flush(out: &mut Vec<u8>) {
    out.extend(b"0000");
}

/// Text of the other side, for people: one line, without control characters, not too long.
pub fn plain(bytes: &[u8]) -> String {
    const MOST: usize = 500;
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let text = words.join(" ");
    if text.chars().count() <= MOST {
        return text;
    }
    let cut: String = text.chars().take(MOST).collect();
    format!("{cut} …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let mut out = Vec::new();
        line(&mut out, "want x\n");
        flush(&mut out);
        assert_eq!(out, b"000bwant x\n0000");
        let (first, rest) = next(&out).unwrap().unwrap();
        assert_eq!(first, Line::Data(b"want x\n"));
        assert_eq!(next(rest).unwrap(), Some((Line::Flush, &b""[..])));
        for end in [0, 3, 4, 10] {
            assert_eq!(next(&out[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(
            next(b"0004rest").unwrap(),
            Some((Line::Data(b""), &b"rest"[..]))
        );
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bytes in [
            &b"<htm"[..],
            b"0001",
            b"0003",
            b"+123",
            b"fff1",
            b"\xff\xff\xff\xff",
        ] {
            assert!(next(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_the_server_says_is_one_line_without_control_characters() {
        assert_eq!(
            plain(b"remote: no\r\n\x1b[31m way\n"),
            "remote: no [31m way"
        );
        assert_eq!(plain(&[b'x'; 600]).chars().count(), 502);
    }
}
