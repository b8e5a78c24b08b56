//! The book of calls: what was called, for the trace.

use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;

/// A call, as the trace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it ended.
    pub at: Timestamp,
    /// Who called: the role, or `sopwith`.
    pub sender: String,
    /// `step/action`.
    pub cause: String,
    /// Of the step.
    pub attempt: u32,
    /// `NAME`, or `NAME/FUNCTION`.
    pub tool: String,
    /// Arguments and result, for people.
    pub content: String,
    /// Paths that were written or deleted.
    pub wrote: Vec<String>,
    /// Whether a program in a workbench wrote them.
    pub by_program: bool,
}

/// Calls that are not in the trace yet. A call is in the book before its result is used, so that an attempt which is
/// given up midway leaves its calls behind.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Vec<Record>>);

impl Book {
    pub(crate) fn add(&self, record: Record) {
        self.records().push(record);
    }

    /// What was added since.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
