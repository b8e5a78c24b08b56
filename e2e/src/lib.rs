//! Support for the tests against a real cluster: namespaces, fixtures, waits that explain themselves, and peers that
//! a run speaks to.

pub mod api_proxy;
pub mod audit;
pub mod fixture;
pub mod fuzz;
pub mod host;
pub mod kubectl;
pub mod litellm;
pub mod llm_server;
pub mod namespace;
pub mod operator_process;
pub mod people;
pub mod prometheus;
pub mod s3_proxy;
pub mod s3_server;
pub mod sample;
pub mod walls;

/// Namespace of the operator under test.
pub const OPERATOR_NAMESPACE: &str = "sopwith-system";

/// The root of the repository.
pub fn repository() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
