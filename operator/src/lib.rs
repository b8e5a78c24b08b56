//! The Sopwith operator: controllers, gateway, ledger.

pub mod admission;
pub mod caches;
pub mod config;
mod forget;
pub mod gateway;
pub mod health;
pub mod kinds;
pub mod leader;
pub mod ledger;
pub mod metrics;
pub mod operator;
pub mod outcome;
pub mod policy;
mod retention;
pub mod run;
pub mod sop;
pub mod store;
mod triggers;
mod work;
pub mod write;
