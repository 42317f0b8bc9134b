//! route
/// The compiled rules of one rule set.
#[derive(Debug, Default)]
pub struct Table;
