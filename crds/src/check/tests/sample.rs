use super::{super::*, told};
use crate::{AgentRun, SopDefinition, ToolPolicy};

fn sample<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let path = format!(
        "{}/../config/samples/software-company/{file}",
        env!("CARGO_MANIFEST_DIR")
    );
    super::yaml(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_sample_has_no_mistake() {
    let sop: SopDefinition = sample("sop.yaml");
    let policy: ToolPolicy = sample("toolpolicy.yaml");
    let run: AgentRun = sample("agentrun.yaml");
    assert_eq!(told(&super::super::sop(&sop.spec)), [""; 0]);
    assert_eq!(told(&super::super::policy(&policy.spec)), [""; 0]);
    assert_eq!(told(&super::super::run(&run.spec)), [""; 0]);
    assert_eq!(told(&pairing(&run.spec, &sop.spec, &policy.spec)), [""; 0]);
    assert_eq!(
        told(&not_supported_yet(&run.spec, &sop.spec, &policy.spec)),
        [""; 0]
    );
    let names: Vec<&str> = order(&sop.spec.steps)
        .unwrap()
        .into_iter()
        .map(|index| sop.spec.steps[index].name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "write-prd",
            "design-api",
            "plan-tasks",
            "implement",
            "verify"
        ]
    );
}
