//! CEL expressions, with the bounds that the interpreter itself does not have.

use super::{functions, references::references};
use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::value::{CowVal, Val},
    context::VariableResolver,
    extensions,
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 4096;
/// The longest list or map that an expression may see, in entries.
const MAX_ENTRIES: usize = 10_000;
/// How deep comprehensions (`map`, `filter`, `all`, `exists`) may nest: bounds the work of one expression.
const MAX_NESTING: usize = 3;
/// How long an evaluation may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How deep operators and calls may nest: the interpreter recurses.
const MAX_DEPTH: usize = 250;
/// The parser recurses, too, as deep as the longest text can make it, in a debug build with large frames.
/// Only what is touched costs memory.
const STACK_BYTES: usize = 256 << 20;
/// Evaluations that ran over their deadline and have not ended by themselves yet.
const MAX_RUNAWAYS: usize = 8;

/// Expressions that are kept compiled: a procedure has a few, which are judged again and again.
const MAX_COMPILED: usize = 1024;

static RUNAWAYS: AtomicUsize = AtomicUsize::new(0);
static COMPILED: LazyLock<Mutex<HashMap<String, Expression>>> = LazyLock::new(Mutex::default);
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    // Each fails only where a name is declared twice; the tests would show it.
    let _ = env.add_extension(extensions::strings);
    let _ = env.add_extension(extensions::lists);
    Arc::new(env)
});

/// Why an expression cannot be compiled or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is not CEL. Line and column count from 1.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake, from 1.
        column: usize,
        /// What was expected.
        message: String,
    },
    /// It is longer than [`MAX_EXPRESSION_BYTES`].
    #[error("has {0} bytes, the most is {MAX_EXPRESSION_BYTES}: split it into several gates")]
    TooLong(usize),
    /// Its comprehensions nest too deep.
    #[error("nests map, filter, all or exists {0} deep, the most is {MAX_NESTING}")]
    TooDeep(usize),
    /// Its operators and calls nest too deep.
    #[error("chains or nests {0} operators, the most is {MAX_DEPTH}: split it into several gates")]
    TooLongChain(usize),
    /// It calls a function that does not exist.
    #[error("calls the unknown function {0}")]
    UnknownFunction(String),
    /// A value it would see is too large; names the value.
    #[error("{name} has {entries} entries, the most that an expression may see is {MAX_ENTRIES}")]
    TooLarge {
        /// Path of the value.
        name: String,
        /// Its number of entries.
        entries: usize,
    },
    /// It names a value that does not exist.
    #[error("there is no value named {0}")]
    Unknown(String),
    /// It failed while it was evaluated.
    #[error("{0}")]
    Failed(String),
    /// A condition gave something other than true or false; names its type.
    #[error("must give true or false, but gives {0}")]
    NotBool(&'static str),
    /// It took too long.
    #[error("took longer than {} seconds", DEADLINE.as_secs())]
    Deadline,
    /// No thread could be had for it.
    #[error("cannot be evaluated now: {0}")]
    Busy(String),
}

/// A CEL expression that compiles.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
    references: Vec<Vec<String>>,
}

impl Expression {
    /// Compiles `text`; the error names line and column.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(ExpressionError::TooLong(text.len()));
        }
        if let Some(known) = compiled().get(text) {
            return Ok(known.clone());
        }
        let expression = Self::compile_anew(text)?;
        let mut compiled = compiled();
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        compiled.insert(text.to_owned(), expression.clone());
        Ok(expression)
    }

    fn compile_anew(text: &str) -> Result<Self, ExpressionError> {
        let source = text.to_owned();
        // Parser and walk recurse, too: give them the same bounds as the evaluation.
        let (program, found) = bounded(&AtomicBool::new(false), move || {
            let program = ENV
                .compile(&source)
                .map_err(|errors| syntax_error(&errors))?;
            let found = references(program.expression());
            Ok((program, found))
        })??;
        if found.depth > MAX_DEPTH {
            return Err(ExpressionError::TooLongChain(found.depth));
        }
        if found.nesting > MAX_NESTING {
            return Err(ExpressionError::TooDeep(found.nesting));
        }
        if let Some(name) = found.functions.iter().find(|name| !is_function(name)) {
            return Err(ExpressionError::UnknownFunction(name.clone()));
        }
        Ok(Self {
            source: text.to_owned(),
            program: Arc::new(program),
            references: found.paths,
        })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names of the values it refers to, sorted, each once: `artifacts` for `artifacts.prd.json`.
    pub fn variables(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .references
            .iter()
            .filter_map(|path| path.first().cloned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The values it refers to as far as their path is written out: `["artifacts", "prd", "json"]`.
    pub fn references(&self) -> &[Vec<String>] {
        &self.references
    }

    /// Evaluates it. `context` is an object whose members are the values by name.
    pub fn evaluate(&self, context: &Json) -> Result<Json, ExpressionError> {
        let mut values = BTreeMap::new();
        for name in self.variables() {
            if let Some(value) = context.get(&name) {
                let value: Box<dyn Val> = to_cel(value, &name)?
                    .try_into()
                    .map_err(|_| ExpressionError::Unknown(name.clone()))?;
                values.insert(name, value);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let roots = Roots {
            values,
            ended: Arc::clone(&ended),
        };
        let program = Arc::clone(&self.program);
        bounded(&ended, move || {
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.set_variable_resolver(&roots);
            functions::add(&mut context);
            let value = program
                .execute(&context)
                .map_err(|error| readable(&error))?;
            value.json().map_err(|_| {
                ExpressionError::Failed(String::from("gives a value that is not data"))
            })
        })?
    }

    /// Evaluates a condition.
    pub fn holds(&self, context: &Json) -> Result<bool, ExpressionError> {
        match self.evaluate(context)? {
            Json::Bool(holds) => Ok(holds),
            other => Err(ExpressionError::NotBool(type_name(&other))),
        }
    }
}

/// What is compiled already.
fn compiled() -> MutexGuard<'static, HashMap<String, Expression>> {
    // Nothing that is done under this lock can leave it half-done.
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the root values until the evaluation is over; then none, so that a runaway ends by itself.
struct Roots {
    values: BTreeMap<String, Box<dyn Val>>,
    ended: Arc<AtomicBool>,
}

impl VariableResolver for Roots {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if self.ended.load(Ordering::Relaxed) {
            return None;
        }
        self.values
            .get(variable)
            .map(|value| CowVal::Borrowed(value.as_ref()))
    }
}

/// Runs `work` on a thread of its own with a big stack, and waits for it until the deadline.
/// Then `ended` is set, and the thread is left to end by itself.
fn bounded<T: Send + 'static>(
    ended: &AtomicBool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ExpressionError> {
    if RUNAWAYS.load(Ordering::SeqCst) >= MAX_RUNAWAYS {
        return Err(ExpressionError::Busy(format!(
            "{MAX_RUNAWAYS} expressions that took too long have not ended yet"
        )));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    // Counted by who comes last: the thread that ends, or the caller that gives it up.
    let over = Arc::new(AtomicBool::new(false));
    let thread_over = Arc::clone(&over);
    thread::Builder::new()
        .name(String::from("expression"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let result = work();
            let _ = sender.send(result);
            if thread_over.swap(true, Ordering::SeqCst) {
                RUNAWAYS.fetch_sub(1, Ordering::SeqCst);
            }
        })
        .map_err(|error| ExpressionError::Busy(format!("no thread: {error}")))?;
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => Ok(result),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            ended.store(true, Ordering::Relaxed);
            RUNAWAYS.fetch_add(1, Ordering::SeqCst);
            if over.swap(true, Ordering::SeqCst) {
                RUNAWAYS.fetch_sub(1, Ordering::SeqCst);
            }
            Err(ExpressionError::Deadline)
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(ExpressionError::Failed(String::from(
            "the interpreter gave up",
        ))),
    }
}

/// The value as the interpreter wants it: integers stay integers, whatever way JSON wrote them.
fn to_cel(value: &Json, name: &str) -> Result<Value, ExpressionError> {
    let too_large = |entries: usize| ExpressionError::TooLarge {
        name: name.to_owned(),
        entries,
    };
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Null,
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) if items.len() > MAX_ENTRIES => return Err(too_large(items.len())),
        Json::Object(members) if members.len() > MAX_ENTRIES => {
            return Err(too_large(members.len()));
        }
        Json::Array(items) => {
            let items: Result<Vec<Value>, _> =
                items.iter().map(|item| to_cel(item, name)).collect();
            Value::from(items?)
        }
        Json::Object(members) => {
            let members: Result<HashMap<String, Value>, _> = members
                .iter()
                .map(|(key, member)| Ok((key.clone(), to_cel(member, &format!("{name}.{key}"))?)))
                .collect();
            Value::from(members?)
        }
    })
}

fn syntax_error(errors: &cel::ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else {
        return ExpressionError::Syntax {
            line: 1,
            column: 1,
            message: String::from("is not CEL"),
        };
    };
    ExpressionError::Syntax {
        line: usize::try_from(first.pos.0).unwrap_or(1).max(1),
        column: usize::try_from(first.pos.1).unwrap_or(1).max(1),
        message: first.msg.replace('\n', " "),
    }
}

/// The interpreter's errors print whole values; a condition needs the reason only.
fn readable(error: &ExecutionError) -> ExpressionError {
    let message = match error {
        ExecutionError::UndeclaredReference(name) => {
            return ExpressionError::Unknown(name.to_string());
        }
        ExecutionError::NoSuchKey(name) => return ExpressionError::Unknown(name.to_string()),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            String::from("divides by zero")
        }
        ExecutionError::Overflow(operator, ..) => format!("overflows at {operator}"),
        ExecutionError::IndexOutOfBounds(_) => {
            String::from("asks for an item beyond the end of a list")
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!(
                "applies {operator} to {} and {}",
                left.type_of(),
                right.type_of()
            )
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("compares {} with {}", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedTargetType { target } => {
            format!(
                "calls a function on {}, which it does not know",
                target.type_of()
            )
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("calls {method} on {}", target.type_of())
        }
        ExecutionError::UnsupportedIndex(index, value) => {
            format!(
                "takes an item of {} by {}",
                value.type_of(),
                index.type_of()
            )
        }
        other => other.to_string(),
    };
    ExpressionError::Failed(message.chars().take(512).collect())
}

const fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

/// Whether the interpreter has an operator or a function of this name.
fn is_function(name: &str) -> bool {
    const FUNCTIONS: [&str; 30] = [
        "bool",
        "bytes",
        "charAt",
        "contains",
        "distinct",
        "double",
        "dyn",
        "endsWith",
        "exists_one",
        "flatten",
        "format",
        "indexOf",
        "int",
        "join",
        "lastIndexOf",
        "lowerAscii",
        "matches",
        "replace",
        "reverse",
        "size",
        "slice",
        "sort",
        "split",
        "startsWith",
        "string",
        "substring",
        "trim",
        "type",
        "uint",
        "upperAscii",
    ];
    name.contains(['_', '@', '!']) || FUNCTIONS.contains(&name) || functions::NAMES.contains(&name)
}
