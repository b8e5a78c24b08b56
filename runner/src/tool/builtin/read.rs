//! Looking: a file, the list of files, a search.

use std::fmt::Write as _;

use regex::RegexBuilder;
use serde_json::Value;

use super::{file_text, flag, number, text};
use crate::tree::{Tree, matcher};

/// Most files that a list names.
const MAX_LISTED: usize = 1000;
/// Most lines that match and are shown.
const MAX_MATCHES: usize = 200;
/// Most characters of a line that a search shows.
const MAX_LINE: usize = 300;
/// Most bytes of files that one search looks at.
const MAX_SEARCHED: usize = 64 << 20;
/// Most bytes of a compiled pattern.
const MAX_PATTERN: usize = 1 << 20;

/// Lines of a file, whole lines only, as many as fit.
pub(super) fn file(arguments: &Value, tree: &Tree, most: usize) -> Result<String, String> {
    let path = text(arguments, "path");
    let content = file_text(tree, path)?;
    let lines: Vec<&str> = content.split_inclusive('\n').collect();
    let from = number(arguments, "from").unwrap_or(1).max(1);
    if from > lines.len() && from > 1 {
        return Err(format!(
            "{path:?} has {} lines, and line {from} is not there",
            lines.len()
        ));
    }
    let wanted = number(arguments, "lines").unwrap_or(usize::MAX);
    let mut shown = String::new();
    let mut count = 0;
    for line in lines.iter().skip(from - 1).take(wanted) {
        if count > 0 && shown.len() + line.len() > most {
            break;
        }
        // A line that is longer than all that may be shown is cut.
        shown.push_str(cut(line, most));
        count += 1;
    }
    let last = from - 1 + count;
    let whole = from == 1 && last == lines.len();
    let more = if !whole && last < lines.len() && count < wanted {
        format!("; the rest does not fit, read on from line {}", last + 1)
    } else {
        String::new()
    };
    let head = match (content.is_empty(), whole) {
        (true, _) => format!("{path}: empty"),
        (false, true) => format!("{path}: all {} lines", lines.len()),
        (false, false) => format!("{path}: lines {from} to {last} of {}{more}", lines.len()),
    };
    Ok(format!("{head}\n{shown}"))
}

/// Paths and sizes.
pub(super) fn list(arguments: &Value, tree: &Tree, most: usize) -> Result<String, String> {
    let paths = paths(arguments, tree)?;
    let mut shown = String::new();
    let mut count = 0;
    for path in paths.iter().take(MAX_LISTED) {
        let size = tree.get(path).map_or(0, |file| file.bytes.len());
        let line = format!("{path} {size}\n");
        if shown.len() + line.len() > most {
            break;
        }
        shown.push_str(&line);
        count += 1;
    }
    let more = match paths.len() - count {
        0 => String::new(),
        more => {
            format!("; the first {count} are shown, {more} more are not: ask with a narrower glob")
        }
    };
    Ok(format!("{} files{more}\n{shown}", paths.len()))
}

/// Lines that match, with lines around them where that is asked for.
pub(super) fn search(arguments: &Value, tree: &Tree, most: usize) -> Result<String, String> {
    let pattern = text(arguments, "pattern");
    let pattern = RegexBuilder::new(pattern)
        .case_insensitive(flag(arguments, "ignore_case"))
        .size_limit(MAX_PATTERN)
        .build()
        .map_err(|error| format!("the pattern is no regular expression: {error}"))?;
    let context = number(arguments, "context").unwrap_or(0);
    let (mut shown, mut found, mut files, mut searched) = (String::new(), 0, 0, 0);
    let mut ended = "";
    'files: for path in paths(arguments, tree)? {
        let Ok(content) = file_text(tree, &path) else {
            continue;
        };
        searched += content.len();
        if searched > MAX_SEARCHED {
            ended = "; not all files were searched: ask with a narrower glob";
            break;
        }
        let lines: Vec<&str> = content.lines().collect();
        let mut next = 0;
        let before = found;
        for (index, line) in lines.iter().enumerate() {
            if !pattern.is_match(line) {
                continue;
            }
            if found == MAX_MATCHES || shown.len() > most {
                ended = "; there are more: ask with a narrower pattern or glob";
                break 'files;
            }
            found += 1;
            let first = index.saturating_sub(context).max(next);
            if context > 0 && next > 0 && first > next {
                shown.push_str("--\n");
            }
            next = (index + context + 1).min(lines.len());
            for (number, line) in lines.iter().enumerate().take(next).skip(first) {
                let mark = if pattern.is_match(line) { ':' } else { '-' };
                let cut: String = line.chars().take(MAX_LINE).collect();
                let more = if cut.len() < line.len() { " …" } else { "" };
                // Writing to a String cannot fail.
                let _ = writeln!(shown, "{path}{mark}{}{mark} {cut}{more}", number + 1);
            }
        }
        files += usize::from(found > before);
    }
    Ok(format!("{found} lines in {files} files{ended}\n{shown}"))
}

/// The paths that the argument `glob` matches.
fn paths(arguments: &Value, tree: &Tree) -> Result<Vec<String>, String> {
    let glob = match text(arguments, "glob") {
        "" => "**",
        glob => glob,
    };
    let matcher = matcher(glob).map_err(|error| error.to_string())?;
    let paths = tree.iter().map(|(path, _)| path);
    Ok(paths
        .filter(|path| matcher.is_match(path))
        .map(str::to_owned)
        .collect())
}

/// The beginning of a text, cut between two characters.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
