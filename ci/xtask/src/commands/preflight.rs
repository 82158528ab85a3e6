//! `cargo xtask preflight`: whether the C++ references can be used, and if not, what is missing and the one command that
//! fixes it. Exit codes: 0 all that was asked for is there, 4 something is not.

use super::setup_cpp::{Backends, UNAVAILABLE, backends};
use crate::crossval::Format;
use crate::root::target;
use cpp_sys::{Session, SessionOptions, Workers};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `bitnet`, `llama` or `all`.
    #[arg(long, default_value = "all", value_parser = backends)]
    backend: Backends,
    /// A text for people, or one JSON document.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let workers = Workers::new(&target());
        let (mut text, mut list, mut lacking) = (String::new(), Vec::new(), 0);
        for backend in &self.backend.0 {
            let (name, title) = (backend.name(), backend.title());
            // A program that is there and does not start is not available either: nothing counts that was not tried.
            let found = workers.preflight(*backend).map_err(|missing| (missing.what, missing.command)).and_then(|at| {
                let options = SessionOptions { load_timeout: Duration::from_secs(20), ..SessionOptions::default() };
                let session = Session::start(&at, options).map_err(|error| {
                    (vec![format!("it does not start: {error}")], backend.setup_command().to_owned())
                })?;
                Ok((at, session.hello().clone()))
            });
            match found {
                Ok((installed, hello)) => {
                    let build = &installed.build;
                    let origin = build.origin();
                    text += &format!("{title}: available, {origin} ({} edits)\n", build.edits.len());
                    text += &format!("  {}\n  runs {}\n", installed.program.display(), hello.architectures.join(", "));
                    text += &format!("  {}\n", hello.system.replace('\n', " "));
                    list.push(json!({ "backend": name, "available": true, "program": installed.program,
                        "build": build, "system": hello.system, "architectures": hello.architectures }));
                }
                Err((what, command)) => {
                    lacking += 1;
                    text += &format!("{title}: not available\n");
                    for line in &what {
                        text += &format!("  - {line}\n");
                    }
                    text += &format!("  to fix it: {command}\n");
                    list.push(json!({ "backend": name, "available": false, "missing": what, "command": command }));
                }
            }
        }
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Text => out.write_all(text.as_bytes())?,
            Format::Json => writeln!(out, "{}", json!({ "available": lacking == 0, "backends": list }))?,
        }
        Ok(if lacking == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNAVAILABLE) })
    }
}
