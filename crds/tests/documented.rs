//! What the documentation shows has no mistake: the smallest sample, and the examples of the pages.

#![cfg(test)]

use kube::CustomResourceExt as _;
use serde::de::DeserializeOwned;
use sopwith_crds::{
    AgentRun, SopDefinition, SopDefinitionSpec, ToolPolicy, check,
    places::PLACES,
    sop_definition::{Gate, Step},
};
use std::collections::BTreeSet;

fn text(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// The first block of YAML in a page.
fn example(page: &str) -> String {
    let page = text(page);
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_smallest_sample_has_no_mistake() {
    let folder = "config/samples/minimal";
    let sop: SopDefinition = yaml(&text(&format!("{folder}/sop.yaml")));
    let policy: ToolPolicy = yaml(&text(&format!("{folder}/toolpolicy.yaml")));
    let run: AgentRun = yaml(&text(&format!("{folder}/agentrun.yaml")));
    assert_eq!(check::sop(&sop.spec), []);
    assert_eq!(check::policy(&policy.spec), []);
    assert_eq!(check::run(&run.spec), []);
    assert_eq!(check::pairing(&run.spec, &sop.spec, &policy.spec), []);
    assert_eq!(
        check::not_supported_yet(&run.spec, &sop.spec, &policy.spec),
        []
    );
}

#[test]
fn the_documented_policy_has_no_mistake() {
    let policy: ToolPolicy = yaml(&example("docs/write-a-policy.md"));
    assert_eq!(check::policy(&policy.spec), []);
}

#[test]
fn the_documented_procedure_has_no_mistake() {
    #[derive(serde::Deserialize)]
    struct Page {
        spec: SopDefinitionSpec,
    }
    let page: Page = yaml(&example("docs/write-an-sop.md"));
    assert_eq!(check::sop(&page.spec), []);
}

/// The description of a field of `AgentRun`'s schema, by its path.
fn explained(path: &[&str]) -> String {
    let crd = serde_json::to_value(AgentRun::crd()).unwrap();
    let schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let field = path
        .iter()
        .fold(schema, |schema, name| schema["properties"][name].clone());
    field["description"].as_str().unwrap_or_default().to_owned()
}

/// The options of MetaGPT's command line, and the path of the field of an `AgentRun`; none where it is no field.
const OPTIONS: [(&str, &[&str]); 13] = [
    ("idea", &["spec", "idea"]),
    ("investment", &["spec", "investment"]),
    ("n-round", &["spec", "rounds"]),
    ("code-review", &["spec", "codeReview"]),
    ("run-tests", &["spec", "runTests"]),
    ("implement", &["spec", "implement"]),
    ("project-name", &["spec", "project", "name"]),
    ("inc", &["spec", "incremental"]),
    ("project-path", &["spec", "project", "source"]),
    ("reqa-file", &["spec", "reqaFile"]),
    ("max-auto-summarize-code", &["spec", "maxAutoSummarizeCode"]),
    ("recover-path", &["spec", "recoverFrom"]),
    ("init-config", &[]),
];

#[test]
fn each_option_of_metagpt_is_named_where_kubectl_explains_its_field() {
    for (option, path) in OPTIONS {
        let said = explained(path);
        assert!(
            said.contains(&format!("(MetaGPT: {option})")),
            "{path:?}: {said}"
        );
    }
}

/// The rows of the first table below a heading, as their cells.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, below) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let lines = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// What stands in backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Every place of a procedure that can be named: steps, actions, actions of loops, gates.
fn named_places(sop: &SopDefinitionSpec) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for step in &sop.steps {
        let at = &step.name;
        places.insert(at.clone());
        let gates = |prefix: &str, gates: &[Gate]| -> Vec<String> {
            gates
                .iter()
                .map(|gate| format!("{prefix}/{}", gate.name))
                .collect()
        };
        places.extend(gates(at, &step.gates));
        for action in &step.actions {
            let at = format!("{at}/{}", action.name);
            places.extend(gates(&at, &action.gates));
            if let Some(repeat) = &action.repeat {
                places.extend(gates(&at, &repeat.gates));
                for inner in &repeat.actions {
                    let at = format!("{at}/{}", inner.name);
                    places.extend(gates(&at, &inner.gates));
                    places.insert(at);
                }
            }
            places.insert(at);
        }
    }
    places
}

#[test]
fn each_action_of_metagpts_company_has_its_places_in_the_sample() {
    let sop: SopDefinition = yaml(&text("config/samples/software-company/sop.yaml"));
    let places = named_places(&sop.spec);
    let page = text("docs/metagpt.md");
    let rows = table(&page, "Actions");
    let actions: Vec<&str> = rows.iter().flat_map(|row| code(&row[0])).collect();
    assert_eq!(
        actions,
        [
            "UserRequirement",
            "PrepareDocuments",
            "WritePRD",
            "WritePRDReview",
            "WriteDesign",
            "DesignReview",
            "WriteTasks",
            "AssignTasks",
            "WriteCodePlanAndChange",
            "WriteCode",
            "WriteCodeReview",
            "SummarizeCode",
            "WriteTest",
            "RunCode",
            "DebugError",
            "FixBug",
        ]
    );
    for row in &rows {
        let named = code(&row[2]);
        assert!(!named.is_empty(), "{row:?}");
        for place in named.iter().filter(|place| !place.starts_with("spec.")) {
            assert!(
                places.contains(*place),
                "{place} of {} is not there",
                row[0]
            );
        }
    }
    // What else the page names, and that no work of the procedure stands beside the table.
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    for place in named.iter().filter(|name| {
        sop.spec
            .steps
            .iter()
            .any(|step| name.starts_with(&format!("{}/", step.name)))
    }) {
        let group = |known: &String| known.starts_with(&format!("{place}/"));
        assert!(
            places.contains(*place) || places.iter().any(group),
            "{place}"
        );
    }
    let asks = |step: &Step| -> Vec<String> {
        let mut asks = Vec::new();
        for action in &step.actions {
            let at = format!("{}/{}", step.name, action.name);
            let inner = action.repeat.iter().flat_map(|repeat| &repeat.actions);
            asks.extend(
                inner
                    .filter(|inner| inner.work.prompt.is_some())
                    .map(|inner| format!("{at}/{}", inner.name)),
            );
            asks.extend(action.work.prompt.iter().map(|_| at.clone()));
        }
        asks
    };
    for place in sop.spec.steps.iter().flat_map(asks) {
        assert!(named.contains(place.as_str()), "{place} is not on the page");
    }
}

#[test]
fn every_field_of_a_procedure_has_a_test_that_is_there() {
    let reference = text("docs/api.md");
    let (_, sop) = reference.split_once("\n## SopDefinition").unwrap();
    let (sop, _) = sop.split_once("\n## ToolPolicy").unwrap();
    let mut fields = Vec::new();
    let mut section = "";
    for line in sop.lines() {
        if let Some(name) = line.strip_prefix("### SopDefinition.") {
            section = name;
        } else if let Some((field, _)) = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split_once('`'))
            && section.starts_with("spec")
        {
            fields.push(format!("`{section}.{field}`"));
        }
    }
    assert!(fields.len() > 100, "{fields:?}");
    let page = text("docs/fields.md");
    let shown = table(&page, "SopDefinition");
    let named: Vec<String> = shown.iter().map(|row| row[0].clone()).collect();
    assert_eq!(named, fields);
    for row in shown.iter().filter(|row| row[1].starts_with('[')) {
        let cell = &row[1];
        let (test, file) = cell
            .trim_start_matches("[`")
            .trim_end_matches(')')
            .split_once("`](../")
            .unwrap_or_else(|| panic!("{cell}"));
        let there = text(file).contains(&format!("fn {test}("));
        assert!(there, "{}: {file} has no test {test}", row[0]);
    }
}

#[test]
fn each_place_is_documented_with_who_may_edit_it() {
    let page = text("docs/projects.md");
    let (_, rest) = page
        .split_once(
            "| place | `layout.…` | people may edit it | what it holds |\n|---|---|---|---|\n",
        )
        .unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let expected: Vec<String> = PLACES
        .iter()
        .map(|place| {
            let path = place.path.replace("{{ project.name }}", "PROJECT");
            let editable = place.keeper.editable();
            format!(
                "| `{path}` | `{}` | {editable} | {} |",
                place.name, place.what
            )
        })
        .collect();
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_documented_ways_of_an_iteration_have_no_mistake() {
    let page = text("docs/projects.md");
    let (_, part) = page.split_once("## Incremental runs").unwrap();
    let blocks = part.split("```yaml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .filter_map(|block| block.split_once("```").map(|(block, _)| block))
        .collect();
    let mut seen = 0;
    for block in blocks.iter().filter(|block| block.contains("templates:")) {
        let mut sop: SopDefinitionSpec = yaml(block);
        for name in ["manager", "engineer", "qa"] {
            if sop.roles.iter().all(|role| role.name != name) {
                sop.roles.push(sopwith_crds::sop_definition::Role {
                    name: name.to_owned(),
                    ..Default::default()
                });
            }
        }
        let used = |role: &sopwith_crds::sop_definition::Role| {
            sop.steps
                .iter()
                .any(|step| step.role.as_ref() == Some(&role.name))
        };
        let kept: Vec<_> = sop
            .roles
            .iter()
            .filter(|role| used(role))
            .cloned()
            .collect();
        sop.roles = kept;
        assert_eq!(check::sop(&sop), [], "{block}");
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn each_option_of_metagpt_is_on_the_page_with_a_field_and_a_test_that_exist() {
    let page = text("docs/metagpt.md");
    let rows = table(&page, "Options of the command line");
    let options: Vec<&str> = rows.iter().flat_map(|row| code(&row[0])).collect();
    let known: Vec<String> = OPTIONS
        .iter()
        .map(|(option, _)| match *option {
            "idea" => "IDEA".to_owned(),
            other => format!("--{other}"),
        })
        .collect();
    assert_eq!(options, known);
    for (row, (option, path)) in rows.iter().zip(OPTIONS) {
        let field = code(&row[1])[0];
        if path.is_empty() {
            assert_eq!(field, "kubectl sop init");
        } else {
            assert_eq!(field, path.join("."), "{option}");
        }
        for place in code(&row[4]) {
            let path = format!("{}/../{place}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&path).exists(), "{place}");
        }
    }
}
