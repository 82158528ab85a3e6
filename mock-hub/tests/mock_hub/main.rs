//! The mock hub from outside, as a library and as a program.

mod any;
mod faults;
mod program;
mod protocol;

/// Follows no redirect and waits ten seconds.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    client.timeout(std::time::Duration::from_secs(10)).build().unwrap()
}
