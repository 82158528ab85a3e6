use super::*;
use crate::record::tests::sample;

fn report(list: &[(&str, Outcome)]) -> Report {
    let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
    let mut report = Report { runs: vec![run::tests::sample(&names, &[])], ..Report::default() };
    for (name, outcome) in list {
        report.merge(sample(name, *outcome));
    }
    report
}

fn every_outcome() -> Report {
    let mut report = report(&[
        ("m::q::d1::b::c", Outcome::Pass),
        ("m::q::d2::b::c", Outcome::Fail),
        ("m::q2::d1::b::c", Outcome::Unavailable),
        ("m::q2::d2::b::c", Outcome::Unsupported),
    ]);
    let mut xfail = sample("m::q3::d1::b::c", Outcome::Xfail);
    xfail.expected =
        Some(crate::record::Expected { reason: "it".to_owned(), why: "a | known thing".to_owned(), link: None });
    report.merge(xfail);
    report
}

#[test]
fn the_worse_run_wins_and_any_run_beats_none() {
    let order = [Outcome::Unsupported, Outcome::Unavailable, Outcome::Pass, Outcome::Xfail, Outcome::Fail];
    let name = "m::q::d::b::c";
    for (i, worse) in order.iter().enumerate() {
        for better in &order[..i] {
            for pair in [[*better, *worse], [*worse, *better]] {
                let merged = report(&pair.map(|outcome| (name, outcome)));
                assert_eq!(merged.records()[name].outcome, *worse, "{pair:?}");
            }
        }
    }
}

#[test]
fn shards_merge_from_their_folders() {
    let dir = tempfile::tempdir().expect("temp dir");
    let shards = [
        ("one/records", "m::q::d1::b::c", Outcome::Pass),
        ("one/records", "m::q::gpu::b::c", Outcome::Unavailable),
        ("two", "m::q::gpu::b::c", Outcome::Pass),
    ];
    for (folder, name, outcome) in shards {
        let record = sample(name, outcome);
        let cell = record.cell().expect("cell");
        record::write(&dir.path().join(folder), &cell, &record).expect("write");
    }
    let both = [dir.path().join("one"), dir.path().join("two")];
    assert!(load(&both).expect_err("no run").to_string().contains("one/records has no run.json"));
    for (folder, cells) in [("one/records", &["m::q::d1::b::c", "m::q::gpu::b::c"][..]), ("two", &["m::q::gpu::b::c"])]
    {
        let path = dir.path().join(folder).join(run::FILE);
        let text = serde_json::to_string(&run::tests::sample(cells, &[("npu", &["m::q::npu::b::c"])])).expect("run");
        std::fs::write(path, text).expect("write");
    }
    let report = load(&both).expect("load");
    assert_eq!(report.account().of(Outcome::Pass), 2);
    assert!(!report.is_red());
    assert_eq!((report.account().declared, report.account().elsewhere), (3, 1));
    let names = ["m::q::d1::b::c", "m::q::other::b::c"].map(str::to_owned);
    let account = report.against(names).account();
    assert_eq!((account.declared, account.filtered), (2, 1));
    load(&[dir.path().join("three")]).expect_err("a folder that is not there");
}

#[test]
fn nothing_at_all_is_red() {
    assert!(Report::default().is_red());
}

#[test]
fn the_terminal_ends_with_the_accounting_line() {
    let text = terminal(&every_outcome());
    assert_eq!(
        text.lines().last(),
        Some("declared 5 = pass 1 + xfail 1 + fail 1 + unavailable 1 + unsupported 1 + elsewhere 0 + filtered 0")
    );
    assert!(text.contains("to fix it: cargo xtask remedy"), "{text}");
    assert!(text.contains("xfail: m::q3::d1::b::c: a | known thing"), "{text}");
}

#[test]
fn markdown_shows_every_cell_that_is_not_green() {
    let text = markdown(&every_outcome());
    assert!(text.starts_with("# The matrix is red"), "{text}");
    assert!(text.contains("| c | 1 | 1 | 1 | 1 | 1 |"), "{text}");
    assert!(text.contains("### `m::q::d2::b::c`"), "{text}");
    assert!(text.contains("a \\| known thing"), "{text}");
    assert!(text.contains("| unavailable | 1 |"), "{text}");
}

#[test]
fn junit_counts_and_escapes() {
    let text = junit(&every_outcome());
    assert!(text.contains("tests=\"5\" failures=\"1\" skipped=\"2\""), "{text}");
    assert!(text.contains("because &lt;it&gt; &amp; &quot;that&quot;"), "{text}");
    assert_eq!(text.matches("<testcase ").count(), 5);
    assert_eq!(text.matches("</testcase>").count(), 5);
}

#[test]
fn the_page_is_self_contained_and_complete() {
    let text = html(&every_outcome());
    for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert_eq!(text.matches("<td class=\"c ").count(), 5);
    assert_eq!(text.matches("<td></td>").count(), 1);
    assert!(text.contains("\"tokens\":32") && text.contains("\"kernel\":\"avx2\""));
    assert!(!text.contains("<it>"));
    let (first, last) = (text.find("m::q::c</th>").expect("failed"), text.find("m::q2::c</th>").expect("not run"));
    assert!(text.find("id=\"failures\"").expect("failures") < first && first < last);
}

#[test]
fn control_characters_do_not_break_the_files() {
    assert_eq!(escape("a\u{1b}[0m\u{0}'"), "a\u{fffd}[0m\u{fffd}&#39;");
}
