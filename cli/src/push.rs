//! `kubectl sop push`: uploads a folder as the project that a run begins with.

use crate::{
    args::PushArgs,
    cluster::Cluster,
    gateway::{self, Address, Gateway},
    text,
};
use anyhow::Context as _;
use sopwith_crds::{
    archive::{
        self,
        folder::{self, Folder},
    },
    contract::{Digest, report::MAX_BLOB_BYTES},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

const MAY_NOT_UPLOAD: &str =
    "ask for \"create\" on agentruns/upload in the namespace (ClusterRole sopwith-uploader)";
/// How many names of what is left out are shown.
const MOST_SHOWN: usize = 5;

/// Why a folder cannot be uploaded.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} has no file that git would not ignore")]
    Empty(String),
    #[error(
        "{folder} has {size} bytes compressed, {MAX_BLOB_BYTES} are the most; ignore what is not needed in a .gitignore file, or let \
         the run read it from git"
    )]
    TooLarge { folder: String, size: usize },
}

/// Packs, uploads, shows the digest.
pub(crate) async fn run(cluster: &Cluster, args: &PushArgs) -> anyhow::Result<()> {
    let found =
        folder::read(&args.folder).with_context(|| format!("read {}", args.folder.display()))?;
    let packed = packed(&args.folder, &found)?;
    let digest = Digest::of(&packed);
    let address = Address {
        namespace: &args.gateway.operator_namespace,
        service: &args.gateway.gateway_service,
        account: &args.uploader,
        authority: None,
    };
    let to = gateway::uploads(&cluster.namespace);
    let mut gateway = Gateway::find(cluster, &address, to, MAY_NOT_UPLOAD).await?;
    let size = packed.len();
    gateway
        .put(&digest, packed.into())
        .await
        .context("upload the folder")?;
    eprint!("{}", told(&found, size, &cluster.namespace));
    // Scripts read the digest, and nothing else.
    writeln!(io::stdout(), "{digest}")?;
    Ok(())
}

/// The archive of a folder. Deciding.
fn packed(path: &Path, found: &Folder) -> anyhow::Result<Vec<u8>> {
    let folder = path.display().to_string();
    if found.files.is_empty() {
        return Err(Error::Empty(folder).into());
    }
    let packed = archive::pack(&found.files)?;
    if packed.len() > MAX_BLOB_BYTES {
        let size = packed.len();
        return Err(Error::TooLarge { folder, size }.into());
    }
    Ok(packed)
}

/// What there is to say about an upload. Deciding.
fn told(found: &Folder, size: usize, namespace: &str) -> String {
    let mut said = format!(
        "uploaded {} ({}) into namespace {namespace}; write the digest into spec.project.source.upload of an AgentRun there\n",
        text::count(found.files.len(), "file"),
        text::bytes(size as u64)
    );
    if !found.left_out.is_empty() {
        let shown: Vec<&str> = found
            .left_out
            .iter()
            .take(MOST_SHOWN)
            .map(String::as_str)
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            said,
            "left out, as only regular files with names in UTF-8 can be part of a project: {} in all, as {}",
            found.left_out.len(),
            shown.join(", ")
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::archive::{File, Files};

    fn folder(files: &[&str]) -> Folder {
        let file = |path: &&str| {
            let bytes = path.as_bytes().to_vec();
            (
                (*path).to_owned(),
                File {
                    bytes,
                    executable: false,
                },
            )
        };
        Folder {
            files: files.iter().map(file).collect::<Files>(),
            left_out: vec!["link".into()],
        }
    }

    #[test]
    fn what_is_uploaded_and_what_is_left_out_is_told() {
        let said = told(&folder(&["a", "b"]), 3000, "demo");
        assert!(
            said.starts_with("uploaded 2 files (2.9 KiB) into namespace demo"),
            "{said}"
        );
        assert!(said.contains("1 in all, as link"), "{said}");
    }

    #[test]
    fn an_empty_folder_is_not_uploaded() {
        let error = packed(Path::new("x"), &folder(&[])).unwrap_err();
        assert_eq!(error.to_string(), "x has no file that git would not ignore");
        assert!(packed(Path::new("x"), &folder(&["a"])).is_ok());
    }
}
