//! Writes the reference of the API as Markdown to standard output: `apidoc > docs/api.md`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use std::{
    collections::VecDeque,
    io::{self, Write as _},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut text = String::from(
        "<!-- Generated from crds/src by apidoc. Do not edit. -->\n# API reference\n\n\
         Group `sopwith.dev`, version `v1alpha1`. The same is told by `kubectl explain`. A field marked * is required.\n",
    );
    for (_, definition) in sopwith_crds::manifest::definitions() {
        let names = &definition.spec.names;
        let version = definition.spec.versions.first();
        let schema = version.and_then(|v| v.schema.as_ref()?.open_api_v3_schema.as_ref());
        let Some(schema) = schema else { continue };
        let short = names.short_names.iter().flatten().next();
        text.extend([format!(
            "\n## {} ({})\n\n{}\n",
            names.kind,
            short.map_or("", String::as_str),
            schema.description.as_deref().unwrap_or_default()
        )]);
        let mut sections = Sections::default();
        for part in ["spec", "status"] {
            if let Some(part_schema) = schema.properties.as_ref().and_then(|p| p.get(part)) {
                sections.add(format!("{}.{part}", names.kind), part_schema);
            }
        }
        text += &sections.written();
    }
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One section an object; the same object at another place refers to the first.
#[derive(Default)]
struct Sections<'a> {
    waiting: VecDeque<(String, &'a JSONSchemaProps)>,
    known: Vec<(String, &'a JSONSchemaProps)>,
}

impl<'a> Sections<'a> {
    /// The name of the section that describes an object.
    fn add(&mut self, name: String, schema: &'a JSONSchemaProps) -> String {
        let same = self
            .known
            .iter()
            .find(|(_, other)| other.properties == schema.properties);
        if let Some((first, _)) = same {
            return first.clone();
        }
        self.known.push((name.clone(), schema));
        self.waiting.push_back((name.clone(), schema));
        name
    }

    fn written(mut self) -> String {
        let mut text = String::new();
        while let Some((name, schema)) = self.waiting.pop_front() {
            text.extend([format!(
                "\n### {name}\n\n| field | type | |\n|---|---|---|\n"
            )]);
            let required = schema.required.iter().flatten().collect::<Vec<_>>();
            for (field, property) in schema.properties.iter().flatten() {
                let mark = if required.contains(&field) { "*" } else { "" };
                let kind = self.kind(&format!("{name}.{field}"), property);
                text.extend([format!(
                    "| `{field}`{mark} | {kind} | {} |\n",
                    words(property)
                )]);
            }
            // That a spec stays as it is, is said once, by the kind.
            let rules = schema.x_kubernetes_validations.iter().flatten();
            let told = rules.map(|rule| rule.message.as_deref().unwrap_or(&rule.rule));
            for message in told
                .filter(|m| !m.ends_with("cannot be changed after creation: create a new AgentRun"))
            {
                text.extend([format!("\n- {message}")]);
            }
            text += "\n";
        }
        text
    }

    /// The type of a field, with a link where it is an object of its own.
    fn kind(&mut self, path: &str, schema: &'a JSONSchemaProps) -> String {
        if let Some(values) = &schema.enum_ {
            let values: Vec<String> = values
                .iter()
                .map(|v| v.0.to_string().replace('"', ""))
                .collect();
            return values.join(", ");
        }
        if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
            return format!("list of {}", self.kind(&format!("{path}[]"), item));
        }
        if let Some(JSONSchemaPropsOrBool::Schema(value)) = &schema.additional_properties {
            return format!("map of {}", self.kind(&format!("{path}.*"), value));
        }
        // Objects of Kubernetes itself are described by Kubernetes.
        let own = !["resources", "tolerations[]", "conditions[]"]
            .iter()
            .any(|end| path.ends_with(end));
        if schema.properties.is_some() && own {
            let section = self.add(path.to_owned(), schema);
            return format!("[object](#{})", anchor(&section));
        }
        schema.type_.clone().unwrap_or_else(|| "any".to_owned())
    }
}

/// How Markdown renderers name the anchor of a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect()
}

/// The description and the bounds, in one line of a table.
fn words(schema: &JSONSchemaProps) -> String {
    let mut text = schema
        .description
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('<', "&lt;");
    match (schema.minimum, schema.maximum) {
        (Some(least), Some(most)) => text.extend([format!(" {least} to {most}.")]),
        (Some(least), None) => text.extend([format!(" At least {least}.")]),
        _ => {}
    }
    text
}
