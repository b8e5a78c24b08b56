//! The file of a cassette, and completing a hand-written one with the digests of the requests.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sopwith_crds::contract::cassette::{Cassette, Key, Request};

use crate::llm::replay::{CassetteError, parse};

/// Most bytes of a ConfigMap.
const MAX_CONFIG_MAP_BYTES: usize = 1 << 20;

/// Why a cassette's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CassetteFileError {
    /// It is no YAML.
    #[error("the cassette is no YAML: {0}")]
    Yaml(String),
    /// A part of it is no cassette.
    #[error(transparent)]
    Part(#[from] CassetteError),
    /// It is no longer a ConfigMap.
    #[error(
        "the completed cassette has {0} bytes, a ConfigMap holds {MAX_CONFIG_MAP_BYTES}: split it into several"
    )]
    TooLarge(usize),
}

/// A cassette's file: a ConfigMap, each of whose keys holds a part, or one part alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CassetteFile {
    /// What stands before the parts: comments and the ConfigMap's head. None: one part alone.
    head: Option<String>,
    parts: Vec<(String, String)>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ConfigMap {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl CassetteFile {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self, CassetteFileError> {
        let object: ConfigMap = serde_saphyr::from_str(text)
            .map_err(|error| CassetteFileError::Yaml(error.to_string()))?;
        if object.kind.as_deref() != Some("ConfigMap") {
            return Ok(Self {
                head: None,
                parts: vec![("cassette".to_owned(), text.to_owned())],
            });
        }
        let head: Vec<&str> = text.lines().take_while(|line| *line != "data:").collect();
        Ok(Self {
            head: Some(head.join("\n")),
            parts: object.data.into_iter().collect(),
        })
    }

    /// Its parts: names and texts.
    pub fn parts(&self) -> &[(String, String)] {
        &self.parts
    }

    /// The file with the requests that were asked; also the keys that were never asked for.
    pub fn filled(
        &self,
        requests: &BTreeMap<Key, Request>,
    ) -> Result<(String, BTreeSet<Key>), CassetteFileError> {
        let mut unasked = BTreeSet::new();
        let mut parts = Vec::new();
        for (name, text) in &self.parts {
            let mut cassette: Cassette = parse(name, text)?;
            for interaction in &mut cassette.interactions {
                match requests.get(&interaction.key) {
                    Some(request) => interaction.request = request.clone(),
                    None => {
                        unasked.insert(interaction.key.clone());
                    }
                }
            }
            let text = serde_saphyr::to_string(&cassette)
                .map_err(|error| CassetteFileError::Yaml(error.to_string()))?;
            parts.push((name, text));
        }
        let Some(head) = &self.head else {
            return Ok((parts.into_iter().map(|(_, text)| text).collect(), unasked));
        };
        let mut out = format!("{head}\ndata:\n");
        for (name, text) in parts {
            out.extend(["  ", name, ": |\n"]);
            for line in text.lines() {
                out.push_str(if line.is_empty() { "" } else { "    " });
                out.push_str(line);
                out.push('\n');
            }
        }
        if out.len() > MAX_CONFIG_MAP_BYTES {
            return Err(CassetteFileError::TooLarge(out.len()));
        }
        Ok((out, unasked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sopwith_crds::contract::Digest;

    const FILE: &str = "# By hand.
apiVersion: v1
kind: ConfigMap
metadata:
  name: c
data:
  a.yaml: |
    version: 1
    interactions:
    - key: {step: s, action: x, attempt: 1, turn: 1}
      response:
        content: |
          def f():
              return \"1\"

          # end
    - key: {step: s, action: y, attempt: 1, turn: 1}
      response: {content: \"no\"}
";

    #[test]
    fn requests_are_filled_in_and_answers_stay_as_they_are() {
        let file = CassetteFile::parse(FILE).unwrap();
        let key = Key {
            step: "s".into(),
            action: "x".into(),
            attempt: 1,
            turn: 1,
            ..Key::default()
        };
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "a: b\n\n  - c\n# d\n"}]});
        let request = Request {
            digest: Some(Digest::of_json(&body)),
            body: Some(body),
        };
        let (text, unasked) = file
            .filled(&[(key.clone(), request.clone())].into())
            .unwrap();
        assert!(text.starts_with("# By hand.\napiVersion: v1\n"));
        assert_eq!(unasked.len(), 1);
        let again = CassetteFile::parse(&text).unwrap();
        let cassette = parse("a", &again.parts()[0].1).unwrap();
        assert_eq!(cassette.interactions[0].request, request);
        assert_eq!(
            cassette.interactions[0].response.content.as_deref(),
            Some("def f():\n    return \"1\"\n\n# end\n")
        );
        let (twice, _) = again.filled(&[(key, request)].into()).unwrap();
        assert_eq!(twice, text);
    }
}
