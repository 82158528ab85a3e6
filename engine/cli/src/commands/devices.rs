//! `bitnet devices`

use super::{Format, print_json};
use std::io::Write;
use std::process::ExitCode;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bitnet devices\n  bitnet devices --format json")]
pub struct Args {
    /// Output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let devices = bitnet_engine::device::devices();
        if self.format == Format::Json {
            print_json(&devices)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = std::io::stdout().lock();
        for device in devices {
            let state = match (&device.unavailable, device.automatic) {
                (Some(reason), _) => format!("unavailable: {reason}"),
                (None, true) => "available, chosen by auto".to_owned(),
                (None, false) => "available".to_owned(),
            };
            writeln!(out, "{:<12} {state}\n{:<12} {}", device.name, "", device.description)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
