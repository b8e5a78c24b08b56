//! Functions that expressions have beside CEL's own: what lists of measures are asked.

use cel::{Context, ExecutionError, Value, extractors::This};
use std::cmp::Ordering;

/// Their names.
pub(super) const NAMES: [&str; 2] = ["falls", "last"];

/// Adds them. Each fails only where CEL has one of that name; the tests would show it.
pub(super) fn add(context: &mut Context<'_, '_>) {
    let _ = context.add_function("last", |This(list): This<Value>| last(&list));
    let _ = context.add_function("falls", |This(list): This<Value>| falls(&list));
}

/// `list.last()`: its last item.
fn last(list: &Value) -> Result<Value, ExecutionError> {
    let last = items("last", list)?.last();
    last.cloned().ok_or_else(|| {
        ExecutionError::function_error("last", "the list is empty: nothing was measured yet")
    })
}

/// `list.falls()`: whether its last number is lower than the one before, or 0; a single number has nothing to rise from.
fn falls(list: &Value) -> Result<bool, ExecutionError> {
    let order = |one: &Value, other: &Value| {
        one.partial_cmp(other)
            .ok_or_else(|| ExecutionError::function_error("falls", "the list is not of numbers"))
    };
    match items("falls", list)? {
        [.., before, last] => Ok(order(last, before)? == Ordering::Less
            || order(last, &Value::Int(0))? == Ordering::Equal),
        _ => Ok(true),
    }
}

fn items<'a>(function: &str, list: &'a Value) -> Result<&'a [Value], ExecutionError> {
    match list {
        Value::List(items) => Ok(items),
        other => {
            let problem = format!("is asked of {}, but belongs to lists", other.type_of());
            Err(ExecutionError::function_error(function, problem))
        }
    }
}
