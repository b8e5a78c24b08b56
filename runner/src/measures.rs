//! Numbers that gates take, over all attempts of a run: whether bugs become fewer, what is still open. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use sopwith_crds::{
    contract::plan::RunPlan,
    language::Expression,
    sop_definition::{Gate, Measure, Step},
    status::Trust,
};

/// The measures of a run by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measures(BTreeMap<String, Vec<Taken>>);

/// A number as it was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Attempt of the step that the gate belongs to.
    pub attempt: u32,
    /// The round.
    pub round: u32,
    /// The number.
    pub value: Number,
    /// How far what it was taken from can be trusted.
    pub trust: Trust,
}

impl Measures {
    /// Whether nothing was taken yet.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// Adds a number.
    pub fn add(&mut self, name: &str, taken: Taken) {
        self.0.entry(name.to_owned()).or_default().push(taken);
    }

    /// Adds what another has that was made from `before`.
    pub fn merge(&mut self, before: &Self, after: Self) {
        for (name, taken) in after.0 {
            let known = before.of(&name).len();
            let own = self.0.entry(name).or_default();
            own.extend(taken.into_iter().skip(known));
        }
    }

    /// What was taken under a name, the oldest first.
    pub fn of(&self, name: &str) -> &[Taken] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What expressions and templates see: a list of numbers for each measure of the procedure.
    pub fn seen(&self, plan: &RunPlan) -> Value {
        let lists = declared(plan).map(|measure| {
            let numbers = self.of(&measure.name).iter();
            let numbers = numbers.map(|taken| Value::Number(taken.value.clone()));
            (measure.name.clone(), numbers.collect())
        });
        Value::Object(lists.collect::<Map<_, _>>())
    }
}

fn declared(plan: &RunPlan) -> impl Iterator<Item = &Measure> {
    let gates = plan.steps.iter().flat_map(Step::all_gates);
    gates.flat_map(|gate: &Gate| &gate.measures)
}

/// Takes one number, or says why it cannot be taken.
pub fn take(measure: &Measure, context: &Value) -> Result<Number, String> {
    let problem = |why: String| format!("measure {} cannot be taken: {why}", measure.name);
    let expression = Expression::compile(&measure.value);
    let value = expression.and_then(|expression| expression.evaluate(context));
    match value.map_err(|error| problem(error.to_string()))? {
        Value::Number(number) => Ok(number),
        other => Err(problem(format!("{other} is no number"))),
    }
}
