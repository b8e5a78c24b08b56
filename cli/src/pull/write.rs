//! Writes what was fetched. Nothing is half there: everything is staged beside the folder first.

use super::layout::File;
use bytes::Bytes;
use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder has content.
    #[error("{0} is not empty; choose another folder with --out, or write into it with --force")]
    NotEmpty(PathBuf),
    /// What should be a folder is something else.
    #[error(
        "{0} is a link or a file where a folder is needed; remove it, or choose another folder with --out"
    )]
    NotAFolder(PathBuf),
    /// The file system refused.
    #[error("{path} cannot be written: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// Checks before anything is fetched whether the folder may be written to.
pub(crate) fn check(out: &Path, force: bool) -> Result<(), Error> {
    match fs::metadata(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(at(out)(source)),
        Ok(found) if !found.is_dir() => Err(Error::NotAFolder(out.to_owned())),
        Ok(_) => {
            let empty = fs::read_dir(out).map_err(at(out))?.next().is_none();
            if empty || force {
                Ok(())
            } else {
                Err(Error::NotEmpty(out.to_owned()))
            }
        }
    }
}

/// A folder beside the one that is written to; removed at the end, whatever the end is.
pub(crate) struct Stage {
    folder: PathBuf,
    out: PathBuf,
}

impl Stage {
    /// An empty folder on the file system of `out`.
    pub(crate) fn new(out: &Path) -> Result<Self, Error> {
        let name = out
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let parent = match out.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(at(parent))?;
        let folder = parent.join(format!(".{name}.pull-{}", std::process::id()));
        fs::create_dir(&folder).map_err(at(&folder))?;
        Ok(Self {
            folder,
            out: out.to_owned(),
        })
    }

    /// Stages one file.
    pub(crate) fn write(&self, file: &File, content: &Bytes) -> Result<(), Error> {
        let path = self.folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(at(&path))?;
        handle.write_all(content).map_err(at(&path))?;
        if file.executable {
            fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Moves everything to its place.
    pub(crate) fn place(self, files: &[File]) -> Result<(), Error> {
        fs::create_dir_all(&self.out).map_err(at(&self.out))?;
        for file in files {
            let to = self.folder_of(&file.path)?;
            fs::rename(self.folder.join(&file.path), &to).map_err(at(&to))?;
        }
        Ok(())
    }

    /// The target, its folders made. A link in the way is not followed: it could lead out.
    fn folder_of(&self, path: &str) -> Result<PathBuf, Error> {
        let mut to = self.out.clone();
        let parts: Vec<Component<'_>> = Path::new(path).components().collect();
        let (_, folders) = parts.split_last().unwrap_or((&Component::CurDir, &[]));
        for part in folders {
            to.push(part);
            match fs::symlink_metadata(&to) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(Error::NotAFolder(to)),
                Err(_) => fs::create_dir(&to).map_err(at(&to))?,
            }
        }
        Ok(self.out.join(path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays behind is a hidden folder of our own; the error that led here matters more.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::Digest;

    fn file(path: &str, executable: bool) -> File {
        File {
            path: path.to_owned(),
            digest: Digest::of(path),
            size: None,
            executable,
        }
    }

    fn pull(out: &Path, files: &[File]) -> Result<(), Error> {
        let stage = Stage::new(out)?;
        for file in files {
            stage.write(file, &Bytes::from(file.path.clone()))?;
        }
        stage.place(files)
    }

    #[test]
    fn files_are_written_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/out");
        pull(
            &out,
            &[file("game/run.sh", true), file("messages.jsonl", false)],
        )
        .unwrap();
        let mode = fs::metadata(out.join("game/run.sh"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111);
        assert_eq!(
            fs::read_to_string(out.join("messages.jsonl")).unwrap(),
            "messages.jsonl"
        );
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_with_content_needs_force_and_keeps_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "mine").unwrap();
        assert!(matches!(
            check(folder.path(), false),
            Err(Error::NotEmpty(_))
        ));
        check(folder.path(), true).unwrap();
        pull(folder.path(), &[file("game/a", false)]).unwrap();
        pull(folder.path(), &[file("game/a", false)]).unwrap();
        assert!(folder.path().join("mine").exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("game")).unwrap();
        let error = pull(folder.path(), &[file("game/a", false)]).unwrap_err();
        assert!(matches!(error, Error::NotAFolder(_)));
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::write(&out, "x").unwrap();
        assert!(matches!(check(&out, true), Err(Error::NotAFolder(_))));
    }
}
