//! Hostile input: objects made from the CRDs' own schemas and from good objects gone bad, and requests nobody should send.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Names that references may hit, so that some of what is made fits together.
const NAMES: [&str; 8] = [
    "a", "b", "prd", "code", "default", "small", "fast", "verify",
];

/// Texts that have hurt somebody somewhere.
const HOSTILE: [&str; 24] = [
    "",
    " ",
    "..",
    "../../etc/passwd",
    "/proc/self/environ",
    "a/../../b",
    "a\nb: c",
    "\u{0}",
    "\u{202e}txt.exe",
    "\u{1f469}\u{200d}\u{1f4bb}\u{301}\u{301}",
    "{{ 7 * 7 }}",
    "{% for a in range(99999999) %}{{ a }}{% endfor %}",
    "{{ idea.__class__.__mro__ }}",
    "${SECRET} $(id) `id`",
    "'; DROP TABLE runs; --",
    "<script>alert(1)</script>",
    "%s%s%s%n",
    "[1,2,3].all(a, [1,2,3].all(b, [1,2,3].all(c, true)))",
    "((((((((((((((((((((((((((((((((((((((((",
    "a{1,99999}{1,99999}",
    "**/../**",
    "99999999999999999999999999",
    "-0",
    "sha256:zz",
];

/// Makes hostile input; the same seed makes the same.
pub struct Fuzz {
    rng: Rng,
}

impl Fuzz {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
        }
    }

    /// A number below `most`.
    pub fn below(&mut self, most: usize) -> usize {
        self.rng.usize(..most.max(1))
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// A text that may hurt.
    pub fn text(&mut self) -> String {
        match self.rng.u32(..12) {
            0 => "x".repeat(self.below(20_000)),
            1 => (0..self.below(60)).map(|_| self.rng.char(..)).collect(),
            2..=6 => self.pick(&HOSTILE).to_owned(),
            _ => self.pick(&NAMES).to_owned(),
        }
    }

    /// A value of any shape.
    pub fn anything(&mut self, depth: usize) -> Value {
        match self.rng.u32(..11) {
            0 => Value::Null,
            1 => json!(self.rng.bool()),
            2 => json!(-1),
            3 => json!(i64::MAX),
            4 => json!(1e300),
            5 => json!(0),
            6 if depth > 0 => {
                let count = self.below(6);
                (0..count).map(|_| self.anything(depth - 1)).collect()
            }
            7 if depth > 0 => {
                let count = self.below(6);
                let entries = (0..count).map(|_| (self.text(), self.anything(depth - 1)));
                Value::Object(entries.collect())
            }
            8 => (0..40).fold(json!("deep"), |inner, _| json!([inner])),
            _ => json!(self.text()),
        }
    }

    /// A value that mostly fits a structural schema, and now and then does not.
    pub fn of_schema(&mut self, schema: &Value, depth: usize) -> Value {
        if self.one_in(60) {
            return self.anything(3);
        }
        if let Some(words) = schema["enum"].as_array() {
            return words[self.below(words.len())].clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => self.array(schema, depth),
            Some("integer") => {
                let low = schema["minimum"].as_f64().unwrap_or(0.0);
                let high = schema["maximum"].as_f64().unwrap_or(100.0);
                let (low, high) = (whole(low), whole(high).max(whole(low)));
                let inside = [low, high, low.saturating_add(1).min(high)];
                let outside = [low - 1, high.saturating_add(1), i64::MAX];
                let choices = if self.one_in(10) { outside } else { inside };
                json!(choices[self.below(choices.len())])
            }
            Some("number") => json!(self.rng.f64() * 4.0 - 1.0),
            Some("boolean") => json!(self.rng.bool()),
            Some("string") => json!(self.text()),
            _ => self.anything(3),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut made = Map::new();
        let required = |name: &String| {
            let list = schema["required"].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).any(|word| word == name)
        };
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let rare = u32::try_from(6_usize.saturating_sub(depth)).unwrap_or(0) + 2;
            let wanted = if required(name) {
                !self.one_in(50)
            } else {
                depth > 0 && self.one_in(rare)
            };
            if wanted {
                made.insert(name.clone(), self.of_schema(inner, depth.saturating_sub(1)));
            }
        }
        if schema["additionalProperties"].is_object() {
            for _ in 0..self.below(3) {
                let value =
                    self.of_schema(&schema["additionalProperties"], depth.saturating_sub(1));
                made.insert(self.text(), value);
            }
        }
        if self.one_in(80) {
            made.insert(self.text(), self.anything(2));
        }
        Value::Object(made)
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        let most = schema["maxItems"].as_u64().unwrap_or(8);
        let most = usize::try_from(most).unwrap_or(8);
        let count = if self.one_in(40) {
            most + 1
        } else {
            self.below(4.min(most + 1))
        };
        // Many items are small ones.
        let depth = if count > 8 {
            0
        } else {
            depth.saturating_sub(1)
        };
        (0..count)
            .map(|_| self.of_schema(&schema["items"], depth))
            .collect()
    }

    /// A good value with one to three things gone bad somewhere in it.
    pub fn gone_bad(&mut self, good: &Value) -> Value {
        let mut value = good.clone();
        for _ in 0..=self.below(3) {
            let mut places = Vec::new();
            pointers(&value, String::new(), &mut places);
            let place = places.swap_remove(self.below(places.len()));
            if let Some(at) = value.pointer_mut(&place) {
                let known = at.clone();
                *at = match self.rng.u32(..5) {
                    0 => Value::Null,
                    1 => json!([known, known]),
                    2 if known.is_string() => json!(self.text()),
                    3 if known.is_number() => json!(self.pick(&[&-1_i64, &0, &i64::MAX])),
                    _ => self.anything(2),
                };
            }
        }
        value
    }
}

#[allow(clippy::cast_possible_truncation)] // bounds of a schema are small whole numbers
fn whole(number: f64) -> i64 {
    number as i64
}

/// Every place in a value, as JSON pointers.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(inner, format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                pointers(inner, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}
