//! The line editor: history, completion and hints.

use std::borrow::Cow;
use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context, Helper};

use super::asked::holds_password;
use super::catalog::Catalog;
use super::failure::Failure;

/// Lines kept in the history file.
const HISTORY: usize = 1000;

/// In the home directory; rustyline creates it readable by its owner only.
const HISTORY_FILE: &str = ".chronos_history";

/// What a person did at the prompt.
pub(crate) enum Typed {
    Text(String),
    /// Ctrl-C: the line is dropped.
    Nothing,
    /// Ctrl-D.
    End,
}

pub(crate) struct Editor {
    lines: rustyline::Editor<Comfort, FileHistory>,
    file: Option<PathBuf>,
}

impl Editor {
    pub(crate) fn new() -> Result<Editor, Failure> {
        let config = Config::builder().completion_type(CompletionType::List).history_ignore_space(true);
        let config = config.max_history_size(HISTORY).map_err(failure)?.build();
        let mut lines = rustyline::Editor::with_config(config).map_err(failure)?;
        lines.set_helper(Some(Comfort { catalog: Catalog::default() }));
        let file = std::env::home_dir().map(|home| home.join(HISTORY_FILE));
        if let Some(file) = &file {
            // None yet, or one that cannot be read: a prompt without history is still a prompt.
            let _ = lines.load_history(file);
        }
        Ok(Editor { lines, file })
    }

    pub(crate) fn set_catalog(&mut self, catalog: Catalog) {
        self.lines.set_helper(Some(Comfort { catalog }));
    }

    pub(crate) fn catalog(&self) -> Option<&Catalog> {
        self.lines.helper().map(|comfort| &comfort.catalog)
    }

    pub(crate) fn read(&mut self, prompt: &str) -> Result<Typed, Failure> {
        match self.lines.readline(prompt) {
            Ok(text) => {
                self.remember(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(failure(error)),
        }
    }

    /// Kept at once, not at the end: a prompt may end in many ways.
    fn remember(&mut self, text: &str) {
        if text.trim().is_empty() || text.lines().any(holds_password) {
            return;
        }
        let added = self.lines.add_history_entry(text).unwrap_or(false);
        if let (true, Some(file)) = (added, &self.file) {
            // A full disk or a read-only home is no reason to stop talking to the server.
            let _ = self.lines.append_history(file);
        }
    }
}

fn failure(error: ReadlineError) -> Failure {
    match error {
        ReadlineError::Io(error) => Failure::Input(error),
        other => Failure::Input(std::io::Error::other(other.to_string())),
    }
}

/// What the editor asks while a line is typed.
struct Comfort {
    catalog: Catalog,
}

impl Completer for Comfort {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let mut start = line.len() - line.trim_start().len();
        let first_word = line[start..].split(' ').next().unwrap_or_default();
        if first_word.eq_ignore_ascii_case("help") && at > start + first_word.len() {
            start += first_word.len() + 1;
        }
        let names = self.catalog.completions(line.get(start..at).unwrap_or_default());
        Ok((start, names.into_iter().map(|name| Pair { replacement: format!("{name} "), display: name }).collect()))
    }
}

/// Shown, never inserted: the names of arguments are no arguments.
struct Arguments(String);

impl Hint for Arguments {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Comfort {
    type Hint = Arguments;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<Arguments> {
        if at < line.len() {
            return None;
        }
        let missing = self.catalog.missing_arguments(line)?;
        let blank = if line.ends_with(' ') { "" } else { " " };
        Some(Arguments(format!("{blank}{missing}")))
    }
}

impl Highlighter for Comfort {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl rustyline::validate::Validator for Comfort {}
impl Helper for Comfort {}
