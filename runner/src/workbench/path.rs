//! Which paths may cross between the runner and a workbench. Pure; both ends ask, as neither trusts the other's files.

/// Longest path in bytes; git and most tools stop at `PATH_MAX`, the rest is room for the work directory.
const MAX_PATH_BYTES: usize = 1024;
/// Longest name of one component in bytes (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// Most components of a path; bounds recursion and open descriptors.
pub(super) const MAX_DEPTH: usize = 64;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// The path or one of its components is empty.
    #[error("has an empty component; write a/b, without a leading, trailing or doubled slash")]
    Empty,
    /// The path begins with a slash.
    #[error("is absolute; paths are relative to the work tree")]
    Absolute,
    /// A component is `.` or `..`.
    #[error("has a `.` or `..` component; name the file directly below the work tree")]
    Dots,
    /// A component is git's own directory, in a spelling that some file system takes for it.
    #[error("leads into a git directory; repositories do not cross")]
    Git,
    /// A control character.
    #[error("contains a control character")]
    Control,
    /// Too long or too deep.
    #[error("is too long (1024 bytes, 255 per component and 64 components are the most)")]
    TooLong,
}

/// Checks a path relative to the work tree, components separated by `/`.
pub fn check_path(path: &str) -> Result<(), PathFault> {
    if path.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    if path.len() > MAX_PATH_BYTES || path.split('/').count() > MAX_DEPTH {
        return Err(PathFault::TooLong);
    }
    path.split('/').try_for_each(check_name)
}

/// Checks one component of a path.
pub(super) fn check_name(name: &str) -> Result<(), PathFault> {
    // `git~1` is what a FAT or NTFS volume calls `.git`.
    if name.eq_ignore_ascii_case(".git") || name.eq_ignore_ascii_case("git~1") {
        Err(PathFault::Git)
    } else if name.is_empty() {
        Err(PathFault::Empty)
    } else if name == "." || name == ".." {
        Err(PathFault::Dots)
    } else if name.chars().any(char::is_control) {
        Err(PathFault::Control)
    } else if name.len() > MAX_NAME_BYTES {
        Err(PathFault::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_tree_or_hide_something_are_refused() {
        let long = "x".repeat(256);
        let deep = "a/".repeat(64) + "a";
        let table = [
            ("a", Ok(())),
            ("a/b.py", Ok(())),
            (".gitignore", Ok(())),
            ("dir with space/ünï", Ok(())),
            ("", Err(PathFault::Empty)),
            ("a//b", Err(PathFault::Empty)),
            ("a/", Err(PathFault::Empty)),
            ("/etc/passwd", Err(PathFault::Absolute)),
            ("..", Err(PathFault::Dots)),
            ("a/../b", Err(PathFault::Dots)),
            ("./a", Err(PathFault::Dots)),
            (".git/config", Err(PathFault::Git)),
            ("sub/.GIT/hooks/x", Err(PathFault::Git)),
            ("git~1/config", Err(PathFault::Git)),
            ("a\nb", Err(PathFault::Control)),
            ("a\0b", Err(PathFault::Control)),
            (long.as_str(), Err(PathFault::TooLong)),
            (deep.as_str(), Err(PathFault::TooLong)),
        ];
        for (path, expected) in table {
            assert_eq!(check_path(path), expected, "{path:?}");
        }
    }
}
