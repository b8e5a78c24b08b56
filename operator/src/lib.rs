//! The Sopwith operator: controllers, gateway, ledger.

pub mod gateway;
pub mod ledger;
pub mod store;
