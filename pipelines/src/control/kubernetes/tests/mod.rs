//! What manifests mean, told as manifests: text in, services and findings out.

mod endpoints;
mod files;
mod nodes;
mod properties;
mod reference;
mod services;
mod yaml;

use super::ObjectStore;
use crate::control::services::desired::{DesiredService, ServiceKey};

/// A store with one file.
fn store(text: &str) -> ObjectStore {
    let mut store = ObjectStore::new();
    store.replace_file("f.yaml", Some(text.as_bytes()));
    store
}

/// The service `default/web` of a file that nothing is wrong with.
fn web(text: &str) -> DesiredService {
    let store = store(text);
    assert_eq!(findings(&store), Vec::<String>::new(), "{text}");
    store.desired(&key("web")).unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// What is wrong, as people read it.
fn findings(store: &ObjectStore) -> Vec<String> {
    store.findings().iter().map(ToString::to_string).collect()
}

/// A service `web` with a cluster IP, a port, and more lines of its `spec`.
fn service(spec: &str) -> String {
    named_service("web", spec)
}

fn named_service(name: &str, spec: &str) -> String {
    let ports = if spec.contains("ports:") { "" } else { "  ports: [{name: http, port: 80}]\n" };
    let address = if spec.contains("clusterIP") { "" } else { "  clusterIP: 10.254.0.1\n" };
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n{address}{ports}{spec}")
}

/// A slice of `web` with a port 8080 named `http` and these endpoints, each a flow mapping.
fn slice(name: &str, endpoints: &[&str]) -> String {
    let endpoints: String = endpoints.iter().map(|endpoint| format!("- {endpoint}\n")).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n{endpoints}"
    )
}
