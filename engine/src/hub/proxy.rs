//! Which proxy a request goes through.
//!
//! The variables mean what they mean to curl, with two differences: `NO_PROXY=*` exempts addresses as well as names, and a
//! proxy that cannot be used is an error before the first packet, not a silent direct connection.
//!
//! `NO_PROXY` is a list, separated by commas or spaces, of
//!
//! | entry | exempts |
//! |---|---|
//! | `*` | everything |
//! | `example.com`, `.example.com`, `*.example.com` | the name and all names below it |
//! | `10.0.0.7`, `::1`, `[::1]` | the address |
//! | `10.0.0.0/8`, `fd00::/8` | the network |
//! | any of these but a network, with `:PORT` | only that port |

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::error::HubError;
use super::failure::shown;
use crate::settings::{Lookup, text};

const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The proxy variables as they stand. Understood when a client is made that may send something.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:` addresses.
    pub http: Option<String>,
    /// For `https:` addresses.
    pub https: Option<String>,
    /// For those that have no proxy of their own.
    pub all: Option<String>,
    /// Hosts that are reached directly.
    pub none: Option<String>,
}

impl fmt::Debug for Proxies {
    /// Without the addresses, which may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |value: &Option<String>| value.as_ref().map(|_| "set");
        f.debug_struct("Proxies")
            .field("http", &set(&self.http))
            .field("https", &set(&self.https))
            .field("all", &set(&self.all))
            .field("none", &self.none)
            .finish()
    }
}

impl Proxies {
    /// Reads the variables, upper case before lower case.
    pub(crate) fn from_lookup(lookup: Lookup<'_>) -> Self {
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| text(lookup, name));
        // In a CGI program HTTP_PROXY is what a stranger sent as the header `Proxy`.
        let cgi = text(lookup, "REQUEST_METHOD").is_some();
        Self {
            http: first([if cgi { "http_proxy" } else { "HTTP_PROXY" }, "http_proxy"]),
            https: first(["HTTPS_PROXY", "https_proxy"]),
            all: first(["ALL_PROXY", "all_proxy"]),
            none: first(["NO_PROXY", "no_proxy"]),
        }
    }

    /// # Errors
    /// [`HubError::Setting`] for an address that is not a proxy's.
    pub(crate) fn routes(&self) -> Result<Routes, HubError> {
        let all = self.all.as_deref().map(|value| parse("ALL_PROXY", value)).transpose()?;
        let own = |name, value: &Option<String>| value.as_deref().map(|value| parse(name, value)).transpose();
        let list = self.none.as_deref().unwrap_or_default();
        Ok(Routes {
            http: own("HTTP_PROXY", &self.http)?.or_else(|| all.clone()),
            https: own("HTTPS_PROXY", &self.https)?.or(all),
            direct: list.split([',', ' ']).filter(|entry| !entry.is_empty()).map(Direct::new).collect(),
        })
    }
}

fn parse(name: &'static str, value: &str) -> Result<Url, HubError> {
    let full = if value.contains("://") { value.trim().to_owned() } else { format!("http://{}", value.trim()) };
    let refuse = |value: String, why: &str| HubError::Setting {
        name,
        value,
        why: why.to_owned(),
        example: "socks5h://127.0.0.1:1080",
    };
    // What cannot be taken apart is not shown: it may hold a password.
    let url = Url::parse(&full).map_err(|cause| refuse("...".to_owned(), &cause.to_string()))?;
    if !SCHEMES.contains(&url.scheme()) {
        let why = "a proxy's address begins with http://, https://, socks4://, socks4a://, socks5:// or socks5h://";
        return Err(refuse(shown(&url), why));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse(shown(&url), "it names no host"));
    }
    Ok(url)
}

/// The proxies, understood.
#[derive(Default)]
pub(crate) struct Routes {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
}

impl Routes {
    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy for an address, if it has one.
    pub(crate) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = url.host_str()?.trim_matches(['[', ']']);
        let port = url.port_or_known_default();
        (!self.direct.iter().any(|entry| entry.matches(host, port))).then_some(proxy)
    }
}

/// One entry of `NO_PROXY`.
struct Direct {
    hosts: Hosts,
    port: Option<u16>,
}

enum Hosts {
    All,
    Net { bits: u128, prefix: u32, v4: bool },
    Below(String),
}

/// An address as 128 bits from the left, and whether it is of IPv4.
fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    }
}

fn network(entry: &str) -> Option<Hosts> {
    let (address, prefix) = match entry.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
        None => (entry, None),
    };
    let (bits, v4) = bits(address.trim_matches(['[', ']']).parse().ok()?);
    let longest = if v4 { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest);
    (prefix <= longest).then_some(Hosts::Net { bits, prefix, v4 })
}

impl Direct {
    fn new(entry: &str) -> Self {
        if let Some(hosts) = network(entry) {
            return Self { hosts, port: None };
        }
        let split = entry.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = split.map_or((entry, None), |(host, port)| (host, Some(port)));
        let hosts = match network(host) {
            Some(hosts) => hosts,
            None if host == "*" => Hosts::All,
            None => Hosts::Below(host.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase()),
        };
        Self { hosts, port }
    }

    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        let address = host.parse::<IpAddr>().ok().map(bits);
        match (&self.hosts, address) {
            (Hosts::All, _) => true,
            (Hosts::Net { bits, prefix, v4 }, Some((other, other_v4))) => {
                *v4 == other_v4 && (bits ^ other).checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            (Hosts::Below(name), None) => {
                let host = host.to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_lookup(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn no_proxy_exempts_names_addresses_and_networks() {
        let goes = |none: &str, url: &str| {
            let routes = proxies(&[("ALL_PROXY", "socks5h://p:1080"), ("NO_PROXY", none)]).routes().unwrap();
            routes.of(&Url::parse(url).unwrap()).is_none()
        };
        for (none, url, direct) in [
            ("*", "http://127.0.0.1:8000/x", true),
            ("*", "https://huggingface.co/x", true),
            ("127.0.0.1", "http://127.0.0.1:8000/x", true),
            ("127.0.0.1:8000", "http://127.0.0.1:8000/x", true),
            ("127.0.0.1:8001", "http://127.0.0.1:8000/x", false),
            ("127.0.0.1", "http://127.0.0.2/x", false),
            ("10.0.0.0/8, 192.168.0.0/16", "http://192.168.3.4/x", true),
            ("10.0.0.0/8", "http://11.0.0.1/x", false),
            ("0.0.0.0/0", "http://8.8.8.8/x", true),
            ("0.0.0.0/0", "http://[::1]/x", false),
            ("::1", "http://[::1]:9/x", true),
            ("[::1]:9", "http://[::1]:9/x", true),
            ("fd00::/8", "http://[fd12::1]/x", true),
            ("example.com", "https://a.example.com/x", true),
            (".Example.com other", "https://example.com/x", true),
            ("*.example.com", "https://a.b.example.com/x", true),
            ("example.com", "https://badexample.com/x", false),
            ("example.com:443", "https://example.com/x", true),
            ("example.com:80", "https://example.com/x", false),
            ("", "https://example.com/x", false),
        ] {
            assert_eq!(goes(none, url), direct, "NO_PROXY={none} {url}");
        }
    }

    #[test]
    fn the_proxy_is_the_nearest_and_must_be_one() {
        let of = |pairs: &[(&str, &str)], url: &str| {
            let routes = proxies(pairs).routes().unwrap();
            routes.of(&Url::parse(url).unwrap()).map(Url::to_string)
        };
        let all = [("ALL_PROXY", "socks5h://u:p@s:1080"), ("https_proxy", "web:3128")];
        assert_eq!(of(&all, "https://h/x").as_deref(), Some("http://web:3128/"));
        assert_eq!(of(&all, "http://h/x").as_deref(), Some("socks5h://u:p@s:1080"));
        assert_eq!(of(&[("HTTP_PROXY", "a:1"), ("REQUEST_METHOD", "GET")], "http://h/x"), None);
        assert_eq!(of(&[("HTTP_PROXY", ""), ("http_proxy", "b:1")], "http://h/x").as_deref(), Some("http://b:1/"));
        for bad in ["ftp://u:secret@s:1", "socks6://s:1", "http://", "socks5://", "http://u:secret@s:port"] {
            let error = proxies(&[("HTTPS_PROXY", bad)]).routes().err().unwrap().to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("secret"), "{bad}: {error}");
        }
        let shown = format!("{:?}", proxies(&all));
        assert_eq!(shown, r#"Proxies { http: None, https: Some("set"), all: Some("set"), none: None }"#);
        assert!(Routes::default().is_empty() && proxies(&[("NO_PROXY", "*")]).routes().unwrap().is_empty());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            assert!(!proxies(&[(name, "a:1")]).routes().unwrap().is_empty(), "{name}");
        }
    }
}
