use super::{told, yaml};
use rstest::rstest;

#[rstest]
#[case("sopRef: {name: s}\nidea: a game\ninputs: [{name: a, value: x}]\nproject: {name: a-b}", &[])]
#[case("sopRef: {name: s}\nideaFrom: {configMapKeyRef: {name: c, key: k}}", &[])]
#[case("sopRef: {name: s}",
    &["spec.idea: is not set; say in a line what the team is to build, or name a ConfigMap in ideaFrom"])]
#[case("sopRef: {name: s}\nidea: ' '", &["spec.idea: is empty; say in a line what the team is to build"])]
#[case("sopRef: {name: s}\nidea: x\nideaFrom: {configMapKeyRef: {name: c, key: k}}",
    &["spec.idea: is set, and so is ideaFrom; take one of them away"])]
#[case("sopRef: {name: ''}\nidea: x", &["spec.sopRef.name: is empty; name a SopDefinition of this namespace"])]
#[case("sopRef: {name: s}\nidea: x\nrounds: 0", &["spec.rounds: is 0; a run needs at least one pass forward"])]
#[case("sopRef: {name: s}\nidea: x\ninputs: [{name: a}, {name: a, value: x}]",
    &["spec.inputs[a]: input `a` is there more than once; name them differently",
      "spec.inputs[a]: needs exactly one of value and configMapKeyRef"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {name: ../x}",
    &["spec.project.name: \"../x\" names a folder; use letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"])]
#[case("sopRef: {name: s}\nidea: x\nincremental: true\nreqaFile: tests/a.py\nproject: {source: {run: r}}", &[])]
#[case("sopRef: {name: s}\nidea: x\nincremental: true\nrecoverFrom: {run: r}", &[])]
#[case("sopRef: {name: s}\nidea: x\nincremental: true\nproject: {name: game}",
    &["spec.incremental: is true, and there is no project to work on; name one in spec.project.source (git, run or upload) or recover from a run, or begin a new project without it"])]
#[case("sopRef: {name: s}\nidea: x\nincremental: true\nreqaFile: /x\nproject: {source: {run: r}}",
    &["spec.reqaFile: \"/x\" is not relative; write it from the project's root"])]
#[case("sopRef: {name: s}\nidea: x\nincremental: true\nreqaFile: tests/\nproject: {source: {run: r}}",
    &["spec.reqaFile: \"tests/\" names a folder; name a file in it"])]
#[case("sopRef: {name: s}\nidea: x\nreqaFile: tests/a.py",
    &["spec.reqaFile: belongs to incremental runs; set spec.incremental to true, or take it away"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {source: {git: {url: 'https://git.example.com/team/game', ref: v1.2}}, deliver: {git: {branch: sopwith/game}}}", &[])]
#[case("sopRef: {name: s}\nidea: x\nproject: {source: {git: {url: 'https://ada:pw@host/a'}}}",
    &["spec.project.source.git.url: \"https://…@host/a\" has a user or token before the host; credentials come from the Secret that the policy's git entry names"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {source: {git: {url: 'https://host/'}}}",
    &["spec.project.source.git.url: \"https://host/\" names a host; name the repository on it"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {source: {git: {url: 'https://host/a', ref: 'a..b'}}}",
    &["spec.project.source.git.ref: \"a..b\" has `..` or `@{` in it, is `@`, or ends with a dot; write a name as Git allows it, for example main or feature/login"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {source: {git: {url: 'https://host/a'}}, deliver: {git: {branch: refs/heads/x}}}",
    &["spec.project.deliver.git.branch: \"refs/heads/x\" is no name of a branch; write it without refs/heads/, for example sopwith/game"])]
#[case("sopRef: {name: s}\nidea: x\nproject: {deliver: {git: {branch: x}}}",
    &["spec.project.deliver.git: names a branch of the source repository, and there is none; name it in spec.project.source.git"])]
#[case("sopRef: {name: s}\nidea: x\nlongTermMemory: true\nproject: {name: game}", &[])]
#[case("sopRef: {name: s}\nidea: x\nlongTermMemory: true\nproject: {source: {run: game-1}}", &[])]
#[case("sopRef: {name: s}\nidea: x\nlongTermMemory: true\nrecoverFrom: {run: game-1}", &[])]
#[case("sopRef: {name: s}\nidea: x\nlongTermMemory: false", &[])]
#[case("sopRef: {name: s}\nidea: x\nlongTermMemory: true",
    &["spec.longTermMemory: is true, and facts are kept for the later runs of a project by its name, which is not set; name the project in spec.project.name"])]
fn a_run_is_checked(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(told(&super::super::run(&yaml(text))), expected);
}
