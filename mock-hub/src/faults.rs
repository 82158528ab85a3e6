//! The faults, as values: what goes wrong ([`Fault`]) and when ([`Rule`]).
//!
//! Rules compose: every rule that matches a request applies to it, in the order given, so `drip` and `corrupt` together
//! give a slow, wrong file. A rule with `times` ends after that many requests, which is how flapping is said: `status=503,times=2`
//! fails twice and then lets go. A new fault is one variant here, one line in the parser, and its effect in `answer.rs` (what
//! the server says) or `front.rs` (what happens to the connection).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::server::Side;

/// One way to go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection closes after this many bytes of the body.
    Cut {
        /// Bytes of the body that still arrive.
        at: u64,
    },
    /// The body comes in small pieces.
    Drip {
        /// Bytes in one piece.
        chunk: usize,
        /// Time between two pieces.
        pause: Duration,
    },
    /// Nothing comes any more after this many bytes of the body, and the connection stays open.
    Stall {
        /// Bytes of the body that still arrive.
        at: u64,
        /// How long the silence lasts; then the rest follows.
        pause: Duration,
    },
    /// `Content-Length` is off by this much.
    WrongLength { delta: i64 },
    /// No `Content-Length` at all; the body ends with the connection.
    NoLength,
    /// One byte of the file is inverted; the length is right.
    Corrupt {
        /// Position in the file (modulo its length).
        at: u64,
    },
    /// A web page instead of the answer, with this status: a captive portal, an error page of a proxy.
    Html { status: u16 },
    /// A bare status without any header that explains it.
    Status { status: u16 },
    /// 429 with `Retry-After`.
    RetryAfter { seconds: u64 },
    /// 429 with the hub's own `ratelimit: "api";r=0;t=N`.
    RateLimit { seconds: u64 },
    /// A redirect to the very same place.
    RedirectLoop,
    /// A redirect to the third origin.
    RedirectAway,
    /// The hub says that it is over there: a redirect to the third origin, where under `/hub` the same hub answers.
    Moved {
        /// The HTTP status: 301, 302, 307 or 308.
        status: u16,
    },
    /// The connection closes without an answer.
    Refuse,
    /// The answer begins late.
    Delay { pause: Duration },
    /// The server ignores `Range` and sends the whole file with 200.
    IgnoreRange,
    /// A part begins so many bytes later than was asked for, and says so.
    OtherRange {
        /// Added to its first byte; one byte is sent at least.
        by: u64,
    },
    /// The hub names another commit than that of its answer.
    OtherCommit,
    /// A header of the answer has another value.
    Header {
        /// Its name.
        name: String,
        /// What stands there instead; without a value there is no such header.
        value: String,
    },
}

/// A fault and the requests that it strikes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub fault: Fault,
    /// Only on this side (hub, CDN, elsewhere).
    pub side: Option<Side>,
    /// Only for this method (upper case).
    pub method: Option<String>,
    /// Only for request paths that end so.
    pub path: Option<String>,
    /// Matching requests that pass unharmed before the first fault.
    pub skip: u64,
    /// After this many faults the rule ends.
    pub times: Option<u64>,
    /// Percent of the matching requests that it strikes.
    pub chance: u8,
}

impl Fault {
    /// A rule without conditions.
    pub fn always(self) -> Rule {
        Rule { fault: self, side: None, method: None, path: None, skip: 0, times: None, chance: 100 }
    }
}

impl Rule {
    pub fn on(mut self, side: Side) -> Self {
        self.side = Some(side);
        self
    }
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_ascii_uppercase());
        self
    }
    pub fn path(mut self, suffix: &str) -> Self {
        self.path = Some(suffix.to_owned());
        self
    }
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }
    pub fn chance(mut self, percent: u8) -> Self {
        self.chance = percent;
        self
    }
}

/// The rules of a hub and how often each has struck.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<(Rule, u64, u64)>, // rule, matching requests seen, faults done
    random: u64,
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>, seed: u64) -> Self {
        Self { rules: rules.into_iter().map(|rule| (rule, 0, 0)).collect(), random: seed }
    }

    pub(crate) fn push(&mut self, rule: Rule) {
        self.rules.push((rule, 0, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The faults of one request; counts them.
    pub(crate) fn strike(&mut self, side: Side, method: &str, path: &str) -> Vec<Fault> {
        let mut out = Vec::new();
        for (rule, seen, done) in &mut self.rules {
            let matches = rule.side.is_none_or(|s| s == side)
                && rule.method.as_deref().is_none_or(|m| m == method)
                && rule.path.as_deref().is_none_or(|p| path.ends_with(p));
            if !matches {
                continue;
            }
            *seen += 1;
            if *seen <= rule.skip || rule.times.is_some_and(|times| *done >= times) {
                continue;
            }
            if rule.chance < 100 {
                // splitmix64: the same seed gives the same bad luck
                self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = self.random;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                if (z ^ (z >> 31)) % 100 >= u64::from(rule.chance) {
                    continue;
                }
            }
            *done += 1;
            out.push(rule.fault.clone());
        }
        out
    }
}

/// Why a `--fault` text was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultError(String);

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; a fault is one of cut=BYTES, drip=BYTES/PAUSE, stall=BYTES/PAUSE, length=DELTA, nolength, corrupt=BYTE, html=STATUS, \
             status=STATUS, retry-after=SECONDS, ratelimit=SECONDS, loop, away, moved=STATUS, refuse, delay=PAUSE, norange, other-range=BYTES, other-commit, header=NAME:VALUE, followed by any of \
             on=hub|cdn|elsewhere, method=GET|HEAD, path=SUFFIX, skip=N, times=N, chance=PERCENT; pauses are 10ms or 5s; \
             for example: cut=100,on=cdn,times=2",
            self.0
        )
    }
}

impl std::error::Error for FaultError {}

impl FromStr for Rule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.split(',').map(|part| part.split_once('=').unwrap_or((part, "")));
        let (name, value) = parts.next().unwrap_or_default();
        let fault = match name.trim() {
            "cut" => Fault::Cut { at: number(name, value)? },
            "drip" => {
                let (chunk, pause) = pair(name, value)?;
                Fault::Drip { chunk: usize::try_from(chunk).unwrap_or(usize::MAX).max(1), pause }
            }
            "stall" => {
                let (at, pause) = pair(name, value)?;
                Fault::Stall { at, pause }
            }
            "length" => Fault::WrongLength { delta: number(name, value)? },
            "nolength" => Fault::NoLength,
            "corrupt" => Fault::Corrupt { at: number(name, value)? },
            "html" => Fault::Html { status: status(name, value)? },
            "status" => Fault::Status { status: status(name, value)? },
            "retry-after" => Fault::RetryAfter { seconds: number(name, value)? },
            "ratelimit" => Fault::RateLimit { seconds: number(name, value)? },
            "loop" => Fault::RedirectLoop,
            "away" => Fault::RedirectAway,
            "moved" => Fault::Moved { status: status(name, value)? },
            "refuse" => Fault::Refuse,
            "delay" => Fault::Delay { pause: pause(name, value)? },
            "norange" => Fault::IgnoreRange,
            "other-range" => Fault::OtherRange { by: number(name, value)? },
            "other-commit" => Fault::OtherCommit,
            "header" => {
                let (name, value) =
                    value.split_once(':').ok_or_else(|| FaultError(format!("`header={value}` needs NAME:VALUE")))?;
                Fault::Header { name: name.trim().to_owned(), value: value.trim().to_owned() }
            }
            other => return Err(FaultError(format!("unknown fault `{other}`"))),
        };
        let mut rule = fault.always();
        for (key, value) in parts {
            match key.trim() {
                "on" => rule.side = Some(value.parse()?),
                "method" => rule.method = Some(value.to_ascii_uppercase()),
                "path" => rule.path = Some(value.to_owned()),
                "skip" => rule.skip = number(key, value)?,
                "times" => rule.times = Some(number(key, value)?),
                "chance" => rule.chance = number(key, value)?,
                other => return Err(FaultError(format!("unknown condition `{other}`"))),
            }
        }
        Ok(rule)
    }
}

impl FromStr for Side {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        match text {
            "hub" => Ok(Side::Hub),
            "cdn" => Ok(Side::Cdn),
            "elsewhere" => Ok(Side::Elsewhere),
            other => Err(FaultError(format!("unknown side `{other}`"))),
        }
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, FaultError> {
    value.parse().map_err(|_| FaultError(format!("`{name}={value}` needs a number")))
}

fn status(name: &str, value: &str) -> Result<u16, FaultError> {
    let status = number(name, value)?;
    if (200..=599).contains(&status) {
        Ok(status)
    } else {
        Err(FaultError(format!("`{name}={value}` needs a status from 200 to 599")))
    }
}

fn pause(name: &str, value: &str) -> Result<Duration, FaultError> {
    let millis = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(ms), _) => number::<u64>(name, ms)?,
        (None, Some(s)) => number::<u64>(name, s)?.saturating_mul(1000),
        (None, None) => return Err(FaultError(format!("`{name}={value}` needs a pause"))),
    };
    Ok(Duration::from_millis(millis))
}

fn pair(name: &str, value: &str) -> Result<(u64, Duration), FaultError> {
    let (bytes, time) =
        value.split_once('/').ok_or_else(|| FaultError(format!("`{name}={value}` needs BYTES/PAUSE")))?;
    Ok((number(name, bytes)?, pause(name, time)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_from_text() {
        let rule: Rule = "cut=100,on=cdn,method=get,path=tokenizer.json,skip=1,times=3,chance=25".parse().unwrap();
        let wanted = Fault::Cut { at: 100 }
            .always()
            .on(Side::Cdn)
            .method("GET")
            .path("tokenizer.json")
            .skip(1)
            .times(3)
            .chance(25);
        assert_eq!(rule, wanted);
        let rule: Rule = "stall=10/5s".parse().unwrap();
        assert_eq!(rule.fault, Fault::Stall { at: 10, pause: Duration::from_secs(5) });
        assert_eq!("other-range=7".parse::<Rule>().unwrap().fault, Fault::OtherRange { by: 7 });
        assert_eq!("other-commit".parse::<Rule>().unwrap().fault, Fault::OtherCommit);
        let header = Fault::Header { name: "etag".to_owned(), value: "W/\"x\"".to_owned() };
        assert_eq!("header=etag: W/\"x\"".parse::<Rule>().unwrap().fault, header);
        for bad in [
            "",
            "header=etag",
            "cut",
            "cut=x",
            "other-range",
            "drip=5",
            "html=99",
            "cut=1,on=moon",
            "cut=1,foo=2",
            "delay=5",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "`{bad}` must be refused");
        }
    }

    #[test]
    fn skip_and_times_make_a_fault_flap() {
        let mut plan = Rules::new(vec![Fault::Refuse.always().skip(1).times(2)], 1);
        let struck: Vec<bool> = (0..5).map(|_| !plan.strike(Side::Hub, "GET", "/x").is_empty()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
    }

    #[test]
    fn chance_is_about_right_and_repeats() {
        let run = || {
            let mut plan = Rules::new(vec![Fault::Refuse.always().chance(30)], 7);
            (0..1000).map(|_| plan.strike(Side::Cdn, "GET", "/x").len()).collect::<Vec<_>>()
        };
        let hits: usize = run().iter().sum();
        assert!((240..360).contains(&hits), "{hits}");
        assert_eq!(run(), run());
    }

    #[test]
    fn rules_compose_and_filter() {
        let mut plan = Rules::new(
            vec![Fault::Corrupt { at: 1 }.always().on(Side::Cdn), Fault::NoLength.always().method("GET")],
            0,
        );
        assert_eq!(plan.strike(Side::Cdn, "GET", "/x"), [Fault::Corrupt { at: 1 }, Fault::NoLength]);
        assert_eq!(plan.strike(Side::Hub, "HEAD", "/x"), []);
    }
}
