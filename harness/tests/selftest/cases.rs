//! The faults, one function each. A case asserts the verdict and the message, never only that "it failed".

use std::collections::{BTreeMap, BTreeSet};

use bitnet_harness::Outcome;
use bitnet_harness::account::Account;
use bitnet_harness::report;

use crate::toy::{GREEN, MATRIX, Toy};

/// A named case.
pub(crate) type Case = (&'static str, fn());

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// All cases, in the order of this file.
        pub(crate) const CASES: &[$crate::cases::Case] = &[$((stringify!($case), $case)),*];
    };
}
pub(crate) use cases;

cases![
    the_toy_is_green,
    an_xfail_that_passes,
    an_xfail_that_fails_for_another_reason,
    a_stale_expectation,
    an_expectation_of_an_unknown_value,
    an_empty_selection,
    a_name_filter_that_matches_nothing,
    an_unknown_axis_value,
    a_required_cell_that_is_unavailable,
    a_check_that_is_unavailable_by_itself,
    an_unknown_requirement,
    a_panicking_check,
    a_missing_snapshot,
    a_wrong_snapshot,
    an_orphan_snapshot,
    blessing_is_explicit_and_refused_in_ci,
    accounting_that_does_not_add_up,
    a_declared_check_without_implementation,
    a_misspelt_key,
    a_record_that_cannot_be_written,
    ignored_cells_that_are_asked_to_run,
    the_list_is_only_a_list,
    devices_that_are_not_here,
    what_a_backend_does_not_know,
    a_report_of_a_cell_that_vanished,
    a_run_leaves_no_older_record,
    runs_of_several_hosts,
    a_process_per_cell,
    json_on_stdout_is_only_json,
    filters_are_accounted_for,
];

const PASSES: &str = "toy::q1::cpu-scalar::native::right";
const ON_GPU: &str = "toy::q1::gpu::native::right";

fn the_toy_is_green() {
    let toy = Toy::new();
    let ran = toy.run(&[]);
    ran.is(0, GREEN)
        .is(0, "elsewhere: gpu: 3 cells: no driver")
        .is(0, "to run them: install the driver")
        .is_not("gpu::native")
        .is(0, "to fix it: cargo xtask fixtures fetch far")
        .is(0, "unsupported: 1 cell: q2 has no right");
    let outcomes: BTreeMap<Outcome, usize> = toy.records().iter().fold(BTreeMap::new(), |mut counts, record| {
        *counts.entry(record.outcome).or_default() += 1;
        counts
    });
    let want = [(Outcome::Pass, 3), (Outcome::Xfail, 2), (Outcome::Unavailable, 1), (Outcome::Unsupported, 1)];
    assert_eq!(outcomes, BTreeMap::from(want));
    let wrong = toy.record("toy::q1::cpu-scalar::native::wrong");
    assert!(wrong.metrics.contains_key("max_abs"), "a failure keeps its figures");
    assert_eq!(wrong.expected.expect("expectation").why, "planted");
    let summary = std::fs::read_to_string(toy.path("out/summary.md")).expect("summary");
    assert!(summary.starts_with("# The matrix is green") && summary.contains(GREEN), "{summary}");
    let report = report::load(&[toy.path("out")]).expect("report");
    assert_eq!(report.account().to_string(), GREEN);
    assert_eq!(report::html(&report).matches("<td class=\"c ").count(), 7);
}

fn an_xfail_that_passes() {
    let toy = Toy::new();
    toy.expect_also(PASSES, "anything");
    toy.run(&[]).is(101, "it passed unexpectedly; expect.toml expects it to fail with: anything");
    let record = toy.record(PASSES);
    assert_eq!(record.outcome, Outcome::Fail);
    assert!(record.remedy.expect("remedy").contains(PASSES));
}

fn an_xfail_that_fails_for_another_reason() {
    let toy = Toy::new();
    toy.expect(&[("toy::*::*::*::wrong", "NaN in the logits"), ("toy::*::*::*::panics", "panicked: index 7")]);
    toy.run(&[])
        .is(101, "not for the expected reason")
        .is(101, "expected (expect.toml): NaN in the logits")
        .is(101, "got: row 3: the sum wraps at i16");
    assert_eq!(toy.record("toy::q1::cpu-scalar::native::wrong").outcome, Outcome::Fail);
}

fn a_stale_expectation() {
    let toy = Toy::new();
    toy.expect_also("far::*::*::*::snap", "x");
    toy.run(&[])
        .is(2, "expect.toml: the entry `far::*::*::*::snap` is stale: it matches no declared cell")
        .is_not("running");
}

fn an_expectation_of_an_unknown_value() {
    let toy = Toy::new();
    toy.expect_also("toy::q9::*::*::*", "x");
    toy.run(&[]).is(2, "unknown quant `q9`; valid: q1, q2");
}

fn an_empty_selection() {
    let toy = Toy::new();
    let message = "matches none of the 10 declared cells";
    toy.run(&["--model", "far", "--check", "snap"]).is(2, message);
    toy.run_with(&[], &[("MATRIX_MODEL", "far"), ("MATRIX_CHECK", "snap")]).is(2, message);
    toy.run(&["--list", "--model", "far", "--check", "snap"]).is(2, message);
}

fn a_name_filter_that_matches_nothing() {
    let toy = Toy::new();
    // Handed to every test binary by `cargo test name`: normal, unless one of our flags says that this
    // binary is meant.
    toy.run(&["no_such_test"]).is(0, "+ filtered 10");
    toy.run(&["--model", "toy", "no_such_test"]).is(2, "`--model toy no_such_test` matches none");
}

fn an_unknown_axis_value() {
    let toy = Toy::new();
    toy.run(&["--device", "tpu"]).is(2, "--device: unknown device `tpu`; valid: cpu-scalar, gpu");
    toy.run_with(&[], &[("MATRIX_CHECK", "rigth")])
        .is(2, "MATRIX_CHECK: unknown check `rigth`; valid: right, snap, wrong, panics");
    toy.run(&["--model"]).is(2, "--model needs a value");
}

fn a_required_cell_that_is_unavailable() {
    let toy = Toy::new();
    toy.run(&["--require", "gpu"])
        .is(101, "it is required, but `gpu` is not available: no driver")
        .is(101, "to fix it: install the driver")
        .is(101, "pass 3 + xfail 2 + fail 3 + unavailable 1 + unsupported 1 + elsewhere 0");
    assert_eq!(toy.record(ON_GPU).outcome, Outcome::Fail);
    toy.run_with(&[], &[("MATRIX_REQUIRE", "native,far")])
        .is(101, "it is required, but `far` is not available: the fixture far.gguf has not been fetched")
        .is(101, "fail 2 + unavailable 0 + unsupported 1 + elsewhere 2");
    toy.run(&["--require", "native,cpu-scalar,toy"]).is(0, GREEN);
}

fn a_check_that_is_unavailable_by_itself() {
    let toy = Toy::new();
    toy.let_panics_apply_to_q2();
    toy.run(&[]).is(0, "unavailable: 1 cell: only q1 panics").is(0, "declared 11 = pass 3");
    for required in ["panics", "cpu-scalar", "toy"] {
        let message = "it is required, but `panics` is not available: only q1 panics";
        toy.run(&["--require", required]).is(101, message);
    }
}

fn an_unknown_requirement() {
    Toy::new()
        .run(&["--require", "cuda"])
        .is(2, "--require: unknown name `cuda`; valid: native, cpu-scalar, gpu, toy, far");
}

fn a_panicking_check() {
    let toy = Toy::new();
    toy.expect(&[("toy::*::*::*::wrong", "wraps at i16")]);
    toy.run(&[]).is(101, "the check panicked: index 7 is out of range").is(101, "fail 1");
    assert_eq!(toy.record("toy::q1::cpu-scalar::native::panics").outcome, Outcome::Fail);
}

fn a_missing_snapshot() {
    let toy = Toy::new();
    let path = toy.path(&Toy::snapshot_path("q2"));
    std::fs::remove_file(&path).expect("remove");
    toy.run_with(&[], &[("INSTA_UPDATE", "always"), ("INSTA_FORCE_PASS", "1")])
        .is(101, "golden snapshot missing: golden/snapshots/toy__q2__snap.snap")
        .is(101, "cargo xtask bless --model toy --quant q2 --check snap");
    let files = std::fs::read_dir(toy.path("golden/snapshots")).expect("list").count();
    assert_eq!(files, 1, "nothing was written");
    assert_eq!(toy.record("toy::q2::cpu-scalar::native::snap").outcome, Outcome::Fail);
}

fn a_wrong_snapshot() {
    let toy = Toy::new();
    toy.snapshot("q1", "[\n  1,\n  9,\n  3\n]");
    toy.run_with(&[], &[("INSTA_UPDATE", "always"), ("INSTA_FORCE_PASS", "1")])
        .is(101, "golden snapshot differs: golden/snapshots/toy__q1__snap.snap")
        .is(101, "first difference in line 3")
        .is(101, "-   9,")
        .is(101, "+   2,")
        .is(101, "cargo xtask bless --model toy --quant q1 --check snap");
    let text = std::fs::read_to_string(toy.path(&Toy::snapshot_path("q1"))).expect("snapshot");
    assert!(text.contains('9'), "nothing was written");
}

fn an_orphan_snapshot() {
    let toy = Toy::new();
    toy.write("golden/snapshots/toy__q1__snap.snap.new", "pending");
    toy.run(&[]).is(2, "toy__q1__snap.snap.new belongs to no declared cell");
}

fn blessing_is_explicit_and_refused_in_ci() {
    let toy = Toy::new();
    toy.snapshot("q1", "old");
    toy.run_with(&[], &[("BITNET_BLESS", "1"), ("CI", "true")])
        .is(101, "blessing refused for toy::q1::cpu-scalar::native::snap: CI is set");
    toy.run_with(&[], &[("BITNET_BLESS", "0")]).is(101, "golden snapshot differs");
    toy.run_with(&[], &[("BITNET_BLESS", "1")]).is(0, "BLESSING");
    toy.run(&[]).is(0, GREEN);
}

fn accounting_that_does_not_add_up() {
    // No run can be made to lose a cell from outside, so this is asked of the books themselves; that a
    // run obeys them is tested where it closes them (`src/matrix.rs`).
    let settled = BTreeMap::from([("a".to_owned(), Outcome::Pass)]);
    let wanted = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let account = Account::new(3, 1, settled.values());
    let error = account.verify(&wanted, &settled, None).expect_err("a cell is lost");
    let text = error.to_string();
    assert!(text.contains("b should have been settled, but has no outcome"), "{text}");
    assert!(text.contains("declared 3 = pass 1") && text.contains("the right side is 2"), "{text}");
}

fn a_declared_check_without_implementation() {
    let toy = Toy::new();
    toy.declare("[[check]]\nname = \"dream\"\nabout = \"\"\ncells = [{}]\n[[device]]\nname = \"tpu\"\nabout = \"\"\n");
    toy.run(&[])
        .is(2, "declares the check `dream`, but nothing implements it; add it to harness/src/check.rs")
        .is(2, "declares the device `tpu`, but nothing implements it; add it to harness/src/host.rs");
}

fn a_misspelt_key() {
    let toy = Toy::new();
    toy.declare("[[unsuported]]\n");
    toy.run(&[]).is(2, "unknown field `unsuported`").is(2, "matrix.toml");
}

fn a_record_that_cannot_be_written() {
    let toy = Toy::new();
    toy.write("out/records/toy__q1__cpu-scalar__native__right.json/in-the-way", "");
    toy.run(&["--check", "right"]).is(101, "pass, but its record could not be written");
    let toy = Toy::new();
    toy.write("out", "a file where the folder should be");
    toy.run(&["--check", "right"]).is(101, "run.json: Not a directory").is_not("running");
}

fn ignored_cells_that_are_asked_to_run() {
    let toy = Toy::new();
    toy.run(&["--include-ignored"])
        .is(101, "it was asked to run, but `gpu` is not available: no driver")
        .is(101, "it was asked to run, but is declared unsupported: q2 has no right")
        .is(101, "pass 3 + xfail 2 + fail 5 + unavailable 0 + unsupported 0 + elsewhere 0 + filtered 0");
    toy.run(&["--ignored"]).is(101, "fail 5 + unavailable 0 + unsupported 0 + elsewhere 0 + filtered 5");
}

fn the_list_is_only_a_list() {
    let toy = Toy::new();
    let names = |ran: &crate::toy::Ran| -> Vec<String> {
        ran.stdout.lines().map(|line| line.strip_suffix(": test").expect(line).to_owned()).collect()
    };
    let here = toy.run(&["--list", "--format", "terse"]);
    here.is(0, "to run them: install the driver").is_not("declared 10 =");
    let here = names(&here);
    assert_eq!(here.len(), 7);
    assert!(here.iter().all(|name| name.split("::").count() == 5), "{here:?}");
    let ignored = names(&toy.run(&["--list", "--format", "terse", "--ignored"]));
    assert_eq!(ignored.len(), 2, "{ignored:?}");
    let all = names(&toy.run(&["--list", "--format", "terse", "--all-devices"]));
    assert_eq!(all.len(), 10);
    let ignored = names(&toy.run(&["--list", "--format", "terse", "--all-devices", "--ignored"]));
    assert_eq!(ignored.len(), 5, "{ignored:?}");
    assert!(ignored.contains(&ON_GPU.to_owned()));
    // What is required is a test, and not an ignored one: it has to run, and fail.
    assert_eq!(names(&toy.run(&["--list", "--require", "gpu"])).len(), 10);
    let ignored = names(&toy.run(&["--list", "--ignored", "--require", "gpu"]));
    assert_eq!(ignored.len(), 2, "{ignored:?}");
    assert!(!toy.path("out").exists(), "a list writes nothing");
}

fn devices_that_are_not_here() {
    let toy = Toy::new();
    let each = "pass 3 + xfail 2 + fail 0 + unavailable 4 + unsupported 1 + elsewhere 0 + filtered 0";
    toy.run(&["--all-devices"]).is(0, each).is(0, "unavailable: 3 cells: no driver");
    toy.run_with(&[], &[("MATRIX_ALL_DEVICES", "1")]).is(0, each);
    assert_eq!(toy.records().len(), 10);
    // Who names a device, or one of its cells, hears of each.
    toy.run(&["--device", "gpu"]).is(0, "unavailable 3 + unsupported 0 + elsewhere 0 + filtered 7");
    toy.run(&["--exact", ON_GPU]).is(0, "unavailable 1 + unsupported 0 + elsewhere 0 + filtered 9");
    // Name filters and selections count for them too.
    toy.run(&["--model", "far"]).is(0, "unavailable 1 + unsupported 0 + elsewhere 1 + filtered 8");
    toy.run(&["q2"]).is(0, "pass 1 + xfail 0 + fail 0 + unavailable 0 + unsupported 1 + elsewhere 1 + filtered 7");
}

fn what_a_backend_does_not_know() {
    let toy = Toy::new();
    let count = |count: usize| {
        let unknown = "[[backend]]\nname = \"native\"\nabout = \"always here\"\nunknown = [{ quants = [\"q2\"], reason = \"q2 is younger\" }]";
        let matrix = MATRIX.replace("[[backend]]\nname = \"native\"\nabout = \"always here\"", unknown);
        let matrix = matrix.replace("about = \"passes\"", &format!("about = \"passes\"\ncount = {count}"));
        matrix.split("[[unsupported]]").next().expect("text").to_owned()
    };
    // The cells of q2 are none; a snapshot of one is nobody's, and their number is held.
    toy.write("golden/matrix.toml", &count(4));
    toy.run(&[]).is(2, "toy__q2__snap.snap belongs to no declared cell");
    std::fs::remove_file(toy.path(&Toy::snapshot_path("q2"))).expect("remove");
    toy.run(&[])
        .is(0, "declared 7 = pass 2 + xfail 2 + fail 0 + unavailable 1 + unsupported 0 + elsewhere 2 + filtered 0");
    toy.run(&["--quant", "q2", "--backend", "native"]).is(2, "native has no cell of toy: q2 is younger");
    toy.write("golden/matrix.toml", &count(6));
    toy.run(&[]).is(2, "the check `right` has 4 cells, its `count` says 6");
}

/// `cargo xtask report` of the toy, and what it says: the account, whether it is red, and the terminal's words.
fn reported(folders: &[std::path::PathBuf]) -> (String, bool, String) {
    let report = report::load(folders).expect("report");
    (report.account().to_string(), report.is_red(), report::terminal(&report))
}

fn a_report_of_a_cell_that_vanished() {
    let toy = Toy::new();
    toy.run(&[]).is(0, GREEN);
    let out = [toy.path("out")];
    assert_eq!(reported(&out).0, GREEN);
    assert!(!reported(&out).1);
    // One record less.
    let cell: bitnet_harness::Cell = PASSES.parse().expect("cell");
    let path = toy.path("out/records").join(bitnet_harness::record::file_name(&cell));
    let text = std::fs::read_to_string(&path).expect("record");
    std::fs::remove_file(&path).expect("remove");
    let (account, red, words) = reported(&out);
    assert!(red && account.ends_with("elsewhere 3 + filtered 0 + missing 1"), "{account}");
    assert!(words.contains(&format!("missing: {PASSES}")), "{words}");
    // One that failed, one of another run, one of a cell that was not asked for.
    std::fs::write(&path, text.replace("\"pass\"", "\"fail\"")).expect("write");
    assert!(reported(&out).1);
    let run = toy.record(PASSES).run.expect("a run's name");
    std::fs::write(&path, text.replace(&run, "2001-02-03T04:05:06Z 7")).expect("write");
    let (_, red, words) = reported(&out);
    assert!(red && words.contains("is of another run"), "{words}");
    std::fs::write(&path, &text).expect("write");
    toy.write("out/records/toy__q9__cpu-scalar__native__right.json", &text.replace("::q1::", "::q9::"));
    let (_, red, words) = reported(&out);
    assert!(red && words.contains("was not asked for in this run"), "{words}");
    // Nobody knows what a folder without `run.json` should hold.
    std::fs::remove_file(toy.path("out/records/run.json")).expect("remove");
    assert!(report::load(&out).expect_err("no run").to_string().contains("has no run.json"));
}

fn a_run_leaves_no_older_record() {
    let toy = Toy::new();
    toy.run(&[]).is(0, GREEN);
    toy.run(&["--check", "snap"]).is(0, "pass 2");
    assert_eq!(toy.records().len(), 2);
    assert!(!reported(&[toy.path("out")]).1);
    // A name that is another test's starts no run.
    toy.run(&["no_such_test"]).is(0, "+ filtered 10");
    assert_eq!(toy.records().len(), 2);
}

fn runs_of_several_hosts() {
    let toy = Toy::new();
    toy.run(&[]).is(0, GREEN);
    std::fs::rename(toy.path("out"), toy.path("here")).expect("rename");
    // The host with the card, which ran the card's cells alone.
    toy.run_with(&["--device", "gpu", "--model", "toy"], &[("TOY_GPU", "1"), ("MATRIX_COMMIT", "feedbeef")])
        .is(0, "pass 2");
    let (here, there) = (toy.path("here"), toy.path("out"));
    let (account, red, words) = reported(&[here.clone(), there.clone()]);
    assert!(!red && account.contains("pass 5 + xfail 2") && account.contains("elsewhere 1"), "{account}");
    assert!(
        words.contains("at commit feedbeef") && words.contains("--device gpu --model toy, 2 of 2 records"),
        "{words}"
    );
    // Its own record is gone: the other host's folder, in which the cell was elsewhere, does not hide that.
    let cell: bitnet_harness::Cell = ON_GPU.parse().expect("cell");
    std::fs::remove_file(there.join("records").join(bitnet_harness::record::file_name(&cell))).expect("remove");
    let (account, red, _) = reported(&[here, there]);
    assert!(red && account.ends_with("elsewhere 1 + filtered 0 + missing 1"), "{account}");
}

fn a_process_per_cell() {
    let toy = Toy::new();
    let nextest = [("NEXTEST", "1"), ("NEXTEST_RUN_ID", "r1")];
    // The process that lists may not know the run's name.
    let list = toy.run_with(&["--list", "--format", "terse"], &nextest[..1]);
    assert_eq!(list.stdout.lines().count(), 7, "{}", list.stderr);
    toy.run_with(&["--list", "--format", "terse", "--ignored"], &nextest);
    assert_eq!(toy.records().len(), 2, "nextest never starts ignored cells: the list records them");
    // Half of the cells, as the first of two shards runs them.
    let names: Vec<&str> = list.stdout.lines().map(|line| line.strip_suffix(": test").expect(line)).collect();
    for (i, name) in names.iter().enumerate() {
        if i == names.len() / 2 {
            let (account, red, _) = reported(&[toy.path("out")]);
            assert!(red && account.contains("+ missing "), "one shard alone: {account}");
        }
        if toy.records().iter().all(|record| record.name != *name) {
            toy.run_with(&["--exact", name, "--nocapture"], &nextest).is(0, "+ filtered 9");
        }
    }
    let (account, red, _) = reported(&[toy.path("out")]);
    assert!(!red && account == GREEN, "{account}");
    assert_eq!(toy.record(PASSES).run.as_deref(), Some("r1"));
    // What nextest starts must not exit 0 without having checked something.
    toy.run_with(&["--exact", ON_GPU, "--nocapture"], &nextest).is(101, "is not available");
    toy.run_with(&["--exact", "toy::q1::cpu-scalar::native::gone"], &nextest).is(2, "matches none");
}

fn json_on_stdout_is_only_json() {
    let toy = Toy::new();
    let ran = toy.run(&["--format", "json", "-Z", "unstable-options"]);
    ran.is(0, GREEN);
    for line in ran.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
}

fn filters_are_accounted_for() {
    let toy = Toy::new();
    toy.run(&["--quant=q1", "--device", "cpu-scalar", "--skip", "panics", "--test-threads=1"])
        .is(0, "declared 10 = pass 2 + xfail 1 + fail 0 + unavailable 1 + unsupported 0 + elsewhere 0 + filtered 6");
    toy.run(&["--exact", PASSES])
        .is(0, "declared 10 = pass 1 + xfail 0 + fail 0 + unavailable 0 + unsupported 0 + elsewhere 0 + filtered 9");
    toy.run(&["--bench"])
        .is(0, "declared 10 = pass 0 + xfail 0 + fail 0 + unavailable 0 + unsupported 0 + elsewhere 0 + filtered 10");
}
