//! Where a project comes from and goes to: in the run, in the policy, and both together.

use super::{Found, text::list};
use crate::{
    AgentRunSpec, ToolPolicySpec,
    contract::Digest,
    delivery::{DeniedPaths, matches_any, pattern},
    repository::{RepositoryUrl, Scheme, UrlMistake, entry_for, is_commit_id, reference_mistake},
    tool_policy::AllowedGit,
};

/// The project of a run by itself.
pub(super) fn of_run(spec: &AgentRunSpec, found: &mut Found) {
    let Some(project) = &spec.project else {
        return;
    };
    if let Some(source) = &project.source {
        let given = [
            source.git.is_some(),
            source.run.is_some(),
            source.upload.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            found.add(
                "spec.project.source",
                "needs exactly one of git, run and upload",
            );
        }
        let upload = source
            .upload
            .as_ref()
            .map(|digest| digest.parse::<Digest>());
        found.add_some(
            "spec.project.source.upload",
            upload.and_then(|parsed| parsed.err().map(|error| error.to_string())),
        );
    }
    let source = project
        .source
        .as_ref()
        .and_then(|source| source.git.as_ref());
    if let Some(git) = source {
        let url: Result<RepositoryUrl, UrlMistake> = git.url.parse();
        let mistake = match url {
            Ok(url) if url.path() == "/" => {
                Some(format!("\"{url}\" names a host; name the repository on it"))
            }
            Ok(_) => None,
            Err(mistake) => Some(mistake.to_string()),
        };
        found.add_some("spec.project.source.git.url", mistake);
        let name = git.reference.as_deref().filter(|name| !is_commit_id(name));
        found.add_some(
            "spec.project.source.git.ref",
            name.and_then(reference_mistake),
        );
    }
    let delivery = project
        .deliver
        .as_ref()
        .and_then(|deliver| deliver.git.as_ref());
    if let Some(delivery) = delivery {
        let path = "spec.project.deliver.git.branch";
        found.add_some(path, branch_mistake(&delivery.branch));
        if source.is_none() {
            found.add(
                "spec.project.deliver.git",
                "names a branch of the source repository, and there is none; name it in spec.project.source.git",
            );
        }
    }
}

fn branch_mistake(branch: &str) -> Option<String> {
    if branch.starts_with("refs/") || branch == "HEAD" {
        return Some(format!(
            "\"{branch}\" is no name of a branch; write it without refs/heads/, for example sopwith/game"
        ));
    }
    reference_mistake(branch)
}

/// The repositories and rules of a policy by themselves.
pub(super) fn of_policy(spec: &ToolPolicySpec, found: &mut Found) {
    let mut seen: Vec<RepositoryUrl> = Vec::new();
    for (index, entry) in spec.git.iter().enumerate() {
        let path = format!("spec.git[{index}]");
        match entry.url.parse::<RepositoryUrl>() {
            Err(mistake) => found.add(format!("{path}.url"), mistake.to_string()),
            Ok(url) => {
                check_entry(&path, entry, &url, found);
                if seen
                    .iter()
                    .any(|other| url.is_within(other) && other.is_within(&url))
                {
                    found.add(
                        format!("{path}.url"),
                        format!("\"{url}\" is there more than once; make one entry of them"),
                    );
                }
                seen.push(url);
            }
        }
        for branch in &entry.branches {
            let mistake = pattern(branch).err().map(|mistake| mistake.to_string());
            found.add_some(format!("{path}.branches[{branch}]"), mistake);
        }
    }
    let rules = spec.deliver.clone().unwrap_or_default();
    for (field, patterns) in [
        ("denyPaths", &rules.deny_paths),
        ("allowPaths", &rules.allow_paths),
    ] {
        for text in patterns {
            let mistake = pattern(text).err().map(|mistake| mistake.to_string());
            found.add_some(format!("spec.deliver.{field}[{text}]"), mistake);
        }
    }
}

fn check_entry(path: &str, entry: &AllowedGit, url: &RepositoryUrl, found: &mut Found) {
    if url.scheme() == Scheme::Https {
        return;
    }
    if entry.secret_ref.is_none() {
        found.add(
            format!("{path}.secretRef"),
            "is not set, and ssh needs a key; name a Secret with the keys ssh-privatekey and known_hosts",
        );
    }
    if entry.ca_ref.is_some() {
        found.add(
            format!("{path}.caRef"),
            "belongs to https; the hosts of ssh are in known_hosts of the Secret",
        );
    }
}

/// What the run asks of repositories and the policy does not allow.
pub(super) fn pairing(run: &AgentRunSpec, policy: &ToolPolicySpec, found: &mut Found) {
    let Some(project) = &run.project else {
        return;
    };
    let source = project
        .source
        .as_ref()
        .and_then(|source| source.git.as_ref());
    let Some(url) = source.and_then(|git| git.url.parse::<RepositoryUrl>().ok()) else {
        return;
    };
    let Some(entry) = entry_for(&policy.git, &url) else {
        let known = list(policy.git.iter().map(|entry| entry.url.as_str()));
        found.add(
            "run:spec.project.source.git.url",
            format!(
                "the policy does not allow the repository \"{url}\"; it allows what begins with: {known}. Add an entry to spec.git of the \
                 policy, with the Secret that opens the repository, or name another repository"
            ),
        );
        return;
    };
    let delivery = project
        .deliver
        .as_ref()
        .and_then(|deliver| deliver.git.as_ref());
    if let Some(branch) = delivery.map(|delivery| delivery.branch.as_str())
        && !matches_any(&entry.branches, branch)
    {
        let known = list(entry.branches.iter().map(String::as_str));
        found.add(
            "run:spec.project.deliver.git.branch",
            format!(
                "the policy does not allow writing branch \"{branch}\" of \"{}\"; it allows: {known}. Name another branch, or add a pattern \
                 to branches of the policy's git entry",
                entry.url
            ),
        );
    }
    let rules = policy.deliver.clone().unwrap_or_default();
    if let Err(mistake) = DeniedPaths::new(&rules.deny_paths, &rules.allow_paths) {
        found.add("policy:spec.deliver", mistake.to_string());
    }
}
