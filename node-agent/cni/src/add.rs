use cilium_drivers::netlink::{
    Error, Mac, Netlink, POD_ALIAS, PodAddress, PodLink, PodLinkEnds, PodNetwork, configure_entered_pod,
    lxc_name, remove_pod_device,
};
use cilium_drivers::netns::Netns;
use cilium_rest::Client;
use cilium_rest::model::{EndpointChange, IpamAnswer};

use crate::arguments::Arguments;
use crate::config::Config;
use crate::failure::Failure;
use crate::log::Steps;
use crate::result::Attached;

/// Connects a pod. What was made is taken away again when a later step fails.
pub(crate) fn add(
    config: &Config,
    arguments: &Arguments,
    client: &Client,
    steps: &mut Steps,
) -> Result<String, Failure> {
    if config.previous.is_some() {
        let details =
            "there is a prevResult, but this plugin makes the pod's device itself and must come first";
        return Err(Failure::new(Failure::CONFIG, "chaining after another plugin is not supported", details));
    }
    let Arguments { namespace, pod, uid, .. } = arguments;
    let planned: IpamAnswer = client
        .post(&format!("/v1/ipam?owner={namespace}/{pod}&uid={uid}"))
        .map_err(|error| Failure::agent(&format!("no addresses for pod {namespace}/{pod}"), &error))?;
    steps.done("plan");
    let host_device = lxc_name(&arguments.container, &arguments.device);
    let netns = Netns::open(&arguments.netns).map_err(|error| Failure::link("no pod to connect", &error))?;
    let no_link = |error: Error| Failure::link("the pod's device cannot be made", &error);
    let mut host = Netlink::open().map_err(no_link)?;
    let ends = make_link(&mut host, arguments, &planned, &host_device, &netns).map_err(no_link)?;
    steps.done("link");
    let connected = connect(arguments, client, &planned, &ends, &netns, steps);
    if let Err(failure) = connected {
        return Err(undo(&mut host, arguments, client, &host_device, failure));
    }
    let attached = Attached {
        host_device: &host_device,
        host_mac: ends.host.mac.to_string(),
        device: &arguments.device,
        mac: ends.pod_mac.to_string(),
        netns: &arguments.netns,
        addresses: addresses(&planned).iter().map(|pair| (pair.address, pair.gateway)).collect(),
        device_mtu: planned.device_mtu,
        route_mtu: planned.route_mtu,
    };
    attached.to_json(config.version).map_err(|error| Failure::io("the result cannot be printed", &error))
}

fn make_link(
    netlink: &mut Netlink,
    arguments: &Arguments,
    planned: &IpamAnswer,
    host: &str,
    netns: &Netns,
) -> Result<PodLinkEnds, Error> {
    let alias = format!("{POD_ALIAS}{}", planned.endpoint_id);
    let link = PodLink { host, device: &arguments.device, netns, mtu: planned.device_mtu, alias: &alias };
    match netlink.create_pod_link(&link) {
        Err(Error::CreatePodLink { source, .. }) if source.errno() == Some(EEXIST) => {
            // Left by an ADD that was cut off.
            netlink.delete_link(host)?;
            remove_pod_device(netns, &arguments.device)?;
            netlink.create_pod_link(&link)
        }
        other => other,
    }
}

/// `EEXIST` of `errno(3)`.
const EEXIST: i32 = 17;

/// IPv6 comes first, as upstream has it.
fn addresses(planned: &IpamAnswer) -> Vec<PodAddress> {
    let v6 = planned.ipv6.zip(planned.gateway6);
    let v4 = planned.ipv4.zip(planned.gateway4);
    let v6 = v6.map(|(address, gateway)| PodAddress { address: address.into(), gateway: gateway.into() });
    let v4 = v4.map(|(address, gateway)| PodAddress { address: address.into(), gateway: gateway.into() });
    v6.into_iter().chain(v4).collect()
}

/// Sets the pod's end up and has the agent connect it. The process is in the pod's namespace afterwards.
fn connect(
    arguments: &Arguments,
    client: &Client,
    planned: &IpamAnswer,
    ends: &PodLinkEnds,
    netns: &Netns,
    steps: &mut Steps,
) -> Result<(), Failure> {
    let network = PodNetwork {
        device: &arguments.device,
        addresses: &addresses(planned),
        host_mac: ends.host.mac,
        route_mtu: planned.route_mtu,
    };
    let unusable = |error: Error| Failure::link("the pod's device cannot be set up", &error);
    netns.enter().map_err(|error| Failure::link("the pod's namespace cannot be entered", &error))?;
    let configured = configure_entered_pod(netns, &network).map_err(unusable)?;
    steps.done("configure");
    let change = describe(arguments, ends.host.index, &ends.host.name, ends.host.mac, ends.pod_mac);
    let _: EndpointChange = client
        .put(&format!("/v1/endpoint/{}", planned.endpoint_id), &change)
        .map_err(|error| Failure::agent("the agent does not connect the pod", &error))?;
    steps.done("connect");
    configured.ready().map_err(unusable)?;
    steps.done("ready");
    Ok(())
}

fn describe(arguments: &Arguments, index: u32, host: &str, host_mac: Mac, mac: Mac) -> EndpointChange {
    EndpointChange {
        container_id: arguments.container.clone(),
        container_interface_name: arguments.device.clone(),
        interface_name: host.to_owned(),
        interface_index: index,
        mac: mac.to_string(),
        host_mac: host_mac.to_string(),
        netns_path: arguments.netns.clone(),
        k8s_namespace: arguments.namespace.clone(),
        k8s_pod_name: arguments.pod.clone(),
        k8s_uid: arguments.uid.clone(),
    }
}

/// Leaves nothing behind; what cannot be removed is said along with the failure.
fn undo(
    netlink: &mut Netlink,
    arguments: &Arguments,
    client: &Client,
    host: &str,
    mut failure: Failure,
) -> Failure {
    let path = format!("/v1/endpoint/cni-attachment-id:{}", arguments.attachment());
    if let Err(error) = client.delete(&path) {
        failure.details = format!("{}; and it cannot be withdrawn: {}", failure.details, error.chain());
    }
    if let Err(error) = netlink.delete_link(host) {
        failure.details = format!("{}; and {host} stays: {}", failure.details, crate::failure::chain(&error));
    }
    failure
}
