//! A matrix small enough to know every cell of it by heart, and what starts it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::workers;
use bitnet_harness::env::Env;
use bitnet_harness::host::Host;
use bitnet_harness::paths::Paths;
use bitnet_harness::record::{self, Record};
use bitnet_harness::{Availability, Cell, Check, Context, Failure, Metrics, Suite};

/// The variable that makes this program the toy matrix of a folder.
pub(crate) const ROOT: &str = "HARNESS_SELFTEST_ROOT";

/// Ten cells: three pass, two fail as expected, one lacks its model, three their device, one is unsupported.
pub(crate) const MATRIX: &str = r#"
schema = 1
[[model]]
name = "toy"
about = "always here"
family = "toy"
quants = ["q1", "q2"]
source = { kind = "embedded", file = "toy" }
[[model]]
name = "far"
about = "a fixture that has not been fetched"
family = "toy"
quants = ["q1"]
source = { kind = "fixture", file = "far.gguf" }
[[device]]
name = "cpu-scalar"
about = "always here"
[[device]]
name = "gpu"
about = "on another host"
[[backend]]
name = "native"
about = "always here"
[[check]]
name = "right"
about = "passes"
cells = [{}]
[[check]]
name = "snap"
about = "has a golden snapshot"
cells = [{ models = ["toy"], devices = ["cpu-scalar"] }]
[[check]]
name = "wrong"
about = "fails"
cells = [{ models = ["toy"], quants = ["q1"], devices = ["cpu-scalar"] }]
[[check]]
name = "panics"
about = "panics"
cells = [{ models = ["toy"], quants = ["q1"], devices = ["cpu-scalar"] }]
[[unsupported]]
cells = "toy::q2::cpu-scalar::native::right"
reason = "q2 has no right"
"#;

const EXPECT_WRONG: (&str, &str) = ("toy::*::*::*::wrong", "wraps at i16");
const EXPECT_PANICS: (&str, &str) = ("toy::*::*::*::panics", "panicked: index 7");

/// The accounting line of the toy when all is as it should be.
pub(crate) const GREEN: &str =
    "declared 10 = pass 3 + xfail 2 + fail 0 + unavailable 1 + unsupported 1 + elsewhere 3 + filtered 0";

struct Right;
struct Snap;
struct Wrong;
struct Panics;

impl Check for Right {
    fn name(&self) -> &'static str {
        "right"
    }
    fn run(&self, _: &Cell, _: &Context) -> Result<Metrics, Failure> {
        Ok(Metrics::new().with("tokens", 3usize))
    }
}

impl Check for Snap {
    fn name(&self) -> &'static str {
        "snap"
    }
    fn run(&self, cell: &Cell, ctx: &Context) -> Result<Metrics, Failure> {
        ctx.assert_golden_json(cell, "", &[1, 2, 3])?;
        Ok(Metrics::new())
    }
}

impl Check for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }
    fn run(&self, _: &Cell, _: &Context) -> Result<Metrics, Failure> {
        let metrics = Metrics::new().with("max_abs", 0.5);
        Err(Failure::new("row 3: the sum wraps at i16").with_metrics(metrics))
    }
}

impl Check for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }
    fn availability(&self, cell: &Cell, _: &Context) -> Availability {
        if cell.quant == "q1" {
            Availability::Available
        } else {
            Availability::unavailable("panics", "only q1 panics", "use q1")
        }
    }
    fn run(&self, _: &Cell, _: &Context) -> Result<Metrics, Failure> {
        panic!("index {} is out of range", 7);
    }
}

/// The matrix of a toy folder, as `tests/matrix.rs` is that of the checkout.
pub(crate) fn suite(root: PathBuf) -> Suite {
    let env = Env::read();
    let paths = Paths {
        golden: root.join("golden"),
        out: root.join("out"),
        fixtures: root.join("fixtures"),
        target: root.join("target"),
        root,
    };
    if std::env::var_os(workers::REAL).is_some() {
        return Suite { host: workers::host(&env, &paths), paths, checks: workers::checks(), env };
    }
    // Set where a case needs the host that has the card.
    let gpu = env.on("TOY_GPU");
    Suite {
        paths,
        host: Host::empty(env.clone())
            .device("cpu-scalar", || Availability::Available)
            .device("gpu", move || match gpu {
                true => Availability::Available,
                false => Availability::unavailable("gpu", "no driver", "install the driver"),
            })
            .backend("native", || Availability::Available),
        checks: vec![Arc::new(Right), Arc::new(Snap), Arc::new(Wrong), Arc::new(Panics)],
        env,
    }
}

/// What a run of the toy left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Asserts exit code and a line of either stream.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, text: &str) -> &Self {
        let all = format!("--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "exit code\n{all}");
        assert!(all.contains(text), "no `{text}` in\n{all}");
        self
    }

    /// Asserts that a text was not printed.
    #[track_caller]
    pub(crate) fn is_not(&self, text: &str) -> &Self {
        let all = format!("--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        assert!(!all.contains(text), "`{text}` in\n{all}");
        self
    }
}

/// Starts this program in another role, with nothing of the caller's environment that could change it. What it prints is
/// shown only if an assertion about it fails.
pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        ["MATRIX_", "NEXTEST", "BITNET_", "INSTA_"].iter().any(|p| name.starts_with(p)) || name == "CI"
    });
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    for name in ours {
        command.env_remove(name);
    }
    let output = command.args(args).envs(env.iter().copied()).output().expect("it starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A toy folder of its own.
pub(crate) struct Toy {
    dir: tempfile::TempDir,
}

impl Toy {
    /// The green toy.
    pub(crate) fn new() -> Self {
        let toy = Self { dir: tempfile::tempdir().expect("temp dir") };
        toy.write("golden/matrix.toml", MATRIX);
        toy.expect(&[EXPECT_WRONG, EXPECT_PANICS]);
        for quant in ["q1", "q2"] {
            toy.snapshot(quant, "[\n  1,\n  2,\n  3\n]");
        }
        toy
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("folder");
        std::fs::write(path, text).expect("write");
    }

    /// Adds to `matrix.toml`.
    pub(crate) fn declare(&self, text: &str) {
        self.write("golden/matrix.toml", &format!("{MATRIX}{text}"));
    }

    /// Declares one more cell: the check `panics` is not available there.
    pub(crate) fn let_panics_apply_to_q2(&self) {
        let (before, panics) = MATRIX.split_once("about = \"panics\"").expect("the check");
        let panics = panics.replacen("[\"q1\"]", "[\"q1\", \"q2\"]", 1);
        self.write("golden/matrix.toml", &format!("{before}about = \"panics\"{panics}"));
    }

    /// Replaces `expect.toml`.
    pub(crate) fn expect(&self, entries: &[(&str, &str)]) {
        let entry = |(cells, reason): &(&str, &str)| {
            format!("[[expect]]\ncells = \"{cells}\"\nkind = \"xfail\"\nreason = \"{reason}\"\nwhy = \"planted\"\n")
        };
        let entries: String = entries.iter().map(entry).collect();
        self.write("golden/expect.toml", &format!("schema = 1\n{entries}"));
    }

    /// The two expectations that the green toy has, and one more.
    pub(crate) fn expect_also(&self, cells: &str, reason: &str) {
        self.expect(&[EXPECT_WRONG, EXPECT_PANICS, (cells, reason)]);
    }

    pub(crate) fn snapshot_path(quant: &str) -> String {
        format!("golden/snapshots/toy__{quant}__snap.snap")
    }

    pub(crate) fn snapshot(&self, quant: &str, text: &str) {
        let text = format!("---\nsource: toy\n---\n{text}\n");
        self.write(&Self::snapshot_path(quant), &text);
    }

    /// Starts the toy.
    pub(crate) fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let root = self.dir.path().to_string_lossy();
        start(args, &[&[(ROOT, &*root)], env].concat())
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    /// The record of a cell.
    #[track_caller]
    pub(crate) fn record(&self, name: &str) -> Record {
        let cell: Cell = name.parse().expect("cell");
        record::read(&self.path("out/records").join(record::file_name(&cell))).expect("record")
    }

    /// All records.
    #[track_caller]
    pub(crate) fn records(&self) -> Vec<Record> {
        record::read_folder(&self.path("out/records")).expect("records")
    }
}
