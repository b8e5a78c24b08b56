//! The files of a folder that belong to a project: regular ones that git would not ignore.

use super::{ArchiveError, File, Files, MAX_FILE_BYTES};
use ignore::WalkBuilder;
use std::{fs, io, path::Path};

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Folder {
    /// The files of the project.
    pub files: Files,
    /// Links, devices and names that are no text, as far as they were seen: they cannot be part of a project.
    pub left_out: Vec<String>,
}

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder, or something in it, cannot be read.
    #[error("{0}")]
    Walk(#[from] ignore::Error),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is more than a project may have.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Reads a folder as git would add it: `.gitignore` files count, in it and above it, those of the user's git, too; hidden
/// files belong to it, `.git` at any depth does not. Links are not followed.
pub fn read(folder: &Path) -> Result<Folder, FolderError> {
    let mut found = Folder::default();
    let walk = WalkBuilder::new(folder)
        .standard_filters(false)
        .parents(true)
        .git_ignore(true)
        .git_global(true)
        .git_exclude(true)
        .require_git(false)
        .filter_entry(|entry| !entry.file_name().eq_ignore_ascii_case(".git"))
        .build();
    let mut bounds = super::Bounds::default();
    for entry in walk {
        let entry = entry?;
        let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let shown = path.to_string_lossy().into_owned();
        let kind = entry.file_type();
        if kind.is_none_or(|kind| kind.is_dir()) {
            continue;
        }
        let Some(name) = path
            .to_str()
            .filter(|_| kind.is_some_and(|kind| kind.is_file()))
        else {
            found.left_out.push(shown);
            continue;
        };
        let failed = |source| FolderError::File {
            path: shown.clone(),
            source,
        };
        let size = entry.metadata()?.len();
        bounds.add(name, usize::try_from(size).unwrap_or(usize::MAX))?;
        let bytes = fs::read(entry.path()).map_err(failed)?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ArchiveError::TooMuch(shown).into());
        }
        let executable = executable(entry.path()).map_err(failed)?;
        found
            .files
            .insert(name.replace('\\', "/"), File { bytes, executable });
    }
    Ok(found)
}

#[cfg(unix)]
fn executable(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o100 != 0)
}

/// Other systems know no such permission.
#[cfg(not(unix))]
fn executable(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_as_git_would_add_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".gitignore", "*.log\n/build/\n");
        write("src/.gitignore", "secret.txt\n!keep.log\n");
        for path in [
            "a.py",
            "a.log",
            "build/x",
            "src/build/y",
            "src/secret.txt",
            "src/keep.log",
            ".github/ci.yml",
            ".git/config",
            "vendor/lib/.git/config",
            "vendor/lib/z",
            "vendor/.gitmodules",
        ] {
            write(path, "x");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt as _, symlink};
            symlink("/etc/passwd", folder.path().join("link")).unwrap();
            symlink("/etc", folder.path().join("src/folder")).unwrap();
            let run = folder.path().join("a.py");
            fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut found = read(folder.path()).unwrap();
        let paths: Vec<&str> = found.files.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                ".github/ci.yml",
                ".gitignore",
                "a.py",
                "src/.gitignore",
                "src/build/y",
                "src/keep.log",
                "vendor/.gitmodules",
                "vendor/lib/z"
            ]
        );
        #[cfg(unix)]
        {
            found.left_out.sort();
            assert_eq!(found.left_out, ["link", "src/folder"]);
            assert!(found.files["a.py"].executable && !found.files[".gitignore"].executable);
        }
        assert!(read(&folder.path().join("nowhere")).is_err());
    }
}
