//! In which form a value is written, as its schema says.

use serde_json::{Map, Value};

/// Levels of headings that Markdown has.
const LEVELS: usize = 6;
/// References that are followed one after another.
const HOPS: usize = 16;

/// The form of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape<'a> {
    /// A single value.
    Plain(&'a Value),
    /// A list of single values.
    List(&'a Value),
    /// A list of objects of single values.
    Table(Vec<Property<'a>>),
    /// A list of other objects.
    Items(&'a Value),
    /// An object.
    Object(Vec<Property<'a>>),
    /// JSON.
    Json,
}

/// A property of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Property<'a> {
    pub(super) name: &'a str,
    pub(super) schema: &'a Value,
    pub(super) required: bool,
}

/// The form of a value whose properties or items would have headings of this level.
pub(super) fn of<'a>(root: &'a Value, schema: &'a Value, level: usize) -> Shape<'a> {
    let schema = resolved(root, schema);
    if is_plain(schema) {
        return Shape::Plain(schema);
    }
    if is(schema, "array") {
        let Some(items) = schema.get("items").map(|items| resolved(root, items)) else {
            return Shape::Json;
        };
        let properties = properties(root, items);
        return if is_plain(items) {
            Shape::List(items)
        } else if properties.is_empty() || level + 1 > LEVELS {
            Shape::Json
        } else if properties.iter().all(|property| is_plain(property.schema)) {
            Shape::Table(properties)
        } else {
            Shape::Items(items)
        };
    }
    match properties(root, schema) {
        properties if properties.is_empty() || level > LEVELS => Shape::Json,
        properties => Shape::Object(properties),
    }
}

/// The properties of an object: those that are required in their order, then the others by name.
pub(super) fn properties<'a>(root: &'a Value, schema: &'a Value) -> Vec<Property<'a>> {
    let known = schema.get("properties").and_then(Value::as_object);
    if !is(schema, "object") || known.is_none_or(Map::is_empty) {
        return Vec::new();
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let order = |name: &str| required.iter().position(|other| *other == name);
    let mut properties: Vec<Property<'a>> = known
        .into_iter()
        .flatten()
        .map(|(name, schema)| Property {
            name,
            schema: resolved(root, schema),
            required: order(name).is_some(),
        })
        .collect();
    properties.sort_by_key(|property| order(property.name).unwrap_or(usize::MAX));
    properties
}

/// The schema that a reference within the same document names.
pub(super) fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..HOPS {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let Some(found) = reference
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
        else {
            break;
        };
        schema = found;
    }
    schema
}

/// Whether a schema names a type.
pub(super) fn is(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(own)) => own == kind,
        Some(Value::Array(all)) => all.iter().any(|own| own == kind),
        _ => kind == "object" && schema.get("properties").is_some(),
    }
}

/// Whether values of a schema are single ones.
fn is_plain(schema: &Value) -> bool {
    let typed = ["string", "integer", "number", "boolean"]
        .iter()
        .any(|kind| is(schema, kind));
    let complex = is(schema, "array") || is(schema, "object");
    let named = schema.get("type").is_none()
        && choices(schema).is_some_and(|choices| choices.iter().all(Value::is_string));
    (typed && !complex) || named
}

/// The values that a schema allows, where it lists them.
pub(super) fn choices(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("enum").and_then(Value::as_array)
}
