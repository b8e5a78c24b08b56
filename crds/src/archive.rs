//! A project as one file: a gzipped tar of its regular files in the order of their paths, without owners and times, so that
//! the same files always make the same archive.
//!
//! What is read may come from anybody: nothing but regular files is taken, within the bounds of a project.

pub mod folder;

use flate2::{Compression, GzBuilder, read::GzDecoder};
use std::{
    collections::BTreeMap,
    io::{self, Read},
};
use tar::{Archive, Builder, EntryType, Header};

/// Most files of a project.
pub const MAX_FILES: usize = 20_000;
/// Most bytes of one file of a project.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Most bytes of all files of a project together.
pub const MAX_TOTAL_BYTES: usize = 128 << 20;
/// Most bytes of an archive once it is decompressed: its files, and for each what names it.
const MAX_PLAIN_BYTES: u64 = (MAX_TOTAL_BYTES + MAX_FILES * 4096) as u64;

/// A file of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Files of a project by path; relative, `/` between the parts.
pub type Files = BTreeMap<String, File>;

/// Why an archive cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No archive, or cut off.
    #[error("it is no gzipped tar archive: {0}")]
    Format(#[from] io::Error),
    /// Something else than a file or a folder.
    #[error("{0:?} is no regular file: links and devices cannot be part of a project")]
    NotRegular(String),
    /// A name that is no text.
    #[error("the name of an entry is not UTF-8: {0:?}")]
    Name(String),
    /// A file that is there twice.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// Too much.
    #[error(
        "{0:?} is too much: a project has at most {MAX_FILES} files, {MAX_FILE_BYTES} bytes in each and {MAX_TOTAL_BYTES} bytes in all"
    )]
    TooMuch(String),
}

/// Packs files.
pub fn pack(files: &Files) -> Result<Vec<u8>, ArchiveError> {
    let mut bounds = Bounds::default();
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    let mut archive = Builder::new(gzip);
    for (path, file) in files {
        bounds.add(path, file.bytes.len())?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.bytes.len() as u64);
        header.set_mode(if file.executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        archive.append_data(&mut header, path, file.bytes.as_slice())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Unpacks files. Their paths are as they were packed; who takes them into a tree checks them.
pub fn unpack(bytes: &[u8]) -> Result<Files, ArchiveError> {
    let mut bounds = Bounds::default();
    let plain = GzDecoder::new(bytes).take(MAX_PLAIN_BYTES);
    let mut archive = Archive::new(plain);
    let mut files = Files::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|error| {
            ArchiveError::Name(String::from_utf8_lossy(error.as_bytes()).into_owned())
        })?;
        // As `tar c .` writes them.
        let path = name.strip_prefix("./").unwrap_or(&name).to_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            _ => return Err(ArchiveError::NotRegular(path)),
        }
        let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
        bounds.add(&path, size)?;
        let mut bytes = Vec::with_capacity(size);
        entry.read_to_end(&mut bytes)?;
        if bytes.len() != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let executable = entry.header().mode().unwrap_or(0) & 0o100 != 0;
        if files
            .insert(path.clone(), File { bytes, executable })
            .is_some()
        {
            return Err(ArchiveError::Twice(path));
        }
    }
    Ok(files)
}

/// What a project may have.
#[derive(Default)]
struct Bounds {
    files: usize,
    bytes: usize,
}

impl Bounds {
    fn add(&mut self, path: &str, size: usize) -> Result<(), ArchiveError> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.files > MAX_FILES || size > MAX_FILE_BYTES || self.bytes > MAX_TOTAL_BYTES {
            return Err(ArchiveError::TooMuch(path.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Digest;
    use rstest::rstest;
    use std::io::Write as _;

    fn files(named: &[(&str, &str)]) -> Files {
        let file = |text: &str| File {
            bytes: text.as_bytes().to_vec(),
            executable: text.starts_with("#!"),
        };
        named
            .iter()
            .map(|(path, text)| ((*path).to_owned(), file(text)))
            .collect()
    }

    fn zipped(tar: &[u8]) -> Vec<u8> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(tar).unwrap();
        gzip.finish().unwrap()
    }

    /// An archive with one entry as somebody else may write it.
    fn foreign(kind: EntryType, name: &[u8], size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        if kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(tar.len() + 2048, 0);
        zipped(&tar)
    }

    #[test]
    fn the_same_files_make_the_same_archive_and_come_out_of_it_again() {
        let long = format!("{}/x.py", "deep/".repeat(40));
        let files = files(&[
            ("b.sh", "#!/bin/sh\n"),
            ("a/ünï.txt", ""),
            (&long, "x = 1\n"),
        ]);
        let packed = pack(&files).unwrap();
        assert_eq!(Digest::of(&packed), Digest::of(pack(&files).unwrap()));
        assert_eq!(unpack(&packed).unwrap(), files);
        assert_eq!(unpack(&pack(&Files::new()).unwrap()).unwrap(), Files::new());
    }

    #[rstest]
    #[case::a_link(foreign(EntryType::Symlink, b"a", 0), "\"a\" is no regular file")]
    #[case::a_hard_link(foreign(EntryType::Link, b"a", 0), "is no regular file")]
    #[case::a_device(foreign(EntryType::Char, b"a", 0), "is no regular file")]
    #[case::a_sparse_file(foreign(EntryType::GNUSparse, b"a", 0), "")]
    #[case::too_large(foreign(EntryType::Regular, b"a", 1 << 40), "\"a\" is too much")]
    #[case::cut_off(foreign(EntryType::Regular, b"a", 9000), "no gzipped tar archive")]
    #[case::no_text(foreign(EntryType::Regular, b"\xff", 0), "not UTF-8")]
    #[case::nothing(Vec::new(), "no gzipped tar archive")]
    #[case::no_gzip(b"hello".to_vec(), "no gzipped tar archive")]
    fn what_is_no_archive_of_a_project_is_refused(#[case] bytes: Vec<u8>, #[case] why: &str) {
        let error = unpack(&bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn folders_are_passed_over_and_a_leading_dot_is_not_part_of_a_path() {
        assert_eq!(
            unpack(&foreign(EntryType::Directory, b"./a/", 0)).unwrap(),
            Files::new()
        );
        let one = unpack(&foreign(EntryType::Regular, b"./a/b", 0)).unwrap();
        assert_eq!(one.keys().collect::<Vec<_>>(), ["a/b"]);
    }

    #[test]
    fn an_archive_that_grows_without_end_is_left_before_it_fills_the_memory() {
        // 200 MiB of nothing, in entries that each are allowed.
        let mut tar = Vec::new();
        let mut header = Header::new_gnu();
        header.set_size(10 << 20);
        for name in 0..20 {
            header.set_path(name.to_string()).unwrap();
            header.set_cksum();
            tar.extend(header.as_bytes());
            tar.resize(tar.len() + (10 << 20), 0);
        }
        let bomb = zipped(&tar);
        assert!(bomb.len() < 2 << 20);
        assert!(matches!(unpack(&bomb), Err(ArchiveError::TooMuch(_))));
    }
}
