//! Changing one file: an exact replacement, a new file, a deletion.

use serde_json::Value;

use super::{Changed, Writer, file_text, flag, line_end, text};
use crate::tree::Tree;

/// Replaces a text that is in the file exactly once, or everywhere; makes a file where there is nothing to replace.
pub(super) fn file(
    arguments: &Value,
    tree: &mut Tree,
    writer: Writer<'_>,
) -> Result<Changed, String> {
    let (path, old, new) = (
        text(arguments, "path"),
        text(arguments, "old"),
        text(arguments, "new"),
    );
    if old.is_empty() {
        if tree.get(path).is_some() {
            return Err(format!(
                "the file {path:?} is there already; give the text in `old` that is to be replaced"
            ));
        }
        writer.write(tree, path, new.to_owned())?;
        return Ok(changed(path, "made"));
    }
    let content = file_text(tree, path)?;
    // Models see and write plain line ends.
    let eol = line_end(content);
    let as_there = |text: &str| {
        if text.contains('\r') {
            text.to_owned()
        } else {
            text.replace('\n', eol)
        }
    };
    let (old, new) = (as_there(old), as_there(new));
    let count = content.matches(&old).count();
    let all = flag(arguments, "all");
    match count {
        0 => return Err(format!("`old` is not in {path:?}{}", near(content, &old))),
        1 => {}
        _ if all => {}
        _ => {
            return Err(format!(
                "`old` is in {path:?} {count} times; add lines around it so that it is there once, or set `all`"
            ));
        }
    }
    if old == new {
        return Err("`old` and `new` are the same; nothing would change".to_owned());
    }
    let text = content.replace(&old, &new);
    writer.write(tree, path, text)?;
    let times = if count == 1 { "once" } else { "everywhere" };
    Ok(changed(path, &format!("replaced {times} in")))
}

/// Deletes a file.
pub(super) fn delete(
    arguments: &Value,
    tree: &mut Tree,
    writer: Writer<'_>,
) -> Result<Changed, String> {
    let path = text(arguments, "path");
    if tree.get(path).is_none() {
        return Err(format!("there is no file {path:?}"));
    }
    writer.may(path)?;
    tree.remove(path);
    Ok(changed(path, "deleted"))
}

fn changed(path: &str, what: &str) -> Changed {
    Changed {
        told: format!("{what} {path}"),
        wrote: vec![path.to_owned()],
    }
}

/// Where the first line of a text that was not found stands nevertheless: most misses are of blanks.
fn near(content: &str, old: &str) -> String {
    let squeezed = |line: &str| line.split_whitespace().collect::<String>();
    let Some(wanted) = old.lines().map(squeezed).find(|line| !line.is_empty()) else {
        return String::new();
    };
    let at = content.lines().position(|line| squeezed(line) == wanted);
    at.map_or_else(
        || "; read the file again".to_owned(),
        |index| {
            format!(
                "; line {} is like its first line, but not the same to the last blank: read it again from there",
                index + 1
            )
        },
    )
}
