//! What rules see of a message's body, and the conditions on it.
//!
//! A body is asked for only where a rule would take the message but for it (`NeedBody`). It is then read whole, and
//! parsed once, however many rules look at it.

use std::cell::OnceCell;
use std::collections::HashMap;

use memchr::memchr_iter;
use serde_json::Value;

use super::condition::Check;
use super::head::{Head, Pairs, Scratch, decoded};

/// What is known of a message's body.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// There is none, which is as good as one of no bytes.
    Empty,
    /// It has not been read; a rule may want it.
    Unread,
    /// It is larger than rules look at: no condition on it holds.
    TooLarge,
    Whole(&'a Content),
}

/// A body that has been read whole.
#[derive(Debug, Default)]
pub struct Content {
    bytes: Vec<u8>,
    form: OnceCell<Form>,
    json: OnceCell<Option<Value>>,
}

/// Decoded values by their decoded names, in order.
type Form = HashMap<Vec<u8>, Vec<Vec<u8>>>;

#[derive(Debug, Clone)]
pub(super) struct BodyTest {
    pub part: Part,
    pub check: Check,
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    /// All of it, as it was sent.
    Text,
    /// A field of `application/x-www-form-urlencoded`; any of that name.
    Form(Box<[u8]>),
    /// What a JSON pointer (RFC 6901) leads to.
    Json(Box<str>),
}

/// Characters of a body that a person is shown.
const SHOWN: usize = 60;

impl Content {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Content {
        Content { bytes: bytes.into(), ..Content::default() }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn form(&self) -> &Form {
        self.form.get_or_init(|| {
            let mut form = Form::new();
            for (name, value) in (Pairs { rest: &self.bytes, between: b'&' }) {
                form.entry(form_text(name)).or_default().push(form_text(value));
            }
            form
        })
    }

    /// `None`: it is none. The parser ends at 128 levels.
    fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_slice(&self.bytes).ok()).as_ref()
    }
}

/// A name or value of a form: `+` is a blank there, and escapes are undone.
fn form_text(text: &[u8]) -> Vec<u8> {
    let mut plain: Scratch = Scratch::from_slice(text);
    for at in memchr_iter(b'+', text) {
        plain[at] = b' ';
    }
    let mut scratch = Scratch::new();
    decoded(&plain, &mut scratch).to_vec()
}

impl BodyTest {
    /// Whether it holds; never of a body that was not read.
    pub fn holds(&self, head: &Head<'_>) -> bool {
        self.check.single(|test| self.any(head, test))
    }

    /// Whether a value of this part passes a test.
    fn any(&self, head: &Head<'_>, test: &dyn Fn(&[u8]) -> bool) -> bool {
        let content = match head.body {
            Body::Whole(content) => content,
            Body::Empty => return matches!(self.part, Part::Text) && test(b""),
            Body::Unread | Body::TooLarge => return false,
        };
        match &self.part {
            Part::Text => test(&content.bytes),
            Part::Form(name) => {
                is_form(head) && content.form().get(&**name).is_some_and(|all| all.iter().any(|value| test(value)))
            }
            Part::Json(pointer) => {
                let found = if is_json(head) { content.json().and_then(|json| json.pointer(pointer)) } else { None };
                match found {
                    Some(Value::String(text)) => test(text.as_bytes()),
                    Some(other @ (Value::Null | Value::Bool(_) | Value::Number(_))) => {
                        test(other.to_string().as_bytes())
                    }
                    // What has parts is no value.
                    Some(Value::Array(_) | Value::Object(_)) | None => false,
                }
            }
        }
    }

    /// What it looks at in this message, for a person.
    pub fn seen(&self, head: &Head<'_>) -> String {
        let what = match &self.part {
            Part::Form(_) if !is_form(head) => "a body that is no form by its Content-Type",
            Part::Json(_) if !is_json(head) => "a body that is no JSON by its Content-Type",
            _ => match head.body {
                Body::Empty => "no body",
                Body::Unread => "a body that was not read",
                Body::TooLarge => "a body that is too large to be looked at",
                Body::Whole(content) if matches!(self.part, Part::Json(_)) && content.json().is_none() => {
                    "a body that is not valid JSON"
                }
                Body::Whole(_) => {
                    let found = std::cell::RefCell::new(Vec::new());
                    self.any(head, &|value| {
                        found.borrow_mut().push(String::from_utf8_lossy(value).chars().take(SHOWN).collect::<String>());
                        false
                    });
                    let found = found.into_inner();
                    return if found.is_empty() { "none".to_owned() } else { found.join(", ") };
                }
            },
        };
        what.to_owned()
    }
}

fn is_form(head: &Head<'_>) -> bool {
    head.media_type().is_some_and(|kind| &*kind == b"application/x-www-form-urlencoded")
}

/// RFC 8259 §11 and the suffix of RFC 6839 §3.1.
fn is_json(head: &Head<'_>) -> bool {
    head.media_type().is_some_and(|kind| &*kind == b"application/json" || kind.ends_with(b"+json"))
}
