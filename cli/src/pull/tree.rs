//! A listing of files as a tree. Deciding.

use crate::text;
use std::{collections::BTreeMap, fmt::Write as _};

#[derive(Default)]
struct Node {
    folders: BTreeMap<String, Node>,
    files: BTreeMap<String, u64>,
}

/// The files, by path and size, as a tree; folders before files, each with its size.
pub(crate) fn tree<'a>(files: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut root = Node::default();
    for (path, size) in files {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut node = &mut root;
        for folder in folders.split('/').filter(|f| !f.is_empty()) {
            node = node.folders.entry(folder.to_owned()).or_default();
        }
        node.files.insert(name.to_owned(), size);
    }
    let mut text = String::new();
    draw(&root, "", &mut text);
    text
}

fn draw(node: &Node, indent: &str, text: &mut String) {
    let many = node.folders.len() + node.files.len();
    let branch = |i: usize| {
        if i + 1 == many {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        }
    };
    for (i, (name, folder)) in node.folders.iter().enumerate() {
        let (mark, below) = branch(i);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{indent}{mark}{name}/");
        draw(folder, &format!("{indent}{below}"), text);
    }
    for (i, (name, size)) in node.files.iter().enumerate() {
        let (mark, _) = branch(node.folders.len() + i);
        let _ = writeln!(text, "{indent}{mark}{name} ({})", text::bytes(*size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_files() {
        assert_eq!(
            tree([("a.txt", 3), ("game/cli.py", 2048), ("game/docs/prd.md", 1)]),
            "├── game/\n│   ├── docs/\n│   │   └── prd.md (1 B)\n│   └── cli.py (2.0 KiB)\n└── a.txt (3 B)\n"
        );
    }
}
