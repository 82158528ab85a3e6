//! Where lines come from: an editor on a terminal, or a pipe; and what Ctrl-C means in between.
//!
//! While an answer is made, Ctrl-C ends the answer. Otherwise it empties the line that is typed, and ends a program that waits
//! for a pipe, as it ends any other.

use crate::output::say;
use anyhow::Context;
use rustyline::config::{Behavior, Config};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Line(String),
    /// A line that cannot be taken, and why.
    Wrong(String),
    End,
    /// The source cannot be read any more, and why.
    Broken(String),
    Interrupted,
}

/// Ctrl-C.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    cancel: Arc<AtomicBool>,
    answering: Arc<AtomicBool>,
}

impl Interrupt {
    /// The flag that ends an answer.
    pub(super) fn cancel(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Ends the answer.
    pub(super) fn stop(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// An answer begins or is over.
    pub(super) fn answering(&self, yes: bool) {
        self.cancel.store(false, Ordering::Relaxed);
        self.answering.store(yes, Ordering::Relaxed);
    }
}

/// A source of lines.
pub(super) enum Input {
    Terminal(Box<rustyline::Editor<(), MemHistory>>),
    Pipe(Receiver<Next>),
}

impl Input {
    /// The process's stdin. From now on Ctrl-C is `interrupt`'s.
    pub(super) fn open(interrupt: &Interrupt) -> anyhow::Result<Self> {
        // One place: a line that nobody waits for yet stays where it is, and Ctrl-C comes first where somebody does.
        let (sender, receiver) = sync_channel(1);
        let (flags, to) = (interrupt.clone(), sender.clone());
        let caught = ctrlc::set_handler(move || {
            if flags.answering.load(Ordering::Relaxed) {
                flags.stop();
            } else {
                // A full channel is not waited for; without a receiver the editor has the terminal.
                let _ = to.try_send(Next::Interrupted);
            }
        });
        caught.context("cannot catch Ctrl-C")?;
        if std::io::stdin().is_terminal() {
            // The terminal itself: stdout may be a file, and is for answers. The editor lives as long as the program and has
            // the feature `buffer-redux`: what was typed ahead is kept from line to line.
            let config = Config::builder().behavior(Behavior::PreferTerm).auto_add_history(true).build();
            let editor = rustyline::Editor::with_history(config, MemHistory::new());
            return Ok(Self::Terminal(Box::new(editor.context("cannot use the terminal")?)));
        }
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || read(&sender))
            .context("cannot start a thread")?;
        Ok(Self::Pipe(receiver))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Waits for a line.
    pub(super) fn next(&mut self) -> Next {
        match self {
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => Next::Line(line),
                Err(ReadlineError::Interrupted) => Next::Interrupted,
                Err(ReadlineError::Signal(_)) => Next::Line(String::new()),
                Err(ReadlineError::Eof) => Next::End,
                // The editor drops what it has read with the byte; it says nothing of where it was.
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                    // The cursor is behind the line that was typed.
                    say("");
                    Next::Wrong("what was typed is not UTF-8; it is dropped, type it again".to_owned())
                }
                // What cannot be read once cannot be read again.
                Err(error) => Next::Broken(format!("cannot read the terminal: {error}")),
            },
            Self::Pipe(receiver) => receiver.recv().unwrap_or(Next::End),
        }
    }
}

/// Sends the lines of stdin, without their ends.
fn read(to: &SyncSender<Next>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let next = match stdin.read_until(b'\n', &mut line) {
            Ok(0) => return drop(to.send(Next::End)),
            Ok(_) => match String::from_utf8(line) {
                Ok(line) => Next::Line(line.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Next::Wrong(format!("a line is not UTF-8: {}", error.utf8_error())),
            },
            Err(error) => {
                return drop(to.send(Next::Broken(format!("cannot read stdin: {error}"))));
            }
        };
        if to.send(next).is_err() {
            return;
        }
    }
}
