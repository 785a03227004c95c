//! YAML as values: what these manifests use of it (no anchors, no tags), read by itself so that the gateway's reader
//! cannot be wrong in the same way.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// All documents of a text; those without content are left out.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let mut events = Parser::new_from_str(text).map(|event| event.expect("the manifests are YAML").0);
    let mut found = Vec::new();
    while let Some(event) = events.next() {
        if let Event::DocumentStart(_) = event {
            let first = events.next().expect("a document has a node");
            found.push(node(first, &mut events));
        }
    }
    found.retain(|document| !document.is_null());
    found
}

fn node<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    let next = |events: &mut _| Iterator::next(events).expect("every collection ends");
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(events) {
                    Event::SequenceEnd => return Value::Array(items),
                    item => items.push(node(item, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut members = Map::new();
            loop {
                match next(events) {
                    Event::MappingEnd => return Value::Object(members),
                    Event::Scalar(key, ..) => {
                        let value = next(events);
                        let twice = members.insert(key.into_owned(), node(value, events));
                        assert!(twice.is_none(), "a key is there twice");
                    }
                    other => panic!("a key is a scalar, not {other:?}"),
                }
            }
        }
        other => panic!("not used in these manifests: {other:?}"),
    }
}

/// YAML 1.2's core schema (section 10.3), as far as it is used.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse::<u64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}
