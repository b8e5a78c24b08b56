use super::{super::*, told};
use crate::{AgentRun, SopDefinition, ToolPolicy};

fn sample<T: serde::de::DeserializeOwned>(folder: &str, file: &str) -> T {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
    super::yaml(&std::fs::read_to_string(format!("{samples}/{folder}/{file}")).unwrap())
}

#[test]
fn no_sample_has_a_mistake() {
    for (folder, steps) in [
        (
            "software-company",
            &[
                "write-prd",
                "design-api",
                "plan-tasks",
                "implement",
                "verify",
                "comply",
            ][..],
        ),
        (
            "javascript-module",
            &["specify", "implement", "verify", "document"],
        ),
        (
            "incident-review",
            &["timeline", "causes", "actions", "review", "publish"],
        ),
    ] {
        let sop: SopDefinition = sample(folder, "sop.yaml");
        let policy: ToolPolicy = sample(folder, "toolpolicy.yaml");
        let run: AgentRun = sample(folder, "agentrun.yaml");
        let (run, sop, policy) = (&run.spec, &sop.spec, &policy.spec);
        assert_eq!(told(&super::super::sop(sop)), [""; 0], "{folder}");
        assert_eq!(told(&super::super::policy(policy)), [""; 0], "{folder}");
        assert_eq!(told(&super::super::run(run)), [""; 0], "{folder}");
        assert_eq!(told(&pairing(run, sop, policy)), [""; 0], "{folder}");
        assert_eq!(
            told(&not_supported_yet(run, sop, policy)),
            [""; 0],
            "{folder}"
        );
        let names: Vec<&str> = order(&sop.steps)
            .unwrap()
            .into_iter()
            .map(|index| sop.steps[index].name.as_str())
            .collect();
        assert_eq!(names, steps, "{folder}");
    }
}
