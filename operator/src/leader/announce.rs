//! Where the leader's gateway is: the one EndpointSlice of the gateway's Service, which has no selector.

use super::fence::Leadership;
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, api::PostParams};
use sopwith_crds::AUTHORITY_ANNOTATION;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Name of the port, as the Service has it.
const PORT_NAME: &str = "gateway";
/// How often the slice is looked at: others may have changed or deleted it.
const LOOK: Duration = Duration::from_secs(3);

/// Where a gateway listens, and for which Service.
#[derive(Clone, Debug)]
pub struct Address {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service, and of the slice.
    pub service: String,
    /// Name of the operator's pod.
    pub pod: String,
    /// The address at which others reach it.
    pub ip: IpAddr,
    /// The port on which it listens.
    pub port: u16,
}

/// Gives the certificate authority (PEM) with which the gateway proves itself, as it is now.
type Authority = std::sync::Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error("Service {0} does not exist: it is a part of the chart")]
    NoService(String),
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// Leads the Service to this address, for as long as it is polled. `client` is fenced.
///
/// The slice bears the gateway's certificate authority, too, for people who have no plan of a run that holds it.
pub async fn announce(
    client: Client,
    leadership: Leadership,
    address: Address,
    authority: Authority,
) {
    let mut announced = false;
    loop {
        // A leader that cannot be sure of it does not even look.
        if leadership.check().is_ok() {
            match look_after(&client, &address, &authority()).await {
                Ok(false) => announced = true,
                Ok(true) => {
                    announced = true;
                    tracing::info!(service = address.service, ip = %address.ip, port = address.port, "the Service leads to this replica");
                }
                Err(error) => {
                    tracing::warn!(%error, announced, "the gateway's EndpointSlice could not be looked after; it is tried again");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the slice had to be written.
async fn look_after(
    client: &Client,
    address: &Address,
    authority: &str,
) -> Result<bool, AnnounceError> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &address.namespace);
    let params = PostParams::default();
    let Some(there) = slices.get_opt(&address.service).await? else {
        let services: Api<Service> = Api::namespaced(client.clone(), &address.namespace);
        let service = services.get_opt(&address.service).await?;
        let service = service.ok_or_else(|| AnnounceError::NoService(address.service.clone()))?;
        let uid = service.metadata.uid.unwrap_or_default();
        slices
            .create(&params, &slice(address, authority, uid))
            .await?;
        return Ok(true);
    };
    let Some(corrected) = corrected(&there, address, authority) else {
        return Ok(false);
    };
    // It carries the version that was read: a leader of yesterday cannot overwrite that of today.
    let written = slices.replace(&address.service, &params, &corrected);
    written.await?;
    Ok(true)
}

/// The slice that leads to an address. It goes with its Service.
fn slice(address: &Address, authority: &str, service_uid: String) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: if address.ip.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(address.namespace.clone()),
                name: Some(address.pod.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(address.port.into()),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
        ..EndpointSlice::default()
    };
    slice.metadata.name = Some(address.service.clone());
    slice.metadata.labels = Some(labels(&address.service));
    let authority = (AUTHORITY_ANNOTATION.to_owned(), authority.to_owned());
    slice.metadata.annotations = Some(BTreeMap::from([authority]));
    slice.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: address.service.clone(),
        uid: service_uid,
        ..OwnerReference::default()
    }]);
    slice
}

fn labels(service: &str) -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        label("kubernetes.io/service-name", service),
        label(
            "endpointslice.kubernetes.io/managed-by",
            crate::write::FIELD_MANAGER,
        ),
        label("app.kubernetes.io/name", "sopwith"),
        label("app.kubernetes.io/component", "gateway"),
    ])
}

/// What there is with what is wrong in it put right; nothing where nothing is.
fn corrected(there: &EndpointSlice, address: &Address, authority: &str) -> Option<EndpointSlice> {
    let wanted = slice(address, authority, String::new());
    let mut next = there.clone();
    next.endpoints = wanted.endpoints;
    next.ports = wanted.ports;
    next.metadata
        .labels
        .get_or_insert_default()
        .extend(wanted.metadata.labels.unwrap_or_default());
    next.metadata
        .annotations
        .get_or_insert_default()
        .extend(wanted.metadata.annotations.unwrap_or_default());
    (next != *there).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn address(ip: &str) -> Address {
        Address {
            namespace: "sopwith-system".into(),
            service: "sopwith-gateway".into(),
            pod: "operator-0".into(),
            ip: ip.parse().unwrap(),
            port: 8443,
        }
    }

    fn there() -> EndpointSlice {
        let mut slice = slice(&address("10.0.0.1"), "PEM", "uid-1".into());
        slice.metadata.resource_version = Some("7".into());
        let labels = slice.metadata.labels.as_mut().unwrap();
        labels.insert("team".into(), "platform".into());
        slice
    }

    #[test]
    fn a_slice_that_is_right_is_not_written() {
        assert_eq!(corrected(&there(), &address("10.0.0.1"), "PEM"), None);
    }

    #[rstest]
    #[case::another_address(|_: &mut EndpointSlice| (), "10.0.0.2")]
    #[case::no_endpoint(|s: &mut EndpointSlice| s.endpoints.clear(), "10.0.0.1")]
    #[case::a_second_endpoint(|s: &mut EndpointSlice| s.endpoints.push(Endpoint::default()), "10.0.0.1")]
    #[case::no_ports(|s: &mut EndpointSlice| s.ports = None, "10.0.0.1")]
    #[case::of_no_service(|s: &mut EndpointSlice| s.metadata.labels = None, "10.0.0.1")]
    #[case::of_no_authority(|s: &mut EndpointSlice| s.metadata.annotations = None, "10.0.0.1")]
    fn a_slice_that_leads_elsewhere_is_put_right_over_the_version_that_was_read(
        #[case] change: fn(&mut EndpointSlice),
        #[case] ip: &str,
    ) {
        let mut there = there();
        change(&mut there);
        let next = corrected(&there, &address(ip), "PEM").unwrap();
        assert_eq!(
            next.endpoints,
            slice(&address(ip), "PEM", String::new()).endpoints
        );
        assert_eq!(next.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(
            next.metadata.owner_references,
            there.metadata.owner_references
        );
        assert_eq!(
            next.metadata.annotations,
            slice(&address(ip), "PEM", String::new())
                .metadata
                .annotations
        );
        assert_eq!(corrected(&next, &address(ip), "PEM"), None);
    }
}
