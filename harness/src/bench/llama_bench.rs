//! What `llama-bench -o json` prints, and `bitnet bench` too: an array of tests, one object each. Of its fields these are
//! read:
//!
//! ```text
//! n_prompt, n_gen        tokens; a prompt is n_gen = 0, a generation n_prompt = 0
//! n_depth                tokens before those, if it is said and not 0
//! n_threads              of the computation, if it is said
//! samples_ts             tokens a second, run by run; or avg_ts, their mean
//! peak_rss               bytes, ours only
//! ```
//!
//! Source: `tools/llama-bench` of llama.cpp; the fields have been the same since 2023.

use super::engine::Rates;
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseError {
    #[error("it printed no list of tests ({problem}): {start:?}")]
    Form { problem: String, start: String },
    /// The test that was asked for is not there.
    #[error("its list has no test of {what}; it has {found}")]
    Absent { what: String, found: String },
    /// A test with another number of threads.
    #[error("it ran on {found} threads, asked were {asked}")]
    Threads { found: usize, asked: usize },
    /// A rate that is none.
    #[error("its test of {what} has no rate above zero")]
    Rate { what: String },
}

#[derive(Debug, Deserialize)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    #[serde(default)]
    n_depth: usize,
    n_threads: Option<usize>,
    avg_ts: Option<f64>,
    #[serde(default)]
    samples_ts: Vec<f64>,
    peak_rss: Option<u64>,
}

/// The rates of a prompt and of a generation: means of their runs.
///
/// # Errors
/// The output is of another form, or does not have what was asked for.
pub fn parse(output: &str, prompt: usize, generate: usize, threads: usize) -> Result<Rates, ParseError> {
    let tests = tests(output)?;
    Ok(Rates {
        prefill: rate(&tests, (prompt, 0, 0), threads)?,
        decode: rate(&tests, (0, generate, 0), threads)?,
        peak_rss: tests.iter().filter_map(|test| test.peak_rss).max(),
    })
}

/// The rate of a generation that comes after `depth` tokens.
pub fn deep(output: &str, generate: usize, depth: usize, threads: usize) -> Result<f64, ParseError> {
    rate(&tests(output)?, (0, generate, depth), threads)
}

fn tests(output: &str) -> Result<Vec<Test>, ParseError> {
    serde_json::from_str(output).map_err(|error| ParseError::Form {
        problem: error.to_string(),
        start: output.trim_start().chars().take(80).collect(),
    })
}

/// The mean rate of a test by its tokens of the prompt, of the generation, and before both.
fn rate(tests: &[Test], wanted: (usize, usize, usize), threads: usize) -> Result<f64, ParseError> {
    let kind = |t: &Test| (t.n_prompt, t.n_gen, t.n_depth);
    let name = |(prompt, generate, depth): (usize, usize, usize)| match (prompt, generate, depth) {
        (p, 0, 0) => format!("a prompt of {p}"),
        (0, n, 0) => format!("a generation of {n}"),
        (0, n, d) => format!("a generation of {n} at depth {d}"),
        (p, n, 0) => format!("{n} tokens after {p}"),
        (p, n, d) => format!("{n} tokens after {p} at depth {d}"),
    };
    let what = name(wanted);
    let test = tests.iter().find(|t| kind(t) == wanted).ok_or_else(|| {
        let found: Vec<String> = tests.iter().map(|t| name(kind(t))).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        ParseError::Absent { what: what.clone(), found }
    })?;
    if let Some(found) = test.n_threads.filter(|found| *found != threads) {
        return Err(ParseError::Threads { found, asked: threads });
    }
    let mean = || test.samples_ts.iter().sum::<f64>() / test.samples_ts.len() as f64;
    let rate = if test.samples_ts.is_empty() { test.avg_ts } else { Some(mean()) };
    rate.filter(|rate| rate.is_finite() && *rate > 0.0).ok_or(ParseError::Rate { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llama.cpp prints it, shortened.
    const REAL: &str = r#"[
      { "build_commit": "8cf427ff", "cpu_info": "a CPU", "model_type": "bitnet 2B", "n_threads": 2, "n_prompt": 512,
        "n_gen": 0, "avg_ns": 12000000000, "avg_ts": 42.5, "stddev_ts": 0.5, "samples_ns": [1, 2], "samples_ts": [42.0, 43.0] },
      { "n_threads": 2, "n_prompt": 0, "n_gen": 32, "avg_ts": 11.25, "stddev_ts": 0.0, "samples_ts": [ 11.25 ] }
    ]"#;

    #[test]
    fn the_real_form_is_read() {
        let rates = parse(REAL, 512, 32, 2).expect("rates");
        assert_eq!((rates.prefill, rates.decode, rates.peak_rss), (42.5, 11.25, None));
        let short = r#"[{"n_prompt":8,"n_gen":0,"avg_ts":2,"peak_rss":7},{"n_prompt":0,"n_gen":4,"avg_ts":3.5}]"#;
        let rates = parse(short, 8, 4, 1).expect("rates");
        assert_eq!((rates.prefill, rates.decode, rates.peak_rss), (2.0, 3.5, Some(7)));
    }

    #[test]
    fn a_depth_is_a_test_of_its_own() {
        let both = r#"[{"n_prompt":0,"n_gen":4,"avg_ts":9},{"n_prompt":0,"n_gen":4,"n_depth":64,"avg_ts":3}]"#;
        assert_eq!((deep(both, 4, 64, 1), deep(both, 4, 0, 1)), (Ok(3.0), Ok(9.0)));
        let error = deep(both, 4, 65, 1).expect_err("another depth").to_string();
        assert!(error.contains("no test of a generation of 4 at depth 65; it has a generation of 4, a gen"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        let one = |json: &str| parse(json, 8, 4, 1).expect_err("an error").to_string();
        for (json, words) in [
            ("", "no list of tests"),
            ("usage: bench [options]", "usage: bench"),
            ("{}", "no list of tests"),
            ("[]", "no test of a prompt of 8; it has none"),
            (r#"[{"n_prompt":8}]"#, "n_gen"),
            (r#"[{"n_prompt":16,"n_gen":0,"avg_ts":2}]"#, "it has a prompt of 16"),
            (r#"[{"n_prompt":8,"n_gen":0,"avg_ts":2},{"n_prompt":8,"n_gen":4,"avg_ts":2}]"#, "4 tokens after 8"),
            (r#"[{"n_prompt":8,"n_gen":0,"avg_ts":2,"n_threads":3}]"#, "on 3 threads, asked were 1"),
            (r#"[{"n_prompt":8,"n_gen":0,"avg_ts":0}]"#, "a prompt of 8 has no rate above zero"),
            (r#"[{"n_prompt":8,"n_gen":0}]"#, "no rate above zero"),
            (r#"[{"n_prompt":8,"n_gen":0,"avg_ts":null,"samples_ts":[-1.0]}]"#, "no rate above zero"),
        ] {
            let found = one(json);
            assert!(found.contains(words), "{json}: {found}");
        }
    }
}
