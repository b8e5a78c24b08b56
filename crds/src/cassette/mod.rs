//! The files of cassettes: what a run recorded, and the ConfigMap that a policy names.
//!
//! A ConfigMap holds 1 MiB. What a run recorded is written so that people can read it where it fits, else compressed, and in the
//! end without the requests, which are kept only to show how one differs.

use crate::contract::{
    VERSION,
    cassette::{Cassette, Interaction, Key, Request},
    plan::RunPlan,
};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use k8s_openapi::ByteString;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
};

/// Most bytes of the parts of a ConfigMap; its metadata comes on top.
pub const MAX_CONFIG_MAP_BYTES: usize = 1000 * 1024;
/// Most bytes of a cassette once it is decompressed: what a hostile ConfigMap could cost a runner.
const MAX_PLAIN_BYTES: u64 = 256 << 20;
/// The end of a part's name that is compressed.
const PACKED: &str = ".gz";
/// Name of the part that is written.
const PART: &str = "cassette.yaml";

/// Why a cassette cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CassetteError {
    /// It is not readable.
    #[error("{name}: {message}")]
    Unreadable {
        /// File or key of the ConfigMap.
        name: String,
        /// Why.
        message: String,
    },
    /// Of another version.
    #[error("{name}: version {found} of the shape, this program reads version {VERSION}")]
    Version {
        /// File or key of the ConfigMap.
        name: String,
        /// Its version.
        found: u32,
    },
    /// A key is there twice.
    #[error("{name}: the request {key} is there twice")]
    Twice {
        /// File or key of the ConfigMap.
        name: String,
        /// The key.
        key: Box<Key>,
    },
    /// It is no longer a ConfigMap.
    #[error(
        "the completed cassette has {0} bytes, a ConfigMap holds {MAX_CONFIG_MAP_BYTES}: split it into several"
    )]
    TooLarge(usize),
}

/// Reads one part of a cassette.
pub fn parse(name: &str, text: &str) -> Result<Cassette, CassetteError> {
    let cassette: Cassette =
        serde_saphyr::from_str(text).map_err(|error| unreadable(name, &error))?;
    if cassette.version != VERSION {
        return Err(CassetteError::Version {
            name: name.to_owned(),
            found: cassette.version,
        });
    }
    Ok(cassette)
}

/// The text of a part, decompressed where its name says that it is packed.
pub fn text_of(name: &str, bytes: &[u8]) -> Result<String, CassetteError> {
    let bytes = if name.ends_with(PACKED) {
        unpacked(bytes).map_err(|error| unreadable(name, &error))?
    } else {
        bytes.to_vec()
    };
    String::from_utf8(bytes).map_err(|error| unreadable(name, &error))
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> CassetteError {
    CassetteError::Unreadable {
        name: name.to_owned(),
        message: error.to_string(),
    }
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

fn unpacked(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut reader = GzDecoder::new(bytes).take(MAX_PLAIN_BYTES + 1);
    reader.read_to_end(&mut plain)?;
    if plain.len() as u64 > MAX_PLAIN_BYTES {
        return Err(std::io::Error::other(format!(
            "has more than {MAX_PLAIN_BYTES} bytes decompressed"
        )));
    }
    Ok(plain)
}

/// What was recorded between two snapshots, as a blob: gzip of JSON lines. The same interactions give the same bytes.
pub fn encode(interactions: &[Interaction]) -> std::io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for interaction in interactions {
        serde_json::to_writer(&mut lines, interaction)?;
        lines.push(b'\n');
    }
    packed(&lines)
}

/// Reads what [`encode`] wrote; `name` is for messages.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Vec<Interaction>, CassetteError> {
    let lines = unpacked(bytes).map_err(|error| unreadable(name, &error))?;
    let lines = lines.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|error| unreadable(name, &error)))
        .collect()
}

/// What a run recorded between its snapshots, put together as a ConfigMap named after the run. Of a request that was asked twice the
/// newer answer counts.
pub fn of_run(plan: &RunPlan, parts: Vec<Vec<Interaction>>) -> Result<Written, CassetteError> {
    let mut interactions: Vec<Interaction> = Vec::new();
    for interaction in parts.into_iter().flatten() {
        let known = interactions
            .iter_mut()
            .find(|one| one.key == interaction.key);
        match known {
            Some(known) => *known = interaction,
            None => interactions.push(interaction),
        }
    }
    let (run, sop, policy) = (&plan.run, &plan.sop, &plan.policy);
    let name = format!("{}-cassette", run.name);
    let comment = [
        format!("What the models of run {}/{} were asked and answered. It is as confidential as the run's artifacts.", run.namespace, run.name),
        format!("SopDefinition {} {}", sop.name, sop.revision),
        format!("ToolPolicy {} {}", policy.name, policy.revision),
        "To play the run again: apply this, and in a copy of the policy write for each endpoint, in place of provider, baseUrl,".to_owned(),
        "apiVersion, secretRef, caRef and models[].deployment:".to_owned(),
        format!("    provider: replay\n#     replay: {{cassetteRef: {{name: {name}}}}}"),
    ];
    write(&name, &comment, interactions)
}

/// A recorded cassette as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// A ConfigMap that can be applied as it is.
    pub text: String,
    /// How it holds the cassette.
    pub form: Form,
}

/// How a ConfigMap holds a cassette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As text.
    Readable,
    /// Compressed.
    Packed,
    /// Compressed, the requests by their digests only: a difference is found, but cannot be shown.
    WithoutRequests,
    /// Compressed and without the requests, and still too large for a cluster: `sopwith-runner local` reads it.
    TooLarge,
}

/// Writes what a run recorded as a ConfigMap of this name; `comment` stands above it, a line each.
pub fn write(
    name: &str,
    comment: &[String],
    interactions: Vec<Interaction>,
) -> Result<Written, CassetteError> {
    let mut cassette = Cassette {
        version: VERSION,
        interactions,
    };
    let mut head = String::new();
    for line in comment {
        head.extend(["# ", line, "\n"]);
    }
    head.push_str("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ");
    head.push_str(name);
    let readable = serde_saphyr::to_string(&cassette).ok();
    let plain = |text: &String| text.len() <= MAX_CONFIG_MAP_BYTES && text.chars().all(is_plain);
    if let Some(text) = readable.filter(plain) {
        let text = layout(&head, &[(PART.to_owned(), text)]);
        // What YAML does not keep to the byte is written so that nothing can happen to it.
        let same = CassetteFile::parse(&text).and_then(|file| file.cassette());
        if same.is_ok_and(|same| same == cassette) {
            return Ok(Written {
                text,
                form: Form::Readable,
            });
        }
    }
    let mut form = Form::Packed;
    let mut bytes = as_bytes(&cassette)?;
    if bytes.len() > MAX_CONFIG_MAP_BYTES {
        for interaction in &mut cassette.interactions {
            interaction.request.body = None;
        }
        bytes = as_bytes(&cassette)?;
        form = if bytes.len() > MAX_CONFIG_MAP_BYTES {
            Form::TooLarge
        } else {
            Form::WithoutRequests
        };
    }
    let bytes = serde_json::to_value(ByteString(bytes)).unwrap_or_default();
    let bytes = bytes.as_str().unwrap_or_default();
    Ok(Written {
        text: format!("{head}\nbinaryData:\n  {PART}{PACKED}: {bytes}\n"),
        form,
    })
}

/// Whether every reader of YAML takes a character in a block for what it is.
fn is_plain(c: char) -> bool {
    matches!(c, '\n' | '\t')
        || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'))
}

fn as_bytes(cassette: &Cassette) -> Result<Vec<u8>, CassetteError> {
    let json = serde_json::to_vec(cassette).map_err(|error| unreadable(PART, &error))?;
    packed(&json).map_err(|error| unreadable(PART, &error))
}

/// A ConfigMap's text: what stands above its data, then each part as a block.
fn layout(head: &str, parts: &[(String, String)]) -> String {
    let mut out = format!("{head}\ndata:\n");
    for (name, text) in parts {
        out.extend(["  ", name, ": |\n"]);
        for line in text.lines() {
            out.push_str(if line.is_empty() { "" } else { "    " });
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// A cassette's file: a ConfigMap, each of whose keys holds a part, or one part alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CassetteFile {
    /// What stands before the parts: comments and the ConfigMap's head. None: one part alone.
    head: Option<String>,
    parts: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    binary_data: BTreeMap<String, ByteString>,
}

impl CassetteFile {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self, CassetteError> {
        let object: ConfigMap =
            serde_saphyr::from_str(text).map_err(|error| unreadable("the cassette", &error))?;
        if object.kind.as_deref() != Some("ConfigMap") {
            return Ok(Self {
                head: None,
                parts: vec![("cassette".to_owned(), text.to_owned())],
            });
        }
        let is_head = |line: &&str| *line != "data:" && *line != "binaryData:";
        let head: Vec<&str> = text.lines().take_while(is_head).collect();
        let mut parts: BTreeMap<String, String> = object.data;
        for (name, bytes) in object.binary_data {
            let text = text_of(&name, &bytes.0)?;
            parts.insert(name, text);
        }
        Ok(Self {
            head: Some(head.join("\n")),
            parts: parts.into_iter().collect(),
        })
    }

    /// Its parts: names and texts.
    pub fn parts(&self) -> &[(String, String)] {
        &self.parts
    }

    /// All its parts together.
    pub fn cassette(&self) -> Result<Cassette, CassetteError> {
        let parts = self.parts.iter();
        let parts: Result<Vec<Cassette>, CassetteError> =
            parts.map(|(name, text)| parse(name, text)).collect();
        Ok(Cassette {
            version: VERSION,
            interactions: parts?
                .into_iter()
                .flat_map(|part| part.interactions)
                .collect(),
        })
    }

    /// The file with what a run recorded in place of what it held, what is new at its end; also the keys that were never asked for.
    pub fn recorded(
        &self,
        recorded: &[Interaction],
    ) -> Result<(String, BTreeSet<Key>), CassetteError> {
        let mut fresh: BTreeMap<&Key, &Interaction> =
            recorded.iter().map(|one| (&one.key, one)).collect();
        let mut unasked = BTreeSet::new();
        let mut parts = Vec::new();
        for (name, text) in &self.parts {
            let mut cassette = parse(name, text)?;
            cassette.interactions.retain_mut(|one| {
                let recorded = fresh.remove(&one.key);
                match recorded {
                    Some(recorded) => one.clone_from(recorded),
                    None => drop(unasked.insert(one.key.clone())),
                }
                recorded.is_some()
            });
            parts.push((name.clone(), cassette));
        }
        let new = recorded.iter().filter(|one| fresh.contains_key(&one.key));
        if let Some((_, last)) = parts.last_mut() {
            last.interactions.extend(new.cloned());
        }
        Ok((self.laid_out(parts)?, unasked))
    }

    /// The file with the requests that were asked; also the keys that were never asked for.
    pub fn filled(
        &self,
        requests: &BTreeMap<Key, Request>,
    ) -> Result<(String, BTreeSet<Key>), CassetteError> {
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
            parts.push((name.clone(), cassette));
        }
        Ok((self.laid_out(parts)?, unasked))
    }

    fn laid_out(&self, parts: Vec<(String, Cassette)>) -> Result<String, CassetteError> {
        let mut texts = Vec::new();
        for (name, cassette) in parts {
            let text =
                serde_saphyr::to_string(&cassette).map_err(|error| unreadable(&name, &error))?;
            let name = name.strip_suffix(PACKED).unwrap_or(&name).to_owned();
            texts.push((name, text));
        }
        let Some(head) = &self.head else {
            return Ok(texts.into_iter().map(|(_, text)| text).collect());
        };
        let out = layout(head, &texts);
        if out.len() > MAX_CONFIG_MAP_BYTES {
            return Err(CassetteError::TooLarge(out.len()));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
