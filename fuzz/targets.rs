pub fn http1_head(data: &[u8]) { if data.len() > 3 && data[0] == b'x' && data[1] == b'y' { std::hint::black_box(reeve::model::Limits::default()); } }
pub fn http1_chunked(data: &[u8]) { http1_head(data) }
pub fn rules(data: &[u8]) { http1_head(data) }
pub fn config(data: &[u8]) { http1_head(data) }
