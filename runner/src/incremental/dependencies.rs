//! The list of which file of the project was made from which, and of how the last run left each of them. Pure but for what the
//! engine books.
//!
//! It has the form that MetaGPT reads and writes, `{PATH: [PATH]}`, and one member more, whose name no path can have:
//! `{"/sopwith": {"version": 1, "digest": …, "files": {PATH: DIGEST}}}`. Each file has a line of its own in either, so that a
//! change of one is a change of few lines. The digest is that of all that the list says: what somebody edited is not believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sopwith_crds::{
    contract::{Digest, VERSION},
    places::{DEPENDENCIES, Keeper, keeper},
    sop_definition::Work,
};

use crate::{attempt::Spot, engine::Engine, tree::Tree};

/// The member that MetaGPT does not know.
const OWN: &str = "/sopwith";
/// Most files that one is said to be made from.
const MOST: usize = 100;

/// What is known of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its content, as the last run left it; none where another program wrote the list.
    pub digest: Option<Digest>,
    /// The files that it was made from.
    pub depends_on: BTreeSet<String>,
}

/// The files of a project by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies(pub BTreeMap<String, Entry>);

/// What a list says, and whether it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It is not there.
    Missing,
    /// It is as it was written.
    Known(Dependencies),
    /// Somebody edited it, or it never was such a list.
    Edited,
}

/// What only Sopwith says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    version: u32,
    digest: Digest,
    files: BTreeMap<String, Digest>,
}

/// What was written in this run, each file with what it was made from.
pub type Made = BTreeMap<String, BTreeSet<String>>;

impl Dependencies {
    /// Reads a list.
    pub fn read(bytes: Option<&[u8]>) -> Read {
        let Some(bytes) = bytes else {
            return Read::Missing;
        };
        Self::parsed(bytes).map_or(Read::Edited, Read::Known)
    }

    /// The list that is in a project; an empty one where there is none to be believed.
    pub fn in_project(tree: &Tree, path: &str) -> Self {
        match Self::read(tree.get(path).map(|file| &*file.bytes)) {
            Read::Known(list) => list,
            Read::Missing | Read::Edited => Self::default(),
        }
    }

    fn parsed(bytes: &[u8]) -> Option<Self> {
        let mut members: BTreeMap<String, Value> = serde_json::from_slice(bytes).ok()?;
        let own = members.remove(OWN);
        let mut list = Self::default();
        for (path, value) in members {
            let depends_on = serde_json::from_value(value).ok()?;
            list.0.insert(
                path,
                Entry {
                    digest: None,
                    depends_on,
                },
            );
        }
        let Some(own) = own else {
            return Some(list);
        };
        let own: Own = serde_json::from_value(own).ok()?;
        for (path, digest) in own.files {
            list.0.entry(path).or_default().digest = Some(digest);
        }
        (own.version == VERSION && own.digest == list.digest()).then_some(list)
    }

    /// Whether it says how the last run left files.
    pub fn knows(&self) -> bool {
        self.0.values().any(|entry| entry.digest.is_some())
    }

    /// The text of a list.
    pub fn text(&self) -> String {
        let mut text = "{\n".to_owned();
        for (path, depends_on) in self.depending() {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "  {}: {},", json(path), json(depends_on));
        }
        let files: Vec<String> = self
            .files()
            .map(|(path, digest)| format!("      {}: {}", json(path), json(digest)))
            .collect();
        let (own, digest, files) = (json(&OWN), json(&self.digest()), files.join(",\n"));
        let _ = write!(
            text,
            "  {own}: {{\n    \"version\": {VERSION},\n    \"digest\": {digest},\n    \"files\": {{\n{files}\n    }}\n  }}\n}}\n"
        );
        text
    }

    fn depending(&self) -> impl Iterator<Item = (&String, &BTreeSet<String>)> {
        let entries = self.0.iter().map(|(path, entry)| (path, &entry.depends_on));
        entries.filter(|(_, depends_on)| !depends_on.is_empty())
    }

    fn files(&self) -> impl Iterator<Item = (&String, &Digest)> {
        let entries = self.0.iter();
        entries.filter_map(|(path, entry)| Some((path, entry.digest.as_ref()?)))
    }

    /// Digest of all that it says.
    fn digest(&self) -> Digest {
        let depending: BTreeMap<_, _> = self.depending().collect();
        let files: BTreeMap<_, _> = self.files().collect();
        Digest::of_json(&(depending, files))
    }

    /// The list for a tree. What this run made depends on what it made it from, beside what it depended on before. What is of
    /// one run only, and what the system keeps, is not in it.
    ///
    /// A derived file that this run did not make keeps its line: where people edited it, that is seen again until it is derived
    /// anew.
    #[must_use]
    pub fn of(&self, tree: &Tree, layout: &BTreeMap<String, String>, made: &Made) -> Self {
        let mut list = Self::default();
        let knows = self.knows();
        let as_it_was =
            |path: &str| knows && keeper(layout, path) == Keeper::Steps && !made.contains_key(path);
        for (path, file) in tree.iter() {
            if !listed(layout, path) {
                continue;
            }
            let before = self.0.get(path);
            if as_it_was(path) {
                continue;
            }
            let earlier = before.into_iter().flat_map(|entry| &entry.depends_on);
            let now = made.get(path).into_iter().flatten();
            let there = |from: &&String| tree.get(from).is_some() && listed(layout, from);
            let entry = Entry {
                digest: Some(Digest::of(&file.bytes)),
                depends_on: now.chain(earlier).filter(there).cloned().collect(),
            };
            list.0.insert(path.to_owned(), entry);
        }
        let kept = self.0.iter().filter(|(path, _)| as_it_was(path));
        list.0
            .extend(kept.map(|(path, entry)| (path.clone(), entry.clone())));
        list
    }
}

/// Whether a file is in the list.
fn listed(layout: &BTreeMap<String, String>, path: &str) -> bool {
    matches!(keeper(layout, path), Keeper::People | Keeper::Steps)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The files of the project that an item of a loop names, anywhere in it.
fn named(item: &Value, tree: &Tree) -> BTreeSet<String> {
    fn walk(value: &Value, tree: &Tree, found: &mut BTreeSet<String>) {
        match value {
            Value::String(text) if tree.get(text).is_some() => {
                found.insert(text.clone());
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, tree, found)),
            Value::Object(fields) => fields.values().for_each(|value| walk(value, tree, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(item, tree, &mut found);
    found
}

impl Engine {
    /// Whether this run keeps the list: an incremental one does, and any whose project has one, since it would be wrong after it.
    fn keeps_list(&self) -> bool {
        let path = self.plan.layout.get(DEPENDENCIES);
        self.plan.options.incremental
            || path.is_some_and(|path| self.tree.read(|tree| tree.get(path).is_some()))
    }

    /// Books what an action wrote, and from what: the inputs of its step, the artifacts that its templates name, the files that
    /// they read, and those that the item at hand names.
    pub(crate) fn made<'a>(
        &mut self,
        spot: Spot<'_>,
        work: &Work,
        wrote: impl Iterator<Item = &'a String>,
    ) {
        let read = self.tree.take_read();
        let mut wrote = wrote.peekable();
        if wrote.peek().is_none() || !self.keeps_list() {
            return;
        }
        let mut artifacts: BTreeSet<&str> = spot
            .step
            .inputs
            .iter()
            .map(|input| input.artifact.as_str())
            .collect();
        let templates = work.prompt.iter().map(|prompt| &prompt.template);
        let templates = templates.chain(work.render.iter().map(|render| &render.template));
        let references: Vec<String> = templates
            .flat_map(|name| self.templates.references(name).into_values().flatten())
            .collect();
        let in_template = references.iter().filter_map(|reference| {
            let rest = reference.strip_prefix("artifacts.")?;
            rest.split('.').next()
        });
        artifacts.extend(in_template);
        let places = self.places.iter();
        let places = places.filter(|place| artifacts.contains(place.name.as_str()));
        let item = spot.lap.and_then(|lap| lap.item);
        let from = self.tree.read(|tree| {
            let mut from = read;
            // A pattern that is none was told when the plan was made.
            from.extend(places.flat_map(|place| place.paths(tree).unwrap_or_default()));
            from.extend(item.into_iter().flat_map(|item| named(item.value, tree)));
            from
        });
        for path in wrote {
            let made = self.record.machine.made.entry(path.clone()).or_default();
            let room = MOST.saturating_sub(made.len());
            let others = from.iter().filter(|from| *from != path);
            made.extend(others.take(room).cloned().collect::<Vec<_>>());
        }
    }

    /// Books files that tools wrote, whatever becomes of the action that called them.
    pub(crate) fn made_by_tools(&mut self, wrote: &[String]) {
        if self.keeps_list() {
            let made = &mut self.record.machine.made;
            for path in wrote {
                made.entry(path.clone()).or_default();
            }
        }
    }

    /// Writes the list anew, where this run keeps one: before every commit and snapshot.
    pub(crate) fn keep_list(&self) {
        if !self.keeps_list() {
            return;
        }
        let layout = &self.plan.layout;
        let Some(path) = layout.get(DEPENDENCIES) else {
            return;
        };
        let made = &self.record.machine.made;
        let written = self.tree.write(|tree| {
            let list = Dependencies::in_project(tree, path).of(tree, layout, made);
            tree.write(path, list.text().into(), false)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the list of dependencies stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::of as tree;
    use serde_json::json;
    use sopwith_crds::check::defaults;

    fn layout() -> BTreeMap<String, String> {
        defaults::layout(&BTreeMap::new(), "game")
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    fn made(path: &str, from: &[&str]) -> Made {
        Made::from([(path.to_owned(), set(from))])
    }

    fn paths(list: &Dependencies) -> Vec<&str> {
        list.0.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_list_names_what_each_file_was_made_from_and_keeps_what_it_knew() {
        let first = tree(&[
            ("docs/prds/a.md", "a"),
            ("game/a.py", "x"),
            ("tmp/x", "x"),
            ("docs/requirement.txt", "r"),
        ]);
        let from = ["docs/prds/a.md", "docs/requirement.txt", "gone.md"];
        let list = Dependencies::default().of(&first, &layout(), &made("game/a.py", &from));
        assert_eq!(paths(&list), ["docs/prds/a.md", "game/a.py"]);
        assert_eq!(list.0["game/a.py"].depends_on, set(&["docs/prds/a.md"]));
        let second = tree(&[
            ("docs/prds/a.md", "a"),
            ("game/a.py", "y"),
            ("game/b.py", "z"),
        ]);
        let next = list.of(&second, &layout(), &made("game/b.py", &["game/a.py"]));
        assert_eq!(paths(&next), ["docs/prds/a.md", "game/a.py", "game/b.py"]);
        assert_eq!(next.0["game/a.py"].depends_on, set(&["docs/prds/a.md"]));
        assert_eq!(next.0["game/b.py"].depends_on, set(&["game/a.py"]));
        assert_ne!(next.0["game/a.py"].digest, list.0["game/a.py"].digest);
    }

    #[test]
    fn an_edited_derived_file_is_not_taken_for_what_steps_left_until_they_make_it_again() {
        let (path, other) = ("resources/prd/a.json", "resources/prd/b.json");
        let left = tree(&[(path, "derived"), ("game/a.py", "x")]);
        let list = Dependencies::default().of(&left, &layout(), &Made::new());
        let edited = tree(&[(path, "by hand"), (other, "by hand"), ("game/a.py", "y")]);
        let next = list.of(&edited, &layout(), &Made::new());
        assert_eq!(next.0[path], list.0[path]);
        assert_eq!(paths(&next), ["game/a.py", path]);
        let gone = list.of(&tree(&[]), &layout(), &Made::new());
        assert_eq!(paths(&gone), [path]);
        let again = list.of(&edited, &layout(), &made(path, &[]));
        assert_ne!(again.0[path], list.0[path]);
        let removed = list.of(&tree(&[]), &layout(), &made(path, &[]));
        assert_eq!(removed, Dependencies::default());
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_no_edit_is_believed() {
        let tree = tree(&[("game/a.py", "x"), ("game/ünï \"b\".py", "y")]);
        let made = made("game/a.py", &["game/ünï \"b\".py"]);
        let list = Dependencies::default().of(&tree, &layout(), &made);
        let text = list.text();
        assert_eq!(text.lines().count(), 11, "{text}");
        assert_eq!(Dependencies::read(Some(text.as_bytes())), Read::Known(list));
        for edited in [
            text.replace("a.py", "c.py").as_str(),
            "",
            "[]",
            "{\"a\": 1}",
            "{\"/sopwith\": {}}",
            &text.replace("\"version\": 1", "\"version\": 2"),
            &text.replace("{\n  \"game", "{\n  \"x\": [\"y\"],\n  \"game"),
        ] {
            assert_eq!(
                Dependencies::read(Some(edited.as_bytes())),
                Read::Edited,
                "{edited}"
            );
        }
        assert_eq!(Dependencies::read(None), Read::Missing);
        let none = Dependencies::default();
        let empty = none.text();
        assert_eq!(
            Dependencies::read(Some(empty.as_bytes())),
            Read::Known(none)
        );
    }

    #[test]
    fn metagpt_finds_its_own_form_and_its_lists_are_read() {
        let tree = tree(&[("docs/prds/a.md", "x"), ("game/a.py", "y")]);
        let made = made("game/a.py", &["docs/prds/a.md"]);
        let text = Dependencies::default().of(&tree, &layout(), &made).text();
        // DependencyFile.get: the list under the path, an empty one where there is none.
        let theirs: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(theirs["game/a.py"], json!(["docs/prds/a.md"]));
        assert_eq!(theirs.get("docs/prds/a.md"), None);

        let theirs = r#"{"docs/system_designs/a.json": ["docs/prds/a.json"], "game/a.py": []}"#;
        let Read::Known(list) = Dependencies::read(Some(theirs.as_bytes())) else {
            panic!("not read");
        };
        let entry = &list.0["docs/system_designs/a.json"];
        assert_eq!(entry.depends_on, set(&["docs/prds/a.json"]));
        assert!(!list.knows());
    }

    #[test]
    fn an_item_names_files_wherever_they_stand_in_it() {
        let tree = tree(&[("a.py", ""), ("b.py", ""), ("c.py", "")]);
        let item =
            json!({"path": "a.py", "needs": ["b.py", {"also": "c.py"}], "what": "not a file"});
        assert_eq!(named(&item, &tree), set(&["a.py", "b.py", "c.py"]));
        assert_eq!(named(&json!("b.py"), &tree), set(&["b.py"]));
        assert_eq!(named(&json!(4), &tree), set(&[]));
    }
}
