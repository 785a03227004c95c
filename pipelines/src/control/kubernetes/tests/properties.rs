//! What holds for every text and every order of changes.
//!
//! `POLLGATE_KUBERNETES_CASES` sets the number of cases of each property; the default takes seconds.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::findings;
use crate::control::kubernetes::{Changes, Kind, Object, ObjectId, ObjectStore};
use crate::control::services::desired::{DesiredNode, DesiredService, Origin, ServiceKey};

fn cases() -> ProptestConfig {
    let cases =
        std::env::var("POLLGATE_KUBERNETES_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Every finding stands inside the text (or right behind it), and says what is wrong and what would be right.
fn check_places(store: &ObjectStore, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    for finding in store.findings() {
        let place = finding.place.as_ref().unwrap();
        assert!((1..=lines.len()).contains(&place.line), "{finding}\n{text:.300}");
        assert!((1..=lines[place.line - 1] + 1).contains(&place.column), "{finding}\n{text:.300}");
        assert!(!finding.wrong.is_empty() && !finding.right.is_empty());
        assert!(finding.to_string().chars().all(|character| !character.is_control()), "{finding:?}");
        assert!(finding.to_string().len() < 2_000);
    }
}

fn read(file: &str, bytes: &[u8]) -> ObjectStore {
    let mut store = ObjectStore::new();
    store.replace_file(file, Some(bytes));
    check_places(&store, bytes);
    for key in store.service_keys() {
        let _ = store.desired(key);
    }
    store
}

/// The reference cluster in one text.
fn reference() -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/reference-cluster");
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().fold(String::new(), |text, file| text + "---\n" + &std::fs::read_to_string(file).unwrap())
}

/// The reference cluster as one JSON list, on several lines.
fn reference_json() -> String {
    let mut items = String::new();
    for (number, name) in ["a", "b", "c"].iter().enumerate() {
        write!(
            items,
            r#"{}{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}", "annotations": {{"pollgate.io/weights": "10.0.0.1=2"}}}},
 "spec": {{"type": "NodePort", "clusterIP": "10.254.0.{}", "ports": [{{"name": "http", "port": 80, "nodePort": 3008{number}}}]}}}},
{{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {{"name": "{name}-1", "labels": {{"kubernetes.io/service-name": "{name}"}}}},
 "addressType": "IPv4", "ports": [{{"name": "http", "port": 8080}}], "endpoints": [{{"addresses": ["10.0.0.1"], "nodeName": "node-1"}}]}}"#,
            if number == 0 { "" } else { ",\n" },
            number + 1
        )
        .unwrap();
    }
    format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n{items}\n]}}\n")
}

/// A way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize, usize),
    Insert(usize, String),
    Set(usize, u8),
    Double(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop_oneof![
        "[\\[\\]{}:,&*!|>'\"%@`#?\\- \t\n~<0-9a-z\u{e4}]{1,6}",
        prop::sample::select(vec![
            "---\n",
            "...\n",
            "\n",
            "  ",
            ": ",
            "- ",
            "&a ",
            "*a",
            "<<: ",
            "!!str ",
            "null",
            "\u{feff}",
            "\u{1b}[2J"
        ])
        .prop_map(str::to_owned),
    ];
    prop_oneof![
        (any::<usize>(), 1..40_usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        (any::<usize>(), piece).prop_map(|(at, text)| Damage::Insert(at, text)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<usize>(), 1..400_usize).prop_map(|(at, length)| Damage::Double(at, length)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: usize, bytes: &Vec<u8>| at % (bytes.len() + 1);
    match damage {
        Damage::Cut(at, length) => {
            let start = place(*at, bytes);
            bytes.drain(start..(start + length).min(bytes.len()));
        }
        Damage::Insert(at, text) => {
            let start = place(*at, bytes);
            bytes.splice(start..start, text.bytes());
        }
        Damage::Set(at, byte) => {
            let start = place(*at, bytes);
            if let Some(there) = bytes.get_mut(start) {
                *there = *byte;
            }
        }
        Damage::Double(at, length) => {
            let start = place(*at, bytes);
            let copy = bytes[start..(start + length).min(bytes.len())].to_vec();
            bytes.splice(start..start, copy);
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read("f.yaml", &bytes);
        read("f.json", &bytes);
    }

    #[test]
    fn any_yaml_is_read_or_refused(text in "([\\[\\]{}:,&*!|>'\"%#?~<\\-] ?|[ab0]{1,2}|\n {0,6}|: |- |&a |\\*a|<<: |kind: List\n|---\n|\\.\\.\\.\n){0,80}") {
        read("f.yaml", text.as_bytes());
    }

    #[test]
    fn damaged_manifests_are_read_or_refused(damages in prop::collection::vec(damage(), 1..6)) {
        for (file, text) in [("f.yaml", reference()), ("f.json", reference_json()), ("f.yaml", reference_json())] {
            let mut bytes = text.into_bytes();
            damages.iter().for_each(|damage| apply(&mut bytes, damage));
            let store = read(file, &bytes);
            // A damage is one thing, and most objects stand. Where there is no object at all, something is said or skipped.
            let counts = store.counts();
            let is_empty = counts.objects.iter().all(|(_, count)| *count == 0);
            prop_assert!(!is_empty || counts.findings > 0 || counts.skipped > 0, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Damages to a file of which a good version is in force take nothing away but what is written no more.
    #[test]
    fn damaged_manifests_never_spoil_what_was_good(damages in prop::collection::vec(damage(), 1..4)) {
        let mut store = ObjectStore::new();
        store.replace_file("f.yaml", Some(reference().as_bytes()));
        let mut bytes = reference().into_bytes();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        store.replace_file("f.yaml", Some(&bytes));
        store.replace_file("f.yaml", Some(reference().as_bytes()));
        let mut fresh = ObjectStore::new();
        fresh.replace_file("f.yaml", Some(reference().as_bytes()));
        prop_assert_eq!(snapshot(&store), snapshot(&fresh));
        prop_assert_eq!(findings(&store), Vec::<String>::new());
    }

    #[test]
    fn changes_lead_where_a_fresh_store_is(steps in prop::collection::vec(step(), 1..25), last in prop::collection::vec(file_text(false), FILES.len())) {
        let mut store = ObjectStore::new();
        let mut put = BTreeMap::new();
        for step in &steps {
            let before = snapshot(&store);
            let changes = take(&mut store, &mut put, step);
            check_changes(&before, &snapshot(&store), &changes);
        }
        let mut fresh = ObjectStore::new();
        for (file, text) in FILES.iter().zip(&last) {
            let before = snapshot(&store);
            let text = text.as_ref().map(|text| written(file, text));
            let changes = store.replace_file(file, text.as_ref().map(String::as_bytes));
            check_changes(&before, &snapshot(&store), &changes);
            fresh.replace_file(file, text.as_ref().map(String::as_bytes));
        }
        for object in put.into_values() {
            fresh.put(object, "tests");
        }
        prop_assert_eq!(snapshot(&store), snapshot(&fresh));
        let counts = |store: &ObjectStore| crate::control::kubernetes::Counts { rejected_total: 0, ..store.counts() };
        prop_assert_eq!(counts(&store), counts(&fresh));
    }
}

const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c.json"];

/// JSON has no markers between documents.
fn written(file: &str, text: &str) -> String {
    if file.ends_with(".json") { text.replace("---\n", "") } else { text.to_owned() }
}

/// One change.
#[derive(Clone, Debug)]
enum Step {
    File(usize, Option<String>),
    Put(String),
    Delete(Kind, String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..FILES.len(), file_text(true)).prop_map(|(file, text)| Step::File(file, text)),
        1 => object(false).prop_map(Step::Put),
        1 => (prop::sample::select(vec![Kind::Service, Kind::EndpointSlice, Kind::Pod]), "[abc]").prop_map(|(kind, name)| Step::Delete(kind, name)),
    ]
}

/// A file of some of few objects, in one form or another.
fn file_text(with_damage: bool) -> impl Strategy<Value = Option<String>> {
    let text =
        (prop::collection::vec(object(with_damage), 0..8), 0..3_usize).prop_map(
            |(objects, form)| match form {
                0 => objects.join("\n"),
                1 => objects.iter().map(|object| format!("---\n{object}\n")).collect(),
                _ => format!(
                    "{{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{}]}}",
                    objects.join(",\n\n")
                ),
            },
        );
    prop_oneof![1 => Just(None), 9 => text.prop_map(Some)]
}

/// An object as JSON, out of a small world, so that changes meet each other.
fn object(with_damage: bool) -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let endpoint = (1..4_u8, any::<bool>(), prop::option::of(name())).prop_map(|(address, ready, pod)| {
        let pod = pod
            .map(|pod| format!(r#", "targetRef": {{"kind": "Pod", "name": "{pod}"}}"#))
            .unwrap_or_default();
        format!(r#"{{"addresses": ["10.0.0.{address}"], "conditions": {{"ready": {ready}}}{pod}}}"#)
    });
    let endpoints =
        || prop::collection::vec(endpoint.clone(), 0..4).prop_map(|endpoints| endpoints.join(", "));
    let weight = || {
        prop::option::of(prop::sample::select(vec!["0", "7", "none"])).prop_map(|weight| match weight {
            Some(weight) => format!(r#", "annotations": {{"pollgate.io/weight": "{weight}"}}"#),
            None => String::new(),
        })
    };
    let service = (name(), prop::sample::select(vec!["10.254.0.1", "10.254.0.2", "None", "fd00::1"]), weight()).prop_map(
        |(name, address, weight)| format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"{}}}, "spec": {{"clusterIP": "{address}", "ports": [{{"port": 80}}]}}}}"#,
            weight.replace("weight\": \"", "weights\": \"10.0.0.1=")
        ),
    );
    let slice = (name(), name(), endpoints(), weight()).prop_map(|(name, service, endpoints, weight)| {
        format!(
            r#"{{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {{"name": "{name}", "labels": {{"kubernetes.io/service-name": "{service}"}}{weight}}}, "addressType": "IPv4", "ports": [{{"port": 8080}}], "endpoints": [{endpoints}]}}"#
        )
    });
    let endpoints = (name(), 1..4_u8).prop_map(|(name, address)| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Endpoints", "metadata": {{"name": "{name}"}}, "subsets": [{{"addresses": [{{"ip": "10.1.0.{address}"}}], "ports": [{{"port": 8081}}]}}]}}"#
        )
    });
    let pod = (name(), weight()).prop_map(|(name, weight)| {
        format!(r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"{weight}}}}}"#)
    });
    let node = (name(), 1..4_u8).prop_map(|(name, address)| {
        format!(r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}}, "spec": {{"podCIDR": "10.{address}.0.0/24"}}}}"#)
    });
    let bad = prop::sample::select(vec![
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "x", "ports": [{"port": 80}]}}"#,
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": 5}"#,
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {}}"#,
        r#"{"apiVersion": "v1""#,
        "[",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        4 => service, 4 => slice, 1 => endpoints, 1 => pod, 1 => node,
        if with_damage { 1 } else { 0 } => bad
    ]
}

fn typed(text: &str) -> Object {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    match value["kind"].as_str().unwrap() {
        "Service" => Object::Service(serde_json::from_value(value).unwrap()),
        "EndpointSlice" => Object::EndpointSlice(serde_json::from_value(value).unwrap()),
        "Endpoints" => Object::Endpoints(serde_json::from_value(value).unwrap()),
        "Pod" => Object::Pod(serde_json::from_value(value).unwrap()),
        _ => Object::Node(serde_json::from_value(value).unwrap()),
    }
}

fn take(store: &mut ObjectStore, put: &mut BTreeMap<ObjectId, Object>, step: &Step) -> Changes {
    match step {
        Step::File(file, text) => {
            let text = text.as_ref().map(|text| written(FILES[*file], text));
            store.replace_file(FILES[*file], text.as_ref().map(String::as_bytes))
        }
        Step::Put(text) => {
            let name = serde_json::from_str::<serde_json::Value>(text).unwrap()["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned();
            let object = typed(text);
            put.insert(ObjectId::new(object.kind(), "", &name), object.clone());
            store.put(object, "tests")
        }
        Step::Delete(kind, name) => {
            let id = ObjectId::new(*kind, "", name);
            put.remove(&id);
            store.delete(&id)
        }
    }
}

/// All that can be asked of a store.
#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    services: BTreeMap<ServiceKey, Option<DesiredService>>,
    nodes: Vec<DesiredNode>,
    findings: Vec<String>,
}

fn snapshot(store: &ObjectStore) -> Snapshot {
    Snapshot {
        services: store.service_keys().map(|key| (key.clone(), store.desired(key))).collect(),
        nodes: store.nodes().cloned().collect(),
        findings: findings(store),
    }
}

/// A service without the places where it is written.
fn meaning(service: Option<&Option<DesiredService>>) -> Option<Option<DesiredService>> {
    let mut service = service.cloned();
    if let Some(Some(service)) = &mut service {
        let nowhere = std::sync::Arc::new(Origin::default());
        service.origin = nowhere.clone();
        for endpoint in service.ports.iter_mut().flat_map(|port| &mut port.endpoints) {
            let name = endpoint.origin.name.clone();
            endpoint.origin = std::sync::Arc::new(Origin { name, ..(*nowhere).clone() });
        }
    }
    service
}

/// What is not named as changed is as it was.
fn check_changes(before: &Snapshot, after: &Snapshot, changes: &Changes) {
    let keys: BTreeSet<&ServiceKey> = before.services.keys().chain(after.services.keys()).collect();
    for key in keys {
        let (old, new) = (before.services.get(key), after.services.get(key));
        if changes.services.contains(key) {
            continue;
        }
        assert_eq!(meaning(old), meaning(new), "{key} changed in silence");
        assert!(changes.moved.contains(key) || old == new, "{key} moved in silence");
    }
    assert!(changes.services.is_disjoint(&changes.moved));
    assert!(changes.findings || before.findings == after.findings, "findings changed in silence");
    let nameless = |nodes: &[DesiredNode]| {
        nodes
            .iter()
            .map(|node| DesiredNode { origin: Default::default(), ..node.clone() })
            .collect::<Vec<_>>()
    };
    assert!(changes.nodes || nameless(&before.nodes) == nameless(&after.nodes), "nodes changed in silence");
}

/// Texts made to be slow to read: time grows with their length, and not faster.
#[test]
fn no_text_takes_long() {
    let size = 1 << 18;
    let repeated = |part: &str| part.repeat(size / part.len());
    let texts = [
        repeated("- "),
        repeated("[ "),
        repeated("{a: "),
        repeated("? "),
        repeated("a: "),
        repeated("\""),
        repeated("'"),
        repeated("&a "),
        repeated("!a "),
        repeated("!<"),
        repeated("|\n"),
        repeated("> \n"),
        repeated("a\n"),
        repeated("a: b\n"),
        repeated("- a\n"),
        repeated("- - a\n"),
        repeated("--- a\n"),
        repeated("---\n"),
        repeated("...\n"),
        repeated("%TAG ! a\n"),
        repeated("#\n"),
        repeated("\t"),
        repeated(" "),
        repeated("\n"),
        repeated("\\"),
        repeated("a,"),
        repeated(": "),
        format!("[{}", repeated("a, ")),
        format!("[{}", repeated("a: b, ")),
        format!("{{{}", repeated("a: b, ")),
        format!("a: {}", repeated("b ")),
        format!("a: |\n{}", repeated("  b\n")),
        format!("a: \"{}\"", repeated("\\x41")),
        format!("a: &a b\nc: [{}]", repeated("*a, ")),
        (0..size / 20).fold(String::new(), |text, number| text + &format!("k{number}: &a{number} v\n")),
        (0..size / 20).map(|_| "<<: {a: b}\n").collect(),
    ];
    for text in texts {
        let start = Instant::now();
        read("f.yaml", text.as_bytes());
        read("f.json", text.as_bytes());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?} for {:?}...", &text[..20]);
    }
}

/// Long lists, on many lines, on one, and with something wrong in each item.
#[test]
fn long_lists_are_read_item_by_item() {
    let item = |number: usize, address: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"s{number}"}},"spec":{{"clusterIP":"{address}","ports":[{{"port":80}}]}}}}"#
        )
    };
    let count = 20_000;
    for (separator, address) in [(",", "10.254.0.1"), (",\n", "10.254.0.1"), (",", "nowhere")] {
        let items: Vec<String> = (0..count).map(|number| item(number, address)).collect();
        let text = format!("{{\"kind\":\"List\",\"items\":[{}]}}", items.join(separator));
        let start = Instant::now();
        let mut store = read("f.json", text.as_bytes());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        let is_good = address != "nowhere";
        assert_eq!(store.service_keys().count(), if is_good { count } else { 0 });
        if !is_good {
            assert_eq!(store.counts().rejected, count);
            continue;
        }
        // One item of many.
        let changed = text.replacen("10.254.0.1", "10.254.0.2", 1);
        let changes = store.replace_file("f.json", Some(changed.as_bytes()));
        assert_eq!((changes.services.len(), changes.moved.len()), (1, 0));
    }
    // A list inside a list is one piece, and its lines are counted once all the same.
    let inner: Vec<String> = (0..count).map(|number| item(number, "nowhere")).collect();
    let text =
        format!("{{\"kind\":\"List\",\"items\":[{{\"kind\":\"List\",\"items\":[{}]}}]}}", inner.join(",\n"));
    let start = Instant::now();
    let store = read("f.json", text.as_bytes());
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(store.findings()[2].place.as_ref().unwrap().line, 3);
}
