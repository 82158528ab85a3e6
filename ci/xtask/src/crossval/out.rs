//! The one way out: receipt, text or JSON, exit code.

use super::Done;
use bitnet_harness::crossval::report::{SCHEMA, Verdict};
use bitnet_harness::crossval::text::{Metric, Style, render};
use bitnet_harness::crossval::{Receipt, Section};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// How results are printed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OutArgs {
    /// Output; the exit code is the same.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Figures in the table, joined by commas (cosine, l2, max_abs, kl, top_k, gap); the verdict always looks at all.
    #[arg(long, value_name = "LIST", default_value = "cosine,max_abs,kl", value_parser = metric, value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// Print our token ids on stderr.
    #[arg(long)]
    dump_ids: bool,
    /// Print the reference's token ids on stderr.
    #[arg(long)]
    dump_cpp_ids: bool,
}

fn metric(name: &str) -> Result<Metric, String> {
    let known = || Metric::ALL.map(Metric::name).join(", ");
    Metric::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| format!("there are {}", known()))
}

/// Writes the receipt, prints the report, and exits as it says.
///
/// # Errors
/// The receipt cannot be written.
pub(crate) fn finish(done: &Done, args: &OutArgs, receipt: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Done { report, data, ours } = done;
    if let Some(path) = receipt {
        let mut data = data.clone();
        data.resize(report.prompts.len(), None);
        Receipt::new(report.clone(), &data).write(path)?;
        let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
        eprintln!(
            "wrote {} ({bytes} bytes); `cargo xtask receipt verify {}` checks it",
            path.display(),
            path.display()
        );
    }
    for prompt in &report.prompts {
        let Section::Ran(tokens) = &prompt.tokens else { continue };
        for (wanted, name, ids) in
            [(args.dump_ids, "ours", &tokens.ours), (args.dump_cpp_ids, "reference", &tokens.reference)]
        {
            if wanted {
                eprintln!("{name} ids of {:?}: {ids:?}", prompt.prompt.text);
            }
        }
    }
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
        Format::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            let piece = |id| ours.piece(id);
            render(report, &Style { colour, metrics: &args.metrics, piece: &piece })
        }
    };
    print(&text)?;
    Ok(ExitCode::from(report.exit_code))
}

/// Prints; a reader that closed the pipe has what it wanted, and the exit code stays the verdict's.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// An error of usage: exit 3, and a document of its own in JSON.
pub(crate) fn report_usage(
    command: &str,
    format: Format,
    result: anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let error = match result {
        Ok(code) => return Ok(code),
        Err(error) => error,
    };
    let reason = bitnet_cli::with_causes(&error);
    eprintln!("error: {reason}");
    let code = Verdict::Usage.exit_code();
    if format == Format::Json {
        print_usage(command, code, &reason)?;
    }
    Ok(ExitCode::from(code))
}

/// The document of a command that was used wrongly, on stdout.
pub(crate) fn print_usage(command: &str, exit_code: u8, reason: &str) -> anyhow::Result<()> {
    let verdict = Verdict::Usage;
    let document =
        json!({ "schema": SCHEMA, "command": command, "verdict": verdict, "exit_code": exit_code, "reason": reason });
    print(&(serde_json::to_string_pretty(&document)? + "\n"))
}

/// Where a receipt goes by default.
pub(crate) fn default_receipt(model: &Path) -> PathBuf {
    let name = model.file_stem().unwrap_or_default().to_string_lossy();
    crate::root::target().join("crossval").join(format!("{name}.receipt.json"))
}
