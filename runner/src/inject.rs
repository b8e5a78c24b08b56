//! `inject`: copies the running binary into a volume, from where the containers of other images start it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name under which the binary is found in the directory.
pub const INJECTED_NAME: &str = "runner";

/// Why the binary could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}: {source}; `--to` must name a writable directory with room for the binary", path.display())]
pub struct InjectError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Copies the running binary to `directory/runner` with mode 0555 and returns that path.
///
/// The file appears whole or not at all (temporary file, then rename), so the container may be killed and restarted at
/// any point; a second call replaces the file by the same bytes.
pub fn inject(directory: &Path) -> Result<PathBuf, InjectError> {
    let failed = |step, path: &Path| {
        let path = path.to_path_buf();
        move |source| InjectError { step, path, source }
    };
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let own = Path::new("/proc/self/exe");
    let mut from = File::open(own).map_err(failed("open", own))?;
    let temporary = directory.join(format!(".{INJECTED_NAME}.{}", std::process::id()));
    // A restarted container has the same process id, so what a killed one left is in the way exactly here.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    io::copy(&mut from, &mut to).map_err(failed("write", &temporary))?;
    to.set_permissions(Permissions::from_mode(0o555))
        .map_err(failed("set the mode of", &temporary))?;
    to.sync_all().map_err(failed("sync", &temporary))?;
    drop(to);
    let target = directory.join(INJECTED_NAME);
    fs::rename(&temporary, &target).map_err(failed("rename to", &target))?;
    Ok(target)
}
