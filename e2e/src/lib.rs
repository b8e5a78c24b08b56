//! Support for the tests against a real cluster.
