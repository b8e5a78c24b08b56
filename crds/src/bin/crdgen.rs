//! Writes the `CustomResourceDefinition`s into a folder: `crdgen charts/sopwith/crds`.

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crdgen FOLDER");
        return ExitCode::FAILURE;
    };
    for (file, definition) in sopwith_crds::manifest::definitions() {
        let path = folder.join(file);
        let written = sopwith_crds::manifest::yaml(&definition)
            .map_err(|error| error.to_string())
            .and_then(|text| fs::write(&path, text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            eprintln!("crdgen: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
