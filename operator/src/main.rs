//! The Sopwith operator: controllers, gateway, ledger.

fn main() {}
