//! Files: how they come, change and go, and what becomes of what is wrong in them.

use super::{findings, key, named_service, service, slice, store};
use crate::control::kubernetes::{Changes, Kind, Object, ObjectId, ObjectStore};
use crate::control::services::desired::ServiceKey;

fn cluster_ip(store: &ObjectStore, name: &str) -> Option<String> {
    store.desired(&key(name)).and_then(|service| service.cluster_ip).map(|address| address.to_string())
}

fn replace(store: &mut ObjectStore, file: &str, text: &str) -> Changes {
    store.replace_file(file, Some(text.as_bytes()))
}

fn names(changes: &Changes) -> Vec<&str> {
    changes.services.iter().map(|key: &ServiceKey| &*key.name).collect()
}

fn moved(changes: &Changes) -> Vec<&str> {
    changes.moved.iter().map(|key: &ServiceKey| &*key.name).collect()
}

fn count(store: &ObjectStore, kind: Kind) -> usize {
    store.counts().objects.iter().find(|(counted, _)| *counted == kind).unwrap().1
}

#[test]
fn yaml_json_lists_and_other_kinds() {
    let yaml = service("")
        + &slice("web-1", &["{addresses: [10.0.0.1]}"])
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: b}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";
    let yaml_list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: one}\n  spec: {clusterIP: 10.254.0.1, ports: [{port: 80}]}\n- apiVersion: v1\n  kind: ServiceList\n  items:\n  - metadata: {name: two}\n    spec: {clusterIP: 10.254.0.2, ports: [{port: 80}]}\n";
    let item = |name: &str, address: &str| {
        format!(
            "{{\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"clusterIP\":\"{address}\",\"ports\":[{{\"port\":80}}]}}}}"
        )
    };
    let json_list = format!(
        "{{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"metadata\":{{}},\n\"items\":[{},\n{}]}}\n{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[]}}",
        item("one", "10.254.0.1"),
        item("two", "10.254.0.2")
    );
    let store_of = |file: &str, text: &str| {
        let mut store = ObjectStore::new();
        replace(&mut store, file, text);
        assert_eq!(findings(&store), Vec::<String>::new(), "{text}");
        store
    };
    let store = store_of("a.yaml", &yaml);
    assert_eq!(
        (count(&store, Kind::Service), count(&store, Kind::EndpointSlice), count(&store, Kind::Namespace)),
        (1, 1, 1)
    );
    assert_eq!(store.counts().skipped, 2);
    assert_eq!(store.desired(&key("web")).unwrap().ports[0].endpoints.len(), 1);
    for (file, text, line) in
        [("b.yaml", yaml_list, 11), ("b.json", &*json_list, 3), ("b.yaml", &*json_list, 3)]
    {
        let store = store_of(file, text);
        assert_eq!(cluster_ip(&store, "one").as_deref(), Some("10.254.0.1"), "{file}");
        assert_eq!(&*store.desired(&key("two")).unwrap().origin.source, format!("{file}:{line}"));
    }
}

#[test]
fn what_is_no_object_is_reported() {
    for (text, said) in [
        (
            "a: 1",
            "f.yaml:1:1: error: this is no object of Kubernetes: it has no kind; give `apiVersion` and `kind`, as in `apiVersion: v1` and `kind: Service`",
        ),
        (
            "- a",
            "f.yaml:1:1: error: this is no object of Kubernetes; give a mapping with `apiVersion`, `kind` and `metadata`",
        ),
        (
            "text",
            "f.yaml:1:1: error: this is no object of Kubernetes; give a mapping with `apiVersion`, `kind` and `metadata`",
        ),
        (
            "kind: 5",
            "f.yaml:1:7: error: kind: invalid type: integer `5`, expected a string; give an object as the API of Kubernetes has it",
        ),
        (
            "kind: Service\nmetadata: {name: web}",
            "f.yaml:1:1: warning: apiVersion: Service of version `` is not read; give `apiVersion: v1`",
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice",
            "f.yaml:1:1: warning: apiVersion: EndpointSlice of version `discovery.k8s.io/v1beta1` is not read; give `apiVersion: discovery.k8s.io/v1`",
        ),
        (
            "kind: List\nitems: {a: 1}",
            "f.yaml:2:8: error: items: the items of this list are no list; give objects, each with a `-` in front",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: 5",
            "f.yaml:4:9: error: metadata.name: invalid type: integer `5`, expected a string; give a Node as the API of Kubernetes has it",
        ),
    ] {
        assert_eq!(findings(&store(text)), [said]);
    }
    for (text, said) in [
        (
            "kind: List\nitem: []",
            "f.yaml:1:1: error: this list has no `items`; give them; a list of nothing has `items: []`",
        ),
        (
            "apiVersion: v1\nkind: NodeList",
            "f.yaml:1:1: error: this list has no `items`; give them; a list of nothing has `items: []`",
        ),
        ("kind: List\nitems:", ""),
        ("kind: List\nitems: []", ""),
        ("apiVersion: example.org/v1\nkind: AllowList", ""),
    ] {
        assert_eq!(findings(&store(text)).concat(), said, "{text}");
    }
    let nested = "kind: List\nitems:\n- ".to_owned() + &"{kind: List, items: [".repeat(5) + &"]}".repeat(5);
    assert_eq!(
        findings(&store(&nested)),
        ["f.yaml:3:66: error: this list stands inside 4 others; make it one list"]
    );
}

#[test]
fn one_bad_object_leaves_all_others_in_force() {
    let text = named_service("a", "clusterIP: 10.254.0.1")
        + &named_service("b", "clusterIP: everywhere")
        + &named_service("c", "clusterIP: 10.254.0.3");
    let mut store = store(&text);
    assert_eq!(
        findings(&store),
        [
            "f.yaml:16:14: error: Service default/b: spec.clusterIP: `everywhere` is no IP address; give an address, as in 10.0.0.1; no leading zeros, no name, no port"
        ]
    );
    assert_eq!(
        (cluster_ip(&store, "a").is_some(), cluster_ip(&store, "b"), cluster_ip(&store, "c").is_some()),
        (true, None, true)
    );
    let mended = text.replace("everywhere", "10.254.0.2");
    let changes = replace(&mut store, "f.yaml", &mended);
    assert_eq!((names(&changes), moved(&changes), changes.findings), (vec!["b"], vec![], true));
    assert_eq!(findings(&store), Vec::<String>::new());
    // From now on there is a version that was good.
    let changes = replace(&mut store, "f.yaml", &text);
    assert_eq!((names(&changes), changes.findings), (vec![], true));
    assert_eq!(cluster_ip(&store, "b").as_deref(), Some("10.254.0.2"));
    let counts = store.counts();
    assert_eq!((counts.rejected, counts.rejected_total, counts.findings), (1, 2, 1));
    assert!(replace(&mut store, "f.yaml", &text).is_empty());
    assert_eq!(store.counts().rejected_total, 2, "what did not change is not counted again");
    // Also one of which no more than the name is right.
    replace(&mut store, "f.yaml", &text.replace("ports: [{name: http, port: 80}]", "ports: 80"));
    assert_eq!((cluster_ip(&store, "a").as_deref(), store.findings().len()), (Some("10.254.0.1"), 3));
    // What is not written any more goes, whatever it was.
    let changes = replace(&mut store, "f.yaml", &named_service("a", "clusterIP: 10.254.0.1"));
    assert_eq!(names(&changes), ["b", "c"]);
}

#[test]
fn a_document_that_cannot_be_read_keeps_what_the_file_had() {
    let both = named_service("a", "clusterIP: 10.254.0.1") + &named_service("b", "clusterIP: 10.254.0.2");
    let mut store = store(&both);
    let broken = named_service("a", "clusterIP: 10.254.0.9")
        + "---\napiVersion: v1\nkind: Service\nmetadata: [name: b\n";
    let changes = replace(&mut store, "f.yaml", &broken);
    assert_eq!((names(&changes), changes.findings), (vec!["a"], true), "what can be read counts");
    assert_eq!(cluster_ip(&store, "b").as_deref(), Some("10.254.0.2"));
    let found = findings(&store);
    assert!(found[0].starts_with("f.yaml:13:1: error: this is no YAML: ") && found.len() == 1, "{found:?}");
    // Behind a document that is wrong, others are read.
    let behind = format!("---\n[\n{}", named_service("c", "clusterIP: 10.254.0.3"));
    assert_eq!(names(&replace(&mut store, "f.yaml", &behind)), ["c"]);
    assert_eq!(store.service_keys().count(), 3);
    // The same for an object without a name: it may be any of them.
    let nameless = both.replace("name: b\n", "label: b\n");
    replace(&mut store, "f.yaml", &nameless);
    assert_eq!((store.service_keys().count(), store.findings().len()), (3, 1));
    for (bytes, said) in [
        (&b"\xff\xfe"[..], "f.yaml:1:1: error: this is no UTF-8; write the file in UTF-8"),
        (&b"a\n  \xc3\n"[..], "f.yaml:2:3: error: this is no UTF-8; write the file in UTF-8"),
    ] {
        assert!(store.replace_file("f.yaml", Some(bytes)).services.is_empty());
        assert_eq!(findings(&store), [said]);
    }
    assert_eq!(names(&replace(&mut store, "f.yaml", &both)), ["c"]);
    assert_eq!((store.service_keys().count(), store.findings().len()), (2, 0));
    assert_eq!(cluster_ip(&store, "a").as_deref(), Some("10.254.0.1"));
}

#[test]
fn json_that_ends_early_keeps_what_the_file_had() {
    let item = |name: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"clusterIP\":\"10.254.0.1\",\"ports\":[{{\"port\":80}}]}}}}\n"
        )
    };
    let mut store = ObjectStore::new();
    replace(&mut store, "f.json", &(item("a") + &item("b")));
    let half = item("a") + &item("b")[..40];
    assert!(names(&replace(&mut store, "f.json", &half)).is_empty());
    assert_eq!(store.service_keys().count(), 2);
    assert_eq!(
        findings(&store),
        ["f.json:2:40: error: this is no JSON: EOF while parsing a string; correct the syntax"]
    );
}

#[test]
fn the_first_file_that_writes_an_object_counts() {
    let at = |address: &str| service(&format!("clusterIP: {address}"));
    let mut store = ObjectStore::new();
    replace(&mut store, "b.yaml", &at("10.254.0.2"));
    let changes = replace(&mut store, "c.yaml", &at("10.254.0.3"));
    assert_eq!((names(&changes), changes.findings), (vec![], true));
    assert_eq!(names(&replace(&mut store, "a.yaml", &at("10.254.0.1"))), ["web"]);
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.1"));
    let told = |file: &str| {
        format!(
            "{file}:2:1: error: Service default/web: it is written in a.yaml:2 already, and that counts; leave one of them out"
        )
    };
    assert_eq!(findings(&store), [told("b.yaml"), told("c.yaml")]);
    assert_eq!(store.counts().rejected, 2);
    // A version that is refused does not stand in the way of a good one, but the last good one of the first file does.
    assert!(names(&replace(&mut store, "a.yaml", &at("nowhere"))).is_empty());
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.1"));
    assert_eq!(names(&store.replace_file("a.yaml", None)), ["web"]);
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.2"));
    replace(&mut store, "a.yaml", &at("nowhere"));
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.2"));
    store.replace_file("b.yaml", None);
    store.replace_file("c.yaml", None);
    assert_eq!((cluster_ip(&store, "web"), store.findings().len()), (None, 1));
}

#[test]
fn an_object_that_is_there_twice_in_a_file_counts_once() {
    let text = service("clusterIP: 10.254.0.1") + &service("clusterIP: 10.254.0.2");
    let mut store = store(&text);
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.1"));
    assert_eq!(
        findings(&store),
        [
            "f.yaml:10:1: error: Service default/web: it is written in line 2 already, and that counts; leave one of them out"
        ]
    );
    assert_eq!(store.counts().rejected, 1);
    replace(&mut store, "f.yaml", &text.replace("10.254.0.1", "nowhere"));
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.2"), "a good one behind a bad one");
}

#[test]
fn a_change_names_what_it_touches() {
    let text = |address: &str| {
        named_service("a", "clusterIP: 10.254.0.2")
            + &service("")
            + &slice("web-1", &[&format!("{{addresses: [{address}]}}")])
    };
    let mut store = ObjectStore::new();
    assert_eq!(names(&replace(&mut store, "f.yaml", &text("10.0.0.1"))), ["a", "web"]);
    assert!(replace(&mut store, "f.yaml", &text("10.0.0.1")).is_empty());
    let changes = replace(&mut store, "f.yaml", &text("10.0.0.2"));
    assert_eq!((names(&changes), moved(&changes)), (vec!["web"], vec![]));
    // A comment in front moves everything, and changes nothing.
    let changes = replace(&mut store, "f.yaml", &format!("# moved\n{}", text("10.0.0.2")));
    assert_eq!((names(&changes), moved(&changes)), (vec![], vec!["a", "web"]));
    assert_eq!(&*store.desired(&key("a")).unwrap().origin.source, "f.yaml:3");
    // A slice that goes to another service concerns both.
    let other = text("10.0.0.2").replace("service-name: web", "service-name: a");
    assert_eq!(names(&replace(&mut store, "f.yaml", &other)), ["a", "web"]);
    assert!(store.replace_file("unknown.yaml", None).is_empty());
    assert_eq!(names(&store.replace_file("f.yaml", None)), ["a", "web"]);
    assert_eq!(store.service_keys().count(), 0);
}

#[test]
fn typed_objects_come_behind_files() {
    let typed = |address: &str| {
        let text = serde_json::json!({"metadata": {"name": "web"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
        Object::Service(Box::new(serde_json::from_value(text).unwrap()))
    };
    let id = ObjectId::new(Kind::Service, "", "web");
    let mut store = ObjectStore::new();
    assert_eq!(names(&store.put(typed("10.254.0.5"), "the API server")), ["web"]);
    assert!(store.put(typed("10.254.0.5"), "the API server").is_empty());
    assert_eq!(&*store.desired(&key("web")).unwrap().origin.source, "the API server");
    assert!(store.put(typed("here"), "the API server").findings);
    assert_eq!(cluster_ip(&store, "web").as_deref(), Some("10.254.0.5"), "the last good version");
    assert_eq!(
        findings(&store),
        [
            "error: Service default/web: spec.clusterIP: `here` is no IP address (by the API server); give an address, as in 10.0.0.1; no leading zeros, no name, no port"
        ]
    );
    assert_eq!((store.counts().rejected, store.counts().rejected_total), (1, 1));
    assert_eq!(names(&replace(&mut store, "f.yaml", &service(""))), ["web"]);
    assert_eq!((cluster_ip(&store, "web").as_deref(), store.findings().len()), (Some("10.254.0.1"), 2));
    let changes = store.delete(&id);
    assert_eq!((names(&changes), changes.findings, store.findings().len()), (vec![], true, 0));
    assert_eq!(names(&store.replace_file("f.yaml", None)), ["web"]);
    assert!(store.delete(&id).is_empty());
    let nameless = Object::Pod(Box::default());
    assert!(store.put(nameless, "").findings);
    assert_eq!(
        findings(&store),
        ["error: Pod default/: metadata.name: this Pod has no name; give `metadata.name`"]
    );
}

#[test]
fn findings_are_in_order_and_bounded() {
    let bad = |count: usize| {
        (0..count).map(|number| named_service(&format!("s{number}"), "clusterIP: x")).collect::<String>()
    };
    let mut store = ObjectStore::new();
    replace(&mut store, "b.yaml", &bad(2));
    replace(&mut store, "a.yaml", &bad(1));
    let places: Vec<String> = findings(&store).iter().map(|text| text[..9].to_owned()).collect();
    assert_eq!(places, ["a.yaml:8:", "b.yaml:8:", "b.yaml:16"]);
    replace(&mut store, "a.yaml", &bad(1_100));
    let found = store.findings();
    assert_eq!(
        found.iter().filter(|finding| finding.place.as_ref().unwrap().file == "a.yaml").count(),
        1_001
    );
    assert!(findings(&store)[1_000].contains("warning: 100 more findings in this file are not told"));
    assert_eq!(store.counts().rejected, 1_102);
}
