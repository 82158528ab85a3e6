//! `bitnet devices`

use super::{Format, print_json};
use bitnet_engine::device::cuda::{self, Cuda};
use bitnet_engine::settings::{Settings, cuda_cache_from_env};
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
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let devices = bitnet_engine::device::devices();
        let cuda = cuda::look(settings.nvrtc.as_deref(), cuda_cache_from_env(settings));
        if self.format == Format::Json {
            let mut list = devices.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
            list.push(serde_json::to_value(&cuda)?);
            print_json(&list)?;
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
        out.write_all(text(&cuda).as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `cuda`, its cards, and what compiles for them.
fn text(cuda: &Cuda) -> String {
    let state = match &cuda.unavailable {
        Some(reason) => format!("unavailable: {reason}"),
        None => "available".to_owned(),
    };
    let mut text = format!("{:<12} {state}\n{:<12} {}\n", cuda.name, "", cuda.description);
    for card in &cuda.cards {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let free = match (card.memory_free, &card.memory_unknown) {
            (Some(free), _) => format!("{:.1} GiB free", gib(free)),
            (None, why) => format!("free memory unknown: {}", why.as_deref().unwrap_or("the driver did not say")),
        };
        text += &format!(
            "{:<12} {}: {}, compute capability {}, {} multiprocessors, {:.1} GiB ({free}), {:.0} MiB second cache, driver for CUDA {}\n",
            "",
            card.name,
            card.model,
            card.compute,
            card.multiprocessors,
            gib(card.memory_total),
            card.l2 as f64 / f64::from(1 << 20),
            card.driver,
        );
        text += &format!("{:<12}   kernels: {}\n", "", card.kernels);
    }
    text
}
