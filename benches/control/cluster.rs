//! A cluster of many services, as manifests and as objects.

#![allow(dead_code, reason = "each benchmark uses a part")]

use core::net::Ipv4Addr;
use std::fmt::Write;

use pipelines::control::kubernetes::Object;

/// How large it is.
pub(crate) struct Cluster {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    protocol: &'static str,
}

impl Cluster {
    pub(crate) fn new(services: usize, endpoints: usize) -> Self {
        Self { services, endpoints, protocol: "UDP" }
    }

    /// The same with services of TCP, but for the YAML text.
    pub(crate) fn over_tcp(self) -> Self {
        Self { protocol: "TCP", ..self }
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

    /// `annotations` are fields of a JSON object, or nothing.
    fn service_json(&self, service: usize, annotations: &str) -> String {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"namespace":"load","name":"s{service}","annotations":{{{annotations}}}}},"spec":{{"clusterIP":"{}","ports":[{{"name":"p","port":80,"protocol":"{}"}}]}}}}"#,
            self.service_address(service),
            self.protocol
        )
    }

    fn whole_slice_json(&self, service: usize) -> String {
        let endpoints: Vec<String> = (0..self.endpoints)
            .map(|endpoint| {
                let address = self.endpoint_address(service, endpoint);
                format!(
                    r#"{{"addresses":["{address}"],"conditions":{{"ready":true}},"nodeName":"node-{}"}}"#,
                    endpoint % 7
                )
            })
            .collect();
        self.slice_json(service, &endpoints.join(","))
    }

    /// A service as an object.
    pub(crate) fn service(&self, service: usize) -> Object {
        Object::Service(Box::new(serde_json::from_str(&self.service_json(service, "")).unwrap()))
    }

    /// A service whose first endpoint has this weight; the others' is 1.
    pub(crate) fn weighted_service(&self, service: usize, weight: usize) -> Object {
        let annotation = format!(r#""pollgate.io/weights":"{}={weight}""#, self.endpoint_address(service, 0));
        Object::Service(Box::new(serde_json::from_str(&self.service_json(service, &annotation)).unwrap()))
    }

    /// The slice of a service with all its endpoints and one more.
    pub(crate) fn larger_slice(&self, service: usize) -> Object {
        let own = (0..self.endpoints).map(|endpoint| self.endpoint_address(service, endpoint));
        let endpoints: Vec<String> = own
            .chain([self.swapped_address(service)])
            .map(|address| format!(r#"{{"addresses":["{address}"]}}"#))
            .collect();
        let slice = serde_json::from_str(&self.slice_json(service, &endpoints.join(","))).unwrap();
        Object::EndpointSlice(Box::new(slice))
    }

    /// A service and its slice as objects.
    pub(crate) fn objects(&self, service: usize) -> [Object; 2] {
        let service_object = serde_json::from_str(&self.service_json(service, "")).unwrap();
        let slice = serde_json::from_str(&self.whole_slice_json(service)).unwrap();
        [Object::Service(Box::new(service_object)), Object::EndpointSlice(Box::new(slice))]
    }

    /// All objects as one List.
    pub(crate) fn json(&self) -> String {
        let mut text = r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned();
        for service in 0..self.services {
            let comma = if service == 0 { "" } else { "," };
            write!(text, "{comma}{},{}", self.service_json(service, ""), self.whole_slice_json(service))
                .unwrap();
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

    /// Two addresses, of which one is the service's only endpoint after change `number`.
    pub(crate) fn swapped_address(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::from(0xac3f_fff0 + (number % 2) as u32)
    }

    /// A slice of that one endpoint, as an object, as a live source would bring it.
    pub(crate) fn swapped_slice(&self, service: usize, number: usize) -> Object {
        let endpoint = format!(r#"{{"addresses":["{}"]}}"#, self.swapped_address(number));
        let slice = serde_json::from_str(&self.slice_json(service, &endpoint)).unwrap();
        Object::EndpointSlice(Box::new(slice))
    }

    /// The slice of a service with these endpoints.
    fn slice_json(&self, service: usize, endpoints: &str) -> String {
        format!(
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"namespace":"load","name":"s{service}-x","labels":{{"kubernetes.io/service-name":"s{service}"}}}},"addressType":"IPv4","ports":[{{"name":"p","port":8080,"protocol":"{}"}}],"endpoints":[{endpoints}]}}"#,
            self.protocol
        )
    }
}
