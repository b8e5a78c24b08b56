//! How texts get into the project of a run.

use super::overwrite;
use crate::{engine::Engine, llm::Ask, tree::TreeError};

impl Engine {
    /// Why an answer may not replace a file of the project that an incremental run works on, where it may not.
    pub(crate) fn lost(&self, path: &str, ask: &Ask) -> Option<String> {
        self.record.machine.incremental.as_ref()?;
        let base = &self.record.baseline.as_ref()?.tree;
        let told = ask.messages.iter();
        let told = told.filter(|message| message.role != "assistant");
        let told = told.map(|message| message.content.as_str());
        let layout = &self.plan.layout;
        self.tree
            .read(|tree| overwrite::refusal(path, (base, tree), layout, told))
    }

    /// Writes a text file into the project. One that is there keeps its mode, and in an incremental run its line ends.
    pub(crate) fn put(&self, path: &str, text: String) -> Result<(), TreeError> {
        let keeps = self.plan.options.incremental;
        self.tree.write(|tree| {
            let before = tree.get(path).filter(|_| keeps);
            let bytes = overwrite::in_form_of(before, text);
            tree.rewrite(path, bytes).map(drop)
        })
    }
}
