//! Tables of attempts.

use anyhow::{Result, ensure};

/// A table of attempts, each of which must be taken or refused.
pub(crate) struct Attempts {
    title: &'static str,
    taken: usize,
    refused: usize,
    wrong: Vec<String>,
}

impl Attempts {
    /// An empty table.
    pub(crate) const fn new(title: &'static str) -> Self {
        Self {
            title,
            taken: 0,
            refused: 0,
            wrong: Vec::new(),
        }
    }

    /// This must be taken.
    pub(crate) fn taken<T, E: ToString>(&mut self, what: &str, answer: Result<T, E>) {
        self.taken += 1;
        if let Err(error) = answer {
            let error = error.to_string();
            self.wrong
                .push(format!("{what}: should be taken, but: {error}"));
        }
    }

    /// This must be refused with these words.
    pub(crate) fn refused<T, E: ToString>(
        &mut self,
        what: &str,
        answer: Result<T, E>,
        words: &str,
    ) {
        self.refused += 1;
        match answer.map_err(|error| error.to_string()) {
            Ok(_) => self.wrong.push(format!(
                "{what}: taken, but should be refused with: {words}"
            )),
            Err(error) if error.contains(words) => {}
            Err(error) => self.wrong.push(format!(
                "{what}: should be refused with: {words}\n  but: {error}"
            )),
        }
    }

    /// Says how many were tried, and fails where one did not end as it must.
    pub(crate) fn end(self) -> Result<()> {
        let tried = self.taken + self.refused;
        eprintln!(
            "{}: {tried} attempts, {} to be taken, {} to be refused; {} ended otherwise",
            self.title,
            self.taken,
            self.refused,
            self.wrong.len()
        );
        ensure!(
            self.wrong.is_empty(),
            "{}:\n{}",
            self.title,
            self.wrong.join("\n")
        );
        Ok(())
    }
}
