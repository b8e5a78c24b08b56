//! Uploaded projects: people put them into a namespace, the runs there that name them read them.

use super::{
    Gateway, Right, RunRef,
    answer::Failure,
    routes::{bytes, parse, take_body, taken},
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use sopwith_crds::is_object_name;

/// Bytes of all uploads of a namespace after which no more is taken, until some are swept.
pub(super) const MOST_OF_A_NAMESPACE: u64 = 4 << 30;

/// Takes an archive from who may upload into the namespace.
pub(super) async fn put(
    State(gateway): State<Gateway>,
    Path((namespace, digest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    let digest = parse(&digest)?;
    let who = gateway.auth.caller(&headers).await?;
    let right = Right::Upload {
        namespace: &namespace,
    };
    if !is_object_name(&namespace) || !gateway.auth.may(&who, right).await? {
        return Err(Failure::forbidden(
            "Forbidden",
            format!(
                "{} cannot create agentruns/upload in namespace {namespace}: ask for a role that allows it, as sopwith-edit",
                who.user
            ),
        ));
    }
    let there = gateway.store.has_upload(&namespace, &digest).await?;
    if there.is_none() {
        let kept = gateway.store.uploads_of(&namespace).await?;
        let bytes: u64 = kept.iter().map(|upload| upload.size).sum();
        if bytes >= MOST_OF_A_NAMESPACE {
            return Err(Failure::too_many_uploads(&namespace, bytes));
        }
    }
    take_body(gateway.store.upload_writer(&namespace, &digest)?, body).await?;
    Ok(taken(there.is_some()))
}

/// Gives an archive to the runner of the run that names it.
pub(super) async fn get(
    State(gateway): State<Gateway>,
    Path((namespace, name, digest)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let digest = parse(&digest)?;
    let run = RunRef { namespace, name };
    let runner = gateway.runner(&headers, run).await?.current()?;
    if runner.binding.upload.as_deref() != Some(digest.as_str()) {
        return Err(Failure::forbidden(
            "NotOfRun",
            format!(
                "spec.project.source.upload of AgentRun \"{}\" does not name {digest}",
                runner.run.name
            ),
        ));
    }
    let found = gateway.store.stream_upload(&runner.run.namespace, &digest);
    Ok(bytes(
        found
            .await?
            .ok_or_else(|| Failure::upload_not_found(&digest))?,
    ))
}
