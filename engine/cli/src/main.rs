//! The program `bitnet`; everything is in the library, which `cargo xtask` shares.

fn main() -> std::process::ExitCode {
    bitnet_cli::main()
}
