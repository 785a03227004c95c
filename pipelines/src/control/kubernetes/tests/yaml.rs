//! YAML's own features, and how far they go.

use super::{findings, key, service, store};

#[test]
fn anchors_aliases_and_merge_keys() {
    let text = "apiVersion: v1
kind: Service
metadata: {name: web, labels: &labels {app: web}}
spec:
  selector: *labels
  clusterIP: 10.254.0.1
  ports:
  - &first {name: a, port: 80, protocol: &udp UDP}
  - <<: *first
    name: b
    port: 81
  - <<: [{name: c, port: 82}, *first]
  - name: d
    <<: {port: 83}
    protocol: *udp
";
    let store = store(text);
    assert_eq!(findings(&store), Vec::<String>::new());
    let service = store.desired(&key("web")).unwrap();
    let ports: Vec<_> =
        service.ports.iter().map(|port| (&*port.name, port.port, port.protocol as u8)).collect();
    assert_eq!(ports, [("a", 80, 1), ("b", 81, 1), ("c", 82, 1), ("d", 83, 1)]);
}

#[test]
fn what_comes_by_an_alias_is_wrong_where_the_alias_stands() {
    let text = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.254.0.1
  externalIPs: &list [10.0.0.1]
  ports:
  - {port: 80, name: *list}
";
    assert_eq!(
        findings(&store(text)),
        [
            "f.yaml:8:22: error: Service default/web: spec.ports[0].name: invalid type: sequence, expected a string; give a Service as the API of Kubernetes has it"
        ]
    );
}

#[test]
fn scalars_are_typed_as_kubectl_types_them() {
    for (written, refused) in [
        ("'80'", Some("invalid type: string \"80\", expected i32")),
        ("!!int '80'", None),
        ("0x50", None),
        ("8_0", None),
        ("80.5", Some("invalid type: floating point `80.5`, expected i32")),
        ("yes", Some("invalid type: boolean `true`, expected i32")),
        ("9999999999", Some("invalid value: integer `9999999999`, expected i32")),
    ] {
        let store = store(&service(&format!("ports: [{{port: {written}}}]")));
        assert_eq!(store.findings().first().map(|finding| finding.wrong.as_str()), refused, "{written}");
        assert_eq!(store.desired(&key("web")).is_some(), refused.is_none());
    }
}

/// Flaws of single nodes make one object void, and no other.
#[test]
fn keys_that_are_there_twice_and_tags_nobody_knows() {
    for (from, to, expected) in [
        (
            "  clusterIP: 10.254.0.1\n",
            "  clusterIP: 10.254.0.1\n  clusterIP: 10.254.0.2\n",
            "8:14: spec.clusterIP: the key `clusterIP` is there twice",
        ),
        ("10.254.0.1", "!mine 10.254.0.1", "7:14: spec.clusterIP: the tag `!mine` is not known"),
        ("[{name", "!mine [{name", "8:10: spec.ports: the tag `!mine` is not known"),
        ("ports: [", "ports: [<<: 5, ", "8:11: spec.ports[0]: `<<` names no mapping"),
    ] {
        let list = service("").replace(from, to).replacen("---\n", "", 1);
        let text = "kind: List\napiVersion: v1\nitems:\n".to_owned()
            + &list
                .lines()
                .enumerate()
                .map(|(number, line)| format!("{} {line}\n", if number == 0 { "-" } else { " " }))
                .collect::<String>()
            + "- {apiVersion: v1, kind: Service, metadata: {name: other}, spec: {clusterIP: 10.254.0.9, ports: [{port: 1}]}}\n";
        let store = store(&text);
        assert!(store.desired(&key("other")).is_some() && store.desired(&key("web")).is_none(), "{text}");
        let found = store.findings();
        assert_eq!(found.len(), 1, "{found:?}");
        let place = found[0].place.as_ref().unwrap();
        assert_eq!(
            format!("{}:{}: {}: {}", place.line - 2, place.column - 2, found[0].field, found[0].wrong),
            expected
        );
    }
}

#[test]
fn what_makes_a_document_unreadable() {
    let laughs: String = (1..9)
        .map(|level| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")))
        .collect();
    let deep = "[".repeat(65);
    let flow = "{a: ".repeat(65);
    let block: String = (0..65).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    for (text, expected) in [
        (format!("a0: &a0 ha\n{laughs}"), "anchors and aliases copy more than 4 MiB"),
        ("a: &a [*a]".to_owned(), "this alias stands inside what it names"),
        ("a: *b".to_owned(), "this is no YAML: while parsing node, found unknown anchor"),
        ("? [a]\n: b".to_owned(), "a mapping or sequence is used as a key"),
        ("a: &a [b]\n*a : c".to_owned(), "an alias that names no text is used as a key"),
        (deep, "this stands inside 64 others"),
        (flow, "this stands inside 64 others"),
        (block, "this stands inside 64 others"),
        (
            "a: \"".to_owned(),
            "this is no YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
    ] {
        let found = store(&text).findings();
        assert_eq!(
            found.iter().map(|finding| finding.wrong.as_str()).collect::<Vec<_>>(),
            [expected],
            "{text}"
        );
    }
}
