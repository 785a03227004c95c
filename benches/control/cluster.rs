//! A cluster of many services, as manifests and as objects.

use core::net::Ipv4Addr;
use std::fmt::Write;

use pipelines::control::kubernetes::Object;

/// How large it is.
pub(crate) struct Cluster {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
}

impl Cluster {
    pub(crate) fn new(services: usize, endpoints: usize) -> Self {
        Self { services, endpoints }
    }

    /// 10.64.0.0 and up, in a network of its own.
    pub(crate) fn service_address(&self, service: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a40_0001 + service as u32)
    }

    /// 172.30.9.x is the other node's network in the small configuration; the rest is reached by the same route.
    pub(crate) fn endpoint_address(&self, service: usize, endpoint: usize) -> Ipv4Addr {
        Ipv4Addr::from(0xac20_0001 + (service * self.endpoints + endpoint) as u32)
    }

    /// The rest of the gateway: a tunnel, and a way through it to all endpoints.
    pub(crate) fn configuration(&self) -> String {
        crate::support::configuration(crate::support::Load::Dnat, 4_096, 0)
            .replace("service_cidrs = [\"10.254.0.0/16\"]", "service_cidrs = [\"10.64.0.0/12\"]")
            + "\n[[routes]]\ndestination = \"172.32.0.0/11\"\nvia = \"172.30.9.0\"\ninterface = \"flannel.1\"\n"
    }

    fn service_json(&self, service: usize) -> String {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"namespace":"load","name":"s{service}"}},"spec":{{"clusterIP":"{}","ports":[{{"name":"p","port":80,"protocol":"UDP"}}]}}}}"#,
            self.service_address(service)
        )
    }

    /// The slice of a service; the endpoint `unready` takes no connections.
    fn slice_json(&self, service: usize, unready: Option<usize>) -> String {
        let endpoints: Vec<String> = (0..self.endpoints)
            .map(|endpoint| {
                let address = self.endpoint_address(service, endpoint);
                let ready = Some(endpoint) != unready;
                format!(
                    r#"{{"addresses":["{address}"],"conditions":{{"ready":{ready}}},"nodeName":"node-{}"}}"#,
                    endpoint % 7
                )
            })
            .collect();
        format!(
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"namespace":"load","name":"s{service}-x","labels":{{"kubernetes.io/service-name":"s{service}"}}}},"addressType":"IPv4","ports":[{{"name":"p","port":8080,"protocol":"UDP"}}],"endpoints":[{}]}}"#,
            endpoints.join(",")
        )
    }

    /// All objects as one List.
    pub(crate) fn json(&self) -> String {
        let mut text = r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned();
        for service in 0..self.services {
            let comma = if service == 0 { "" } else { "," };
            write!(text, "{comma}{},{}", self.service_json(service), self.slice_json(service, None)).unwrap();
        }
        text + "]}"
    }

    /// All objects as documents of one file, as people write them.
    pub(crate) fn yaml(&self) -> String {
        let mut text = String::new();
        for service in 0..self.services {
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: load\n  name: s{service}\nspec:\n  \
                 clusterIP: {}\n  ports:\n  - name: p\n    port: 80\n    protocol: UDP\n---\napiVersion: \
                 discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: load\n  name: s{service}-x\n  \
                 labels:\n    kubernetes.io/service-name: s{service}\naddressType: IPv4\nports:\n- name: p\n  port: \
                 8080\n  protocol: UDP\nendpoints:\n",
                self.service_address(service)
            )
            .unwrap();
            for endpoint in 0..self.endpoints {
                let address = self.endpoint_address(service, endpoint);
                write!(text, "- addresses: [{address}]\n  nodeName: node-{}\n", endpoint % 7).unwrap();
            }
        }
        text
    }

    /// A slice as an object, as a live source would bring it.
    pub(crate) fn slice(&self, service: usize, unready: Option<usize>) -> Object {
        let slice = serde_json::from_str(&self.slice_json(service, unready)).unwrap();
        Object::EndpointSlice(Box::new(slice))
    }
}
