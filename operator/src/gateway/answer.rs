//! Answers: values as JSON, failures as [`Problem`].

use super::{Refusal, ReviewError, sequence::NotTaken};
use crate::{leader::NotLeader, retention::UPLOAD_DAYS, store::StoreError};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sopwith_crds::contract::{ParseDigestError, report::Problem};
use std::{error::Error, time::Duration};

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    status: StatusCode,
    problem: Problem,
}

impl Failure {
    fn new(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            problem: Problem {
                reason: reason.to_owned(),
                message: message.into(),
            },
        }
    }

    pub(super) fn not_found(reason: &str, message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason, message)
    }

    pub(super) fn blob_not_found(digest: &impl ToString) -> Self {
        let digest = digest.to_string();
        Self::not_found("BlobNotFound", &format!("the run has no blob {digest}"))
    }

    pub(super) fn upload_not_found(digest: &impl ToString) -> Self {
        let message = format!(
            "the namespace has no upload {}: push it again with kubectl sop push",
            digest.to_string()
        );
        Self::not_found("UploadNotFound", &message)
    }

    pub(super) fn too_many_uploads(namespace: &str, bytes: u64) -> Self {
        let message = format!(
            "namespace {namespace} has {} MiB of uploads, which is the most; those of the last {UPLOAD_DAYS} days are kept",
            bytes >> 20
        );
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "TooManyUploads", message)
    }

    pub(super) fn forbidden(reason: &str, message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, message)
    }

    pub(super) fn invalid_digest(error: &ParseDigestError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidDigest", error.to_string())
    }

    pub(super) fn invalid_batch(error: &serde_json::Error) -> Self {
        let message = format!("the body is no batch of reports: {error}");
        Self::new(StatusCode::BAD_REQUEST, "InvalidBatch", message)
    }

    /// A body that could not be read whole: too long, or broken off.
    pub(super) fn body(error: &axum::Error, most: usize) -> Self {
        let too_long = error
            .source()
            .is_some_and(|e| e.to_string().contains("length limit"));
        if too_long {
            return StoreError::TooLarge { most }.into();
        }
        Self::broken_body(error)
    }

    pub(super) fn broken_body(error: &axum::Error) -> Self {
        let message = format!("the body broke off: {error}");
        Self::new(StatusCode::BAD_REQUEST, "BodyBrokeOff", message)
    }

    pub(super) fn timeout(after: Duration) -> Self {
        let message = format!("not done after {} seconds: send it again", after.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    }

    pub(super) fn internal() -> Self {
        let message = "a fault of the gateway; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", message)
    }
}

impl From<NotTaken> for Failure {
    fn from(not_taken: NotTaken) -> Self {
        let status = match not_taken {
            NotTaken::UnsupportedVersion(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        Self {
            status,
            problem: not_taken.problem(),
        }
    }
}

impl From<ReviewError> for Failure {
    fn from(error: ReviewError) -> Self {
        let (status, reason) = match &error {
            ReviewError::NoToken | ReviewError::Rejected => {
                (StatusCode::UNAUTHORIZED, "Unauthenticated")
            }
            ReviewError::Unavailable(why) => {
                tracing::warn!(%why, "the API server could not be asked for a review");
                (StatusCode::SERVICE_UNAVAILABLE, "ReviewUnavailable")
            }
        };
        Self::new(status, reason, error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (status, reason) = match &refusal {
            Refusal::RunNotFound { .. } => (StatusCode::NOT_FOUND, "RunNotFound"),
            Refusal::PodNotFound(_) => (StatusCode::FORBIDDEN, "PodNotFound"),
            Refusal::NotOfRun { .. } => (StatusCode::FORBIDDEN, "NotOfRun"),
            Refusal::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "BindingUnavailable"),
        };
        Self::new(status, reason, refusal.to_string())
    }
}

impl From<NotLeader> for Failure {
    fn from(not: NotLeader) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "NotLeader",
            not.to_string(),
        )
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (status, reason) = match &error {
            StoreError::Digest { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "DigestMismatch"),
            StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
            StoreError::NotLeader(not) => return (*not).into(),
            StoreError::Key(_) => (StatusCode::BAD_REQUEST, "InvalidName"),
            StoreError::Url { .. }
            | StoreError::Endpoint { .. }
            | StoreError::Careless(_)
            | StoreError::Contended(_)
            | StoreError::Damaged { .. }
            | StoreError::Backend(_) => {
                tracing::error!(%error, "the artifact store failed");
                // Where the store keeps its objects is nobody's business out there.
                let message = "the artifact store failed; the gateway's log says more";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self::new(status, "StoreUnavailable", message);
            }
        };
        Self::new(status, reason, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut answer = json(&self.problem);
        *answer.status_mut() = self.status;
        answer
    }
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], bytes).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
