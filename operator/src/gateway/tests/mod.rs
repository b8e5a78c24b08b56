//! Claims about the gateway.

mod calls;
mod decisions;
mod identities;
mod listener;
mod projects;
