//! The binary: arguments, a command, an exit code.

fn main() -> std::process::ExitCode {
    tollgate::cli::run()
}
