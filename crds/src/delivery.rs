//! Which paths of a repository a delivery may not touch. Pure.

use globset::{GlobBuilder, GlobMatcher};

/// Paths that are denied unless a policy allows them: what runs with other rights than the code itself (definitions of
/// pipelines), what says who must review (CODEOWNERS), and what pulls in other repositories (submodules).
pub const DENIED: [&str; 32] = [
    "**/CODEOWNERS",
    "**/.gitmodules",
    "**/Jenkinsfile*",
    "**/azure-pipelines*.{yml,yaml}",
    "**/buildspec*.{yml,yaml}",
    "**/cloudbuild*.{yml,yaml}",
    ".appveyor.yml",
    ".azure-devops/**",
    ".azure-pipelines/**",
    ".azuredevops/**",
    ".buildkite/**",
    ".circleci/**",
    ".cirrus.{star,yml}",
    ".drone.{jsonnet,star,yml}",
    ".forgejo/**",
    ".gitea/**",
    ".github/actions/**",
    ".github/workflows/**",
    ".gitlab-ci.{yml,yaml}",
    ".gitlab/**",
    ".jenkins/**",
    ".prow/**",
    ".prow.yaml",
    ".semaphore/**",
    ".teamcity/**",
    ".tekton/**",
    ".travis.yml",
    ".woodpecker.{yml,yaml}",
    ".woodpecker/**",
    "appveyor.yml",
    "bitbucket-pipelines.yml",
    "codefresh.yml",
];

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{pattern}\" is no pattern: {message}; in it `*` stops at a slash and `**` does not")]
pub struct PatternMistake {
    /// The pattern.
    pub pattern: String,
    /// Why.
    pub message: String,
}

/// A pattern in which `*` stops at a slash and `**` does not.
pub fn pattern(text: &str) -> Result<GlobMatcher, PatternMistake> {
    compiled(text, false)
}

fn compiled(text: &str, any_case: bool) -> Result<GlobMatcher, PatternMistake> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .case_insensitive(any_case)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| PatternMistake {
            pattern: text.to_owned(),
            message: error.kind().to_string(),
        })
}

/// Whether one of the patterns matches. A pattern that is none matches nothing.
pub fn matches_any(patterns: &[String], text: &str) -> bool {
    let mut matchers = patterns.iter().filter_map(|text| pattern(text).ok());
    matchers.any(|matcher| matcher.is_match(text))
}

/// What a delivery may not touch.
#[derive(Clone, Debug)]
pub struct DeniedPaths {
    denied: Vec<(String, GlobMatcher)>,
    allowed: Vec<GlobMatcher>,
}

impl DeniedPaths {
    /// [`DENIED`] and `more`, but for what is `allowed`.
    pub fn new(more: &[String], allowed: &[String]) -> Result<Self, PatternMistake> {
        let denied = DENIED
            .into_iter()
            .chain(more.iter().map(String::as_str))
            // Some file systems take `.GitHub` for `.github`.
            .map(|text| Ok((text.to_owned(), compiled(text, true)?)));
        Ok(Self {
            denied: denied.collect::<Result<_, _>>()?,
            allowed: allowed
                .iter()
                .map(|text| pattern(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The pattern that denies a path, if it is denied.
    pub fn denying(&self, path: &str) -> Option<&str> {
        if self.allowed.iter().any(|matcher| matcher.is_match(path)) {
            return None;
        }
        let mut denied = self.denied.iter();
        denied
            .find(|(_, matcher)| matcher.is_match(path))
            .map(|(text, _)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_owners_and_submodules_are_denied() {
        let denied = DeniedPaths::new(&[], &[]).unwrap();
        for path in [
            ".github/workflows/ci.yml",
            ".GitHub/Workflows/CI.yml",
            ".github/actions/x/action.yml",
            ".gitlab-ci.yml",
            ".gitlab/ci/build.yml",
            "Jenkinsfile",
            "services/api/Jenkinsfile.release",
            ".circleci/config.yml",
            "azure-pipelines.yml",
            "build/azure-pipelines-nightly.yaml",
            ".travis.yml",
            "CODEOWNERS",
            "docs/CODEOWNERS",
            ".gitmodules",
            "bitbucket-pipelines.yml",
            ".drone.yml",
            ".woodpecker/build.yaml",
            ".tekton/push.yaml",
        ] {
            assert!(denied.denying(path).is_some(), "{path}");
        }
        for path in [
            "src/main.py",
            "docs/codeowners.md",
            ".github/ISSUE_TEMPLATE/bug.md",
            "workflows/ci.yml",
            "gitmodules",
            ".gitignore",
        ] {
            assert_eq!(denied.denying(path), None, "{path}");
        }
    }

    #[test]
    fn a_policy_denies_more_and_allows_by_name() {
        let denied = DeniedPaths::new(
            &["deploy/**".into(), "*.pem".into()],
            &[
                ".github/workflows/docs.yml".into(),
                "deploy/notes.md".into(),
            ],
        )
        .unwrap();
        assert_eq!(denied.denying("deploy/prod.yaml"), Some("deploy/**"));
        assert_eq!(denied.denying("key.pem"), Some("*.pem"));
        assert_eq!(denied.denying("keys/key.pem"), None);
        assert_eq!(denied.denying("deploy/notes.md"), None);
        assert_eq!(denied.denying(".github/workflows/docs.yml"), None);
        assert_eq!(
            denied.denying(".github/workflows/ci.yml"),
            Some(".github/workflows/**")
        );
        let mistake = DeniedPaths::new(&["[".into()], &[]).unwrap_err();
        assert!(
            mistake.to_string().contains("\"[\" is no pattern"),
            "{mistake}"
        );
    }

    #[test]
    fn a_star_in_a_branch_stops_at_a_slash() {
        let patterns = ["sopwith/*".to_owned(), "[".to_owned()];
        assert!(matches_any(&patterns, "sopwith/game"));
        assert!(!matches_any(&patterns, "sopwith/a/b"));
        assert!(!matches_any(&patterns, "main"));
        assert!(matches_any(&["**".into()], "a/b"));
        assert!(!matches_any(&[], "a"));
    }
}
