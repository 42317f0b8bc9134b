//! Placeholder of the reader of texts.

use std::path::PathBuf;

use crate::model::{Config, Fault};

pub mod fault {
    //! Placeholder.
    use super::source::Sources;
    use crate::model::{Fault, Severity};

    pub fn sort(_: &mut Vec<Fault>) {}

    pub fn any_error(faults: &[Fault]) -> bool {
        faults.iter().any(|fault| fault.severity == Severity::Error)
    }

    pub fn text(faults: &[Fault], _: &Sources) -> String {
        faults.iter().map(|fault| format!("{}\n", fault.message)).collect()
    }

    pub fn json(_: &[Fault]) -> String {
        "[]".to_owned()
    }
}

pub mod source {
    //! Placeholder.
    #[derive(Debug, Clone, Default)]
    pub struct Sources;
}

use source::Sources;

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub file: PathBuf,
    pub base: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    pub overrides: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub struct Load {
    pub config: Option<Config>,
    pub faults: Vec<Fault>,
    pub sources: Sources,
}

pub fn load(_: &Request) -> Load {
    Load::default()
}
