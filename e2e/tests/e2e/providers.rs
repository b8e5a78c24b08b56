//! The runner against a server of models that is not ours, in the forms of OpenAI and Azure.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sopwith_e2e::{
    kubectl::{self, Said},
    litellm::{KEY, LiteLlm},
    repository,
};
use std::{fs, path::Path};

/// An endpoint of the proxy. The key `right` is the one that it takes.
fn endpoint(proxy: &LiteLlm, provider: &str, key: &str, model: &str) -> Value {
    let mut endpoint = json!({
        "name": format!("{provider}-{key}-{model}"),
        "provider": provider,
        "baseUrl": proxy.address,
        "secretRef": {"name": "proxy", "key": key},
        "models": [{"name": model, "aliases": ["strong"], "inputPerMillion": "1", "outputPerMillion": "2"}],
    });
    if provider == "azure" {
        endpoint["apiVersion"] = "2024-10-21".into();
        endpoint["models"][0]["name"] = "whatever".into();
        endpoint["models"][0]["deployment"] = model.into();
    } else {
        endpoint["baseUrl"] = format!("{}/v1", proxy.address).into();
    }
    endpoint
}

/// Runs the fixture's procedure with these endpoints, without a cluster.
async fn run(folder: &Path, endpoints: Vec<Value>) -> Result<Said> {
    fs::create_dir_all(folder.join("secrets/proxy"))?;
    fs::write(folder.join("secrets/proxy/right"), KEY)?;
    fs::write(folder.join("secrets/proxy/wrong"), "sk-e2e-wrong")?;
    let policy = json!({
        "apiVersion": "sopwith.dev/v1alpha1", "kind": "ToolPolicy", "metadata": {"name": "default"},
        "spec": {"llm": endpoints},
    });
    fs::write(folder.join("policy.yaml"), policy.to_string())?;
    let fixtures = repository().join("e2e/fixtures/providers");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut args: Vec<String> = [
        "run",
        "--locked",
        "--quiet",
        "-p",
        "sopwith-runner",
        "--manifest-path",
    ]
    .map(str::to_owned)
    .into();
    args.extend([
        path(repository().join("Cargo.toml")),
        "--".into(),
        "local".into(),
    ]);
    for (flag, value) in [
        ("--sop", fixtures.join("sop.yaml")),
        ("--run", fixtures.join("agentrun.yaml")),
        ("--policy", folder.join("policy.yaml")),
        ("--secrets", folder.join("secrets")),
        ("--out", folder.join("out")),
    ] {
        args.extend([flag.to_owned(), path(value)]);
    }
    let said = kubectl::run(&cargo, args, &[], "").await?;
    ensure!(!said.all().contains(KEY), "the key leaked:\n{}", said.all());
    Ok(said)
}

#[tokio::test]
async fn a_run_is_answered_by_litellms_proxy_and_its_refusals_are_understood() -> Result<()> {
    let proxy = LiteLlm::start().await?;
    let of = |provider: &str, key: &str, model: &str| endpoint(&proxy, provider, key, model);
    let good = || of("openai", "right", "gpt");
    // Name, endpoints, what is said at the end, where it does not succeed.
    let cases: [(&str, Vec<Value>, Option<&str>); 7] = [
        ("openai", vec![good()], None),
        ("azure", vec![of("azure", "right", "gpt")], None),
        (
            "a wrong key",
            vec![of("azure", "wrong", "gpt"), good()],
            None,
        ),
        (
            "too many requests",
            vec![of("openai", "right", "limited"), good()],
            None,
        ),
        (
            "an error of the server",
            vec![of("azure", "right", "broken")],
            Some("HTTP 500"),
        ),
        (
            "no such model",
            vec![of("openai", "right", "none")],
            Some("Invalid model name"),
        ),
        (
            "a window too small",
            vec![of("openai", "right", "short")],
            Some("the question is too long"),
        ),
    ];
    let folder = tempfile::tempdir()?;
    for (name, endpoints, error) in cases {
        let folder = folder.path().join(name);
        let said = run(&folder, endpoints).await?;
        ensure!(
            (said.code == 0) == error.is_none(),
            "{name}: {}",
            said.all()
        );
        if let Some(words) = error {
            ensure!(said.stderr.contains(words), "{name}: {}", said.all());
        } else {
            let greeting = fs::read_to_string(folder.join("out/project/greeting.txt"))?;
            ensure!(greeting == "Hello from the proxy\n", "{name}: {greeting}");
        }
    }
    Ok(())
}
