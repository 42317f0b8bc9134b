//! Hands the command line to `app`.

fn main() -> std::process::ExitCode {
    reeve::app::main()
}
