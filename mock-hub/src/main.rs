//! `bitnet-mock-hub`: the mock hub as a server for people, scripts and other people's clients.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bitnet_mock_hub::{Access, MockHub, Rule, Side, load_dir};
use clap::Parser;

/// Serve a folder as if it were the HuggingFace hub, well or badly.
///
/// Point a client at it with HF_ENDPOINT. GET {endpoint}/_mock/log answers with every request so far, as JSON.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder with `<org>/<name>/<files>`
    #[arg(long)]
    dir: PathBuf,
    /// Port of the hub on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A fault, for example `cut=100,on=cdn,times=2`; may be repeated, and faults compose
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Rule>,
    /// Seed of the faults with `chance=`
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Files of at least this many bytes come from the CDN, as LFS files do
    #[arg(long, default_value_t = 10_000)]
    lfs_from: u64,
    /// LFS files carry the Xet headers too
    #[arg(long)]
    xet: bool,
    /// A private repository: `org/name=token`
    #[arg(long, value_name = "REPO=TOKEN")]
    private: Vec<String>,
    /// A gated repository: `org/name=token`
    #[arg(long, value_name = "REPO=TOKEN")]
    gated: Vec<String>,
    /// A renamed repository: `old/name=new/name`
    #[arg(long, value_name = "OLD=NEW")]
    renamed: Vec<String>,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    stop_after: Option<u64>,
    /// Print each request on stderr
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = MockHub::builder().port(args.port).seed(args.seed);
    let repos = load_dir(&args.dir, args.lfs_from, args.xet)?;
    if repos.is_empty() {
        return Err(format!("{} holds no <org>/<name>/<files>", args.dir.display()).into());
    }
    let pair = |text: &str| -> Result<(String, String), String> {
        text.split_once('=')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .ok_or_else(|| format!("`{text}` needs NAME=VALUE"))
    };
    let mut access = std::collections::BTreeMap::new();
    for text in &args.private {
        let (repo, token) = pair(text)?;
        access.insert(repo, Access::Private(token));
    }
    for text in &args.gated {
        let (repo, token) = pair(text)?;
        access.insert(repo, Access::Gated(token));
    }
    for mut repo in repos {
        if let Some(access) = access.remove(&repo.name) {
            repo = repo.access(access);
        }
        builder = builder.repo(repo);
    }
    if let Some(repo) = access.keys().next() {
        return Err(format!("`{repo}` is not in {}", args.dir.display()).into());
    }
    for text in &args.renamed {
        let (old, new) = pair(text)?;
        builder = builder.renamed(&old, &new);
    }
    for rule in args.faults {
        builder = builder.rule(rule);
    }
    let hub = builder.start()?;
    println!("{}", hub.endpoint());
    std::io::stdout().flush()?;
    eprintln!("CDN {}, elsewhere {}; stop with Ctrl-C", hub.origin(Side::Cdn), hub.origin(Side::Elsewhere));

    let (step, mut seen) = (Duration::from_millis(100), 0);
    let started = std::time::Instant::now();
    while args.stop_after.is_none_or(|seconds| started.elapsed() < Duration::from_secs(seconds)) {
        std::thread::sleep(step);
        if args.verbose {
            let entries = hub.log().entries();
            for entry in entries.iter().skip(seen) {
                eprintln!(
                    "{:?} {} {} -> {} range={:?} token={} faults={:?}",
                    entry.side, entry.method, entry.path, entry.status, entry.range, entry.authorization, entry.faults
                );
            }
            seen = entries.len();
        }
    }
    Ok(())
}
