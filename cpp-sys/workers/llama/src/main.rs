//! The worker of llama.cpp. Its program is `../../shared/main.rs`; what is its own is how the C++ is built (`build.rs`).

use std::process::ExitCode;

#[path = "../../shared/main.rs"]
mod shared;

fn main() -> ExitCode {
    shared::main()
}
