//! `kubectl sop init`: a template of a run with all that it needs, to be filled in and applied. Needs no cluster.

use crate::args::{InitArgs, ProviderArg};
use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

const SECRET: &str = include_str!("init/secret.yaml");
const POLICY: &str = include_str!("init/toolpolicy.yaml");
const RUN: &str = include_str!("init/agentrun.yaml");

/// Why no template was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// The file is there.
    #[error("{} exists; name another file with --out, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes the template, and says what to do with it.
pub(crate) fn run(args: &InitArgs) -> Result<(), InitError> {
    let text = template(args);
    let path = &args.out;
    let failed = |source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::AlreadyExists {
            InitError::Exists(path.clone())
        } else {
            InitError::Write {
                path: path.clone(),
                source,
            }
        }
    };
    if path.as_os_str() == "-" {
        return std::io::stdout().write_all(text.as_bytes()).map_err(failed);
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    eprintln!(
        "wrote {0}: fill it in, then\n  kubectl apply --server-side -f {0}\n  kubectl sop watch {1}",
        path.display(),
        args.name
    );
    Ok(())
}

fn template(args: &InitArgs) -> String {
    let mut parts = Vec::new();
    if args.provider != ProviderArg::Ollama {
        parts.push(SECRET.to_owned());
    }
    parts.push(
        POLICY
            .replace("SOP", &args.sop)
            .replace("ENDPOINT", endpoint(args.provider).trim_end()),
    );
    let run = RUN.replace("NAME", &args.name).replace("SOP", &args.sop);
    let run = run.replace("MODEL", model(args.provider));
    parts.push(run.replace("IDEA", &quoted(&args.idea)));
    parts.join("---\n")
}

/// A string as YAML takes it on one line: that of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const fn model(provider: ProviderArg) -> &'static str {
    match provider {
        ProviderArg::Openai => "gpt-4-turbo",
        ProviderArg::Azure => "gpt-4o",
        ProviderArg::Ollama => "qwen3",
        ProviderArg::Groq => "llama-3.3-70b-versatile",
    }
}

const fn endpoint(provider: ProviderArg) -> &'static str {
    match provider {
        ProviderArg::Openai => {
            r#"  - name: openai
    provider: openai
    # baseUrl: https://llm.example/v1     # any server that speaks OpenAI's chat completions
    secretRef: {name: model-provider, key: api-key}
    models:                               # prices in US dollars per million tokens: look them up
    - {name: gpt-4-turbo, aliases: [strong, fast], inputPerMillion: "10.00", outputPerMillion: "30.00"}
    - {name: gpt-4o, aliases: [judge], inputPerMillion: "2.50", outputPerMillion: "10.00"}   # judges must be other models than authors
"#
        }
        ProviderArg::Azure => {
            r#"  - name: azure
    provider: azure
    baseUrl: https://RESOURCE.openai.azure.com
    # apiVersion: "2024-10-21"            # asks by the paths of deployments; without it the v1 path is used
    secretRef: {name: model-provider, key: api-key}
    models:                               # prices in US dollars per million tokens: look them up
    - {name: gpt-4o, deployment: DEPLOYMENT, aliases: [strong, fast], inputPerMillion: "2.50", outputPerMillion: "10.00"}
    # judges must be other models than authors
    - {name: gpt-4.1, deployment: OTHER-DEPLOYMENT, aliases: [judge], inputPerMillion: "2.00", outputPerMillion: "8.00"}
"#
        }
        ProviderArg::Ollama => {
            r#"  - name: ollama
    provider: ollama
    baseUrl: http://ollama.models.svc:11434
    timeoutSeconds: 600
    models:                               # contextWindow: with how many tokens the model is loaded
    - {name: qwen3, aliases: [strong, fast], contextWindow: 32768, inputPerMillion: "0", outputPerMillion: "0"}
    # judges must be other models than authors
    - {name: llama3.1, aliases: [judge], contextWindow: 32768, inputPerMillion: "0", outputPerMillion: "0"}
"#
        }
        ProviderArg::Groq => {
            r#"  - name: groq
    provider: groq
    secretRef: {name: model-provider, key: api-key}
    models:                               # prices in US dollars per million tokens: look them up
    - {name: llama-3.3-70b-versatile, aliases: [strong, fast], inputPerMillion: "0.59", outputPerMillion: "0.79"}
    # judges must be other models than authors
    - {name: openai/gpt-oss-120b, aliases: [judge], inputPerMillion: "0.15", outputPerMillion: "0.60"}
"#
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;
    use kube::CustomResourceExt as _;
    use rstest::rstest;
    use serde::de::DeserializeOwned;
    use sopwith_crds::{AgentRun, SopDefinition, ToolPolicy, check};

    fn args(line: &[&str]) -> InitArgs {
        let line = ["kubectl-sop", "init"].iter().chain(line);
        match Args::parse_from(line).command {
            Command::Init(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn yaml<T: DeserializeOwned>(text: &str) -> T {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }

    fn parts(text: &str) -> Vec<&str> {
        text.split("---\n").collect()
    }

    /// The template as it is when every line that stands in comments is put to use.
    fn put_to_use(part: &str) -> String {
        let lines = part.lines().map(|line| {
            let (space, rest) = line.split_once("# ").unwrap_or((line, ""));
            let is_field = rest
                .split_once(':')
                .is_some_and(|(name, _)| name.chars().all(char::is_alphabetic));
            if !space.is_empty() && space.trim().is_empty() && is_field {
                format!("{space}{rest}")
            } else {
                line.to_owned()
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[rstest]
    #[case("openai")]
    #[case("azure")]
    #[case("ollama")]
    #[case("groq")]
    fn what_it_writes_has_no_mistake_with_and_without_what_stands_in_comments(
        #[case] provider: &str,
    ) {
        let text = template(&args(&["--provider", provider, "--sop", "release-notes"]));
        let parts = parts(&text);
        assert_eq!(parts.len(), if provider == "ollama" { 2 } else { 3 });
        let sop: SopDefinition = yaml(include_str!("../../config/samples/minimal/sop.yaml"));
        let mut sop = sop.spec;
        let [.., policy, run] = parts.as_slice() else {
            panic!("{text}");
        };
        for used in [false, true] {
            let prepared = |part: &str| {
                if used {
                    put_to_use(part)
                } else {
                    part.to_owned()
                }
            };
            let policy: ToolPolicy = yaml(&prepared(policy));
            let run: AgentRun = yaml(&prepared(run));
            sop.parameters = run
                .spec
                .parameters
                .keys()
                .map(|name| sopwith_crds::sop_definition::Parameter {
                    name: name.clone(),
                    ..Default::default()
                })
                .collect();
            assert_eq!(check::policy(&policy.spec), []);
            assert_eq!(check::run(&run.spec), []);
            assert_eq!(check::pairing(&run.spec, &sop, &policy.spec), []);
            assert_eq!(check::not_supported_yet(&run.spec, &sop, &policy.spec), []);
            assert_eq!(run.spec.investment.is_some(), used);
            assert_eq!(policy.spec.images.is_empty(), !used);
        }
    }

    #[rstest]
    #[case("openai")]
    #[case("azure")]
    #[case("ollama")]
    #[case("groq")]
    fn the_procedure_that_it_names_by_default_lacks_nothing_but_its_image(#[case] provider: &str) {
        let text = template(&args(&["--provider", provider]));
        let parts = parts(&text);
        let [.., policy, run] = parts.as_slice() else {
            panic!("{text}");
        };
        let sop = include_str!("../../config/samples/software-company/sop.yaml");
        let sop: SopDefinition = yaml(sop);
        let policy: ToolPolicy = yaml(&put_to_use(policy));
        let run: AgentRun = yaml(&put_to_use(run));
        let lacks = check::pairing(&run.spec, &sop.spec, &policy.spec);
        let others: Vec<_> = lacks
            .iter()
            .filter(|finding| finding.path.rsplit('.').next() != Some("image"))
            .collect();
        assert!(others.is_empty(), "{others:?}");
    }

    #[test]
    fn every_field_of_the_template_of_a_run_exists() {
        let text = template(&args(&[]));
        let run: serde_json::Value = yaml(&put_to_use(parts(&text)[2]));
        let crd = serde_json::to_value(AgentRun::crd()).unwrap();
        let known = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            ["properties"];
        let fields: Vec<&String> = run["spec"].as_object().unwrap().keys().collect();
        assert!(fields.len() > 12, "{fields:?}");
        for field in fields {
            assert!(known.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn an_idea_may_hold_anything() {
        let idea = "say \"hi\": # {a: b}\nand more";
        let text = template(&args(&["game", "--idea", idea, "--sop", "s"]));
        let run: AgentRun = yaml(parts(&text)[2]);
        assert_eq!(run.spec.idea.as_deref(), Some(idea));
        assert_eq!(run.metadata.name.as_deref(), Some("game"));
        assert_eq!(run.spec.sop_ref.name, "s");
    }

    #[test]
    fn a_file_that_is_there_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.yaml");
        let out = file.to_str().unwrap();
        run(&args(&["--out", out])).unwrap();
        let first = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "mine").unwrap();
        let error = run(&args(&["--out", out])).unwrap_err();
        assert!(matches!(error, InitError::Exists(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        run(&args(&["--out", out, "--force"])).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), first);
    }

    #[rstest]
    #[case(&["Game"])]
    #[case(&["--sop", "a b"])]
    #[case(&["--provider", "replay"])]
    fn what_could_not_be_applied_is_refused(#[case] line: &[&str]) {
        let line = ["kubectl-sop", "init"].iter().chain(line);
        assert!(Args::try_parse_from(line).is_err());
    }
}
