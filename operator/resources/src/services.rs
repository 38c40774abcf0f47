//! The two Services: one for clients, one that gives the pod its address.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Database;
use crate::desired::owned_metadata;
use crate::names::PORT;

/// Where clients send their SQL.
pub(crate) fn client(database: &Database) -> Service {
    service(database, database.names.database().to_owned(), ServiceSpec::default())
}

/// The pod's own address, also while it is not ready: whoever looks after a database that is not well must reach it.
pub(crate) fn headless(database: &Database) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    service(database, database.names.headless_service(), spec)
}

fn service(database: &Database, name: String, spec: ServiceSpec) -> Service {
    Service {
        metadata: owned_metadata(database, name, "instance"),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(database.names.pod_labels()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..spec
        }),
        ..Service::default()
    }
}
