//! The keys of a host, as a file in the form of OpenSSH's `known_hosts` has them.

use std::path::Path;

use russh::keys::{Algorithm, PublicKey, known_hosts::known_host_keys_path};

use super::Fault;

/// The keys of a host that can be checked. An error says what to write into the file.
pub(super) fn keys(file: &Path, host: &str, port: u16) -> Result<Vec<PublicKey>, Fault> {
    let place = if port == 22 {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    };
    let scan = format!(
        "`ssh-keyscan -p {port} -t ed25519,ecdsa {host}` prints its lines; compare them with what the host's owner publishes"
    );
    let wrong = |why: String| {
        Fault::Credential(format!("known_hosts of the policy's Secret {why}; {scan}"))
    };
    let text = std::fs::read_to_string(file).map_err(|_| {
        Fault::Credential(format!(
            "the policy's Secret has no key known_hosts, so the host cannot be checked; {scan}"
        ))
    })?;
    if text.lines().any(|line| line.trim_start().starts_with('@')) {
        return Err(wrong(
            "has a line with a marker (@cert-authority, @revoked), which is not supported".into(),
        ));
    }
    let keys = known_host_keys_path(host, port, file)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if keys.is_empty() {
        return Err(wrong(format!("has no line for {place}")));
    }
    let supported: Vec<PublicKey> = keys
        .into_iter()
        .map(|(_, key)| key)
        .filter(|key| {
            matches!(
                key.algorithm(),
                Algorithm::Ed25519 | Algorithm::Ecdsa { .. }
            )
        })
        .collect();
    if supported.is_empty() {
        return Err(wrong(format!(
            "has keys of {place}, but none of type ed25519 or ecdsa, the supported ones"
        )));
    }
    Ok(supported)
}
