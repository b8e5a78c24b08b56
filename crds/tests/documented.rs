//! What the documentation shows has no mistake: the smallest sample, and the examples of the pages.

#![cfg(test)]

use kube::CustomResourceExt as _;
use serde::de::DeserializeOwned;
use sopwith_crds::{AgentRun, SopDefinition, SopDefinitionSpec, ToolPolicy, check, places::PLACES};

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

#[test]
fn each_option_of_metagpt_is_named_where_kubectl_explains_its_field() {
    for (option, path) in [
        ("idea", &["spec", "idea"][..]),
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
    ] {
        let said = explained(path);
        assert!(
            said.contains(&format!("(MetaGPT: {option})")),
            "{path:?}: {said}"
        );
    }
}

/// The cells of a table's lines.
fn rows(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
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
    let (options, table) = page.split_once("\n## SopDefinition").unwrap();
    let shown = rows(table);
    let named: Vec<String> = shown.iter().skip(1).map(|row| row[0].clone()).collect();
    assert_eq!(named, fields);
    let tests = rows(options).into_iter().chain(shown);
    for row in tests.filter(|row| row.last().is_some_and(|cell| cell.starts_with('['))) {
        let cell = row.last().unwrap();
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
