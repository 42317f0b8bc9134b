//! Placeholder of the monitor.

pub mod client {
    //! Placeholder.
    use std::path::PathBuf;
    use std::process::ExitCode;

    pub struct ClientArgs {
        pub socket: Option<PathBuf>,
        pub config: PathBuf,
        pub json: bool,
    }

    pub fn status(_: &ClientArgs) -> ExitCode {
        ExitCode::from(3)
    }

    pub fn servers(_: &ClientArgs) -> ExitCode {
        ExitCode::from(3)
    }

    pub fn connections(_: &ClientArgs) -> ExitCode {
        ExitCode::from(3)
    }
}
