//! `cargo xtask receipt verify`: computes a receipt again from the data in it.

use crate::crossval::{Format, limits_of, print, report_usage};
use bitnet_harness::crossval::receipt::{ReceiptError, verify};
use bitnet_harness::crossval::report::CrossvalReport;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Derive every figure and the verdict again, and compare hashes with the files that are here.
    #[command(
        after_help = "Example:\n  cargo xtask receipt verify target/crossval/tiny-bitnet.receipt.json\n\nExit codes: 0 everything follows (whatever the verdict in it is), 1 something does not, 3 it is not a receipt."
    )]
    Verify {
        /// The receipt.
        file: PathBuf,
        /// The model's file, if it is not where the receipt says.
        #[arg(long, value_name = "FILE")]
        model: Option<PathBuf>,
        /// Output.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

pub(crate) const NAME: &str = "receipt";

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let Action::Verify { file, model, format } = &self.action;
        let found = match verify(file, model.as_deref()) {
            Err(error @ (ReceiptError::Io { .. } | ReceiptError::Malformed { .. })) => Err(error.into()),
            other => Ok(other),
        };
        let answer = found.and_then(|found| {
            let (valid, text, document) = match &found {
                Ok((receipt, verified)) => {
                    let report = &receipt.report;
                    let mut verified = verified.clone();
                    verified.not_checked.extend(other_limits(report));
                    let verdict = report.verdict.name();
                    let mut text = format!("valid: {verdict} (exit {}): {}\n", report.exit_code, report.reason);
                    verified.checked.iter().for_each(|line| text += &format!("  checked      {line}\n"));
                    verified.not_checked.iter().for_each(|line| text += &format!("  not checked  {line}\n"));
                    let verdict = report.verdict;
                    (
                        true,
                        text,
                        json!({ "valid": true, "verdict": verdict, "reason": report.reason, "checks": verified }),
                    )
                }
                Err(error) => {
                    let text = format!("not valid: {error}\n");
                    (false, text, json!({ "valid": false, "reason": error.to_string() }))
                }
            };
            let text = if *format == Format::Json { serde_json::to_string_pretty(&document)? + "\n" } else { text };
            print(&text)?;
            Ok(ExitCode::from(u8::from(!valid)))
        });
        report_usage(NAME, *format, answer)
    }
}

/// A word of warning where the receipt was judged by other limits than this checkout would judge by.
fn other_limits(report: &CrossvalReport) -> Option<String> {
    let backend = &report.reference.ran()?.backend;
    let mut here = limits_of(&report.model, backend).ok()?;
    if let Some(least) = report.asked.cos_tol {
        here.least_cosine = least;
    }
    (here != report.limits).then(|| "its limits are not those of golden/thresholds.toml in this checkout".to_owned())
}
