//! Unified diffs over several files.
//!
//! The numbers of a hunk's head are a hint only: models count badly. What counts are its lines: they must be in the file
//! as they stand, at one place, or at the place nearest to what the head says. Libraries that parse diffs take the
//! numbers at their word, and one file at a time.

use serde_json::Value;

use super::{Changed, Writer, file_text, line_end, text};
use crate::{action::prompt::unfenced, tree::Tree};

/// Most bytes of a patch.
const MAX_BYTES: usize = 512 << 10;
/// Most files of a patch.
const MAX_FILES: usize = 50;
/// What stands for a file that is not there.
const NOTHING: &str = "/dev/null";
/// Lines of git that a diff can have and that change more than text.
const REFUSED: [&str; 6] = [
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "Binary files ",
    "GIT binary patch",
];

/// What a patch does to a file.
#[derive(Debug, PartialEq, Eq)]
struct FilePatch<'a> {
    /// The file before; none: it is new.
    old: Option<&'a str>,
    /// The file after; none: it is deleted.
    new: Option<&'a str>,
    hunks: Vec<Hunk<'a>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Hunk<'a> {
    /// Where its head says it begins, counted from 1; 0 where it says nothing.
    at: usize,
    /// Lines as they are in the file.
    before: Vec<&'a str>,
    /// Lines as they are to be.
    after: Vec<&'a str>,
    /// Whether the last line before and after is said to have no line end.
    open: (bool, bool),
    /// The sign of the last line.
    last: char,
    /// How many lines at its end are quite empty: they may be the end of the patch only.
    blank: usize,
}

impl Hunk<'_> {
    /// The index at which it begins by its head.
    const fn index(&self) -> usize {
        // Where it takes nothing away, its head has the line before it.
        if self.before.is_empty() {
            self.at
        } else {
            self.at.saturating_sub(1)
        }
    }
}

/// Applies the patch of the arguments.
pub(super) fn apply(
    arguments: &Value,
    tree: &mut Tree,
    writer: Writer<'_>,
) -> Result<Changed, String> {
    let patch = unfenced(text(arguments, "patch"));
    if patch.len() > MAX_BYTES {
        return Err(format!(
            "the patch has {} bytes, the most is {MAX_BYTES}: apply it in parts",
            patch.len()
        ));
    }
    let files = parse(patch)?;
    let mut changed = Changed::default();
    for file in &files {
        let (path, what) = apply_file(file, tree, writer)?;
        changed.told.extend([what, " ", path, "\n"]);
        changed.wrote.push(path.to_owned());
    }
    Ok(changed)
}

fn apply_file<'a>(
    file: &FilePatch<'a>,
    tree: &mut Tree,
    writer: Writer<'_>,
) -> Result<(&'a str, &'static str), String> {
    match (file.old, file.new) {
        (None, Some(path)) => {
            if tree.get(path).is_some() {
                return Err(format!("the patch makes {path:?}, which is there already"));
            }
            let text = patched("", &file.hunks).map_err(|why| format!("{path}: {why}"))?;
            writer.write(tree, path, text)?;
            Ok((path, "made"))
        }
        (Some(path), None) => {
            let content = file_text(tree, path)?;
            let rest = patched(content, &file.hunks).map_err(|why| format!("{path}: {why}"))?;
            if !rest.is_empty() {
                return Err(format!(
                    "the patch deletes {path:?} but leaves lines of it; delete_file deletes it whole"
                ));
            }
            writer.may(path)?;
            tree.remove(path);
            Ok((path, "deleted"))
        }
        (Some(old), Some(path)) if old == path => {
            let content = file_text(tree, path)?;
            let text = patched(content, &file.hunks).map_err(|why| format!("{path}: {why}"))?;
            writer.write(tree, path, text)?;
            Ok((path, "patched"))
        }
        (Some(old), Some(new)) => Err(format!(
            "the patch renames {old:?} to {new:?}; make the new file and delete the old one"
        )),
        (None, None) => Err("a part of the patch names no file".to_owned()),
    }
}

/// The text after the hunks, applied from top to bottom.
fn patched(content: &str, hunks: &[Hunk<'_>]) -> Result<String, String> {
    let eol = line_end(content);
    let closed = content.is_empty() || content.ends_with(eol);
    let mut lines: Vec<&str> = content.split(eol).collect();
    if closed {
        lines.pop();
    }
    let mut end_open = !closed;
    let mut from = 0;
    let mut shift = 0_isize;
    for (index, hunk) in hunks.iter().enumerate() {
        let hint = hunk.index().saturating_add_signed(shift);
        let at = place(&lines, hunk, from, hint)
            .map_err(|why| format!("hunk {} does not fit: {why}", index + 1))?;
        let end = at + hunk.before.len();
        if end == lines.len() && (hunk.open.0 || hunk.open.1) {
            end_open = hunk.open.1;
        }
        lines.splice(at..end, hunk.after.iter().copied());
        from = at + hunk.after.len();
        shift = from.cast_signed() - (hunk.index() + hunk.before.len()).cast_signed();
    }
    let mut text = lines.join(eol);
    if !lines.is_empty() && !end_open {
        text.push_str(eol);
    }
    Ok(text)
}

/// Where a hunk's lines stand, not before `from`: the place nearest to the hint. Or why there is none.
fn place(lines: &[&str], hunk: &Hunk<'_>, from: usize, hint: usize) -> Result<usize, String> {
    if hunk.before.is_empty() {
        let there = lines.is_empty() || hunk.at > 0;
        return (there && hint >= from && hint <= lines.len())
            .then_some(hint)
            .ok_or_else(|| "it has no line of the file around what it adds".to_owned());
    }
    let last = lines.len().checked_sub(hunk.before.len());
    let mut places: Vec<usize> = last
        .into_iter()
        .flat_map(|last| from..=last)
        .filter(|at| lines[*at..*at + hunk.before.len()] == hunk.before)
        .collect();
    if hunk.at == 0 && places.len() > 1 {
        return Err(format!(
            "its lines are in the file {} times; give it more lines, or the number of its first line",
            places.len()
        ));
    }
    places.sort_by_key(|at| at.abs_diff(hint));
    places.first().copied().ok_or_else(|| {
        let first = hunk.before.iter().find(|line| !line.trim().is_empty());
        format!(
            "its lines are not in the file as they stand, from `{}` on; read the file again",
            first.unwrap_or(&"").trim()
        )
    })
}

fn parse(patch: &str) -> Result<Vec<FilePatch<'_>>, String> {
    let mut files: Vec<FilePatch<'_>> = Vec::new();
    let mut lines = patch.lines().peekable();
    let mut in_hunk = false;
    while let Some(line) = lines.next() {
        // A removed line can begin with two dashes: a head has a second line.
        let head = line
            .strip_prefix("--- ")
            .filter(|_| lines.peek().is_some_and(|next| next.starts_with("+++ ")));
        if let Some(old) = head {
            let new = lines.next().and_then(|next| next.strip_prefix("+++ "));
            files.push(FilePatch {
                old: named(old, "a/"),
                new: named(new.unwrap_or_default(), "b/"),
                hunks: Vec::new(),
            });
            in_hunk = false;
        } else if let Some(head) = line.strip_prefix("@@") {
            let file = files
                .last_mut()
                .ok_or("the patch has a hunk before it names a file with `--- ` and `+++ `")?;
            file.hunks.push(Hunk {
                at: first_number(head),
                ..Hunk::default()
            });
            in_hunk = true;
        } else if line.starts_with("diff --git ") {
            in_hunk = false;
        } else if let Some(hunk) = files
            .last_mut()
            .and_then(|file| file.hunks.last_mut())
            .filter(|_| in_hunk)
        {
            take(hunk, line)?;
        } else if REFUSED.iter().any(|start| line.starts_with(start)) {
            return Err(format!(
                "the patch has `{line}`; only changes of text are taken"
            ));
        }
    }
    for hunk in files.iter_mut().flat_map(|file| &mut file.hunks) {
        ended(hunk);
    }
    if files.is_empty() {
        return Err(
            "the patch names no file; it must be a unified diff with `--- ` and `+++ ` lines"
                .into(),
        );
    }
    if files.len() > MAX_FILES {
        return Err(format!(
            "the patch is over {} files, the most is {MAX_FILES}: apply it in parts",
            files.len()
        ));
    }
    match files
        .iter()
        .find(|file| file.hunks.is_empty() && file.new.is_some())
    {
        Some(file) => Err(format!(
            "the patch has no hunk for {:?}",
            file.new.unwrap_or_default()
        )),
        None => Ok(files),
    }
}

/// Takes a line into a hunk.
fn take<'a>(hunk: &mut Hunk<'a>, line: &'a str) -> Result<(), String> {
    let (sign, text) = match line.chars().next() {
        // Editors take the blank off an empty line.
        None => (' ', ""),
        Some(sign) => (sign, &line[sign.len_utf8()..]),
    };
    match sign {
        '-' => hunk.before.push(text),
        '+' => hunk.after.push(text),
        ' ' => {
            hunk.before.push(text);
            hunk.after.push(text);
        }
        '\\' => {
            hunk.open.0 |= hunk.last != '+';
            hunk.open.1 |= hunk.last != '-';
            return Ok(());
        }
        _ => {
            return Err(format!(
                "the line `{line}` of a hunk begins with none of blank, + and -"
            ));
        }
    }
    hunk.last = sign;
    hunk.blank = if line.is_empty() { hunk.blank + 1 } else { 0 };
    Ok(())
}

/// Takes off the empty lines that only end the patch.
fn ended(hunk: &mut Hunk<'_>) {
    hunk.before.truncate(hunk.before.len() - hunk.blank);
    hunk.after.truncate(hunk.after.len() - hunk.blank);
}

/// A path of a head; none for what is not there.
fn named<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    // What stands behind a tab is a time.
    let path = text.split('\t').next().unwrap_or_default().trim_end();
    (path != NOTHING).then(|| path.strip_prefix(prefix).unwrap_or(path))
}

/// The line at which a hunk begins, as its head ` -12,3 +12,4 @@` says; 0 where it says nothing.
fn first_number(head: &str) -> usize {
    let digits = head.trim_start().trim_start_matches('-');
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}
