//! What ADD prints.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::config::Version;

/// Answer to VERSION, in the version that was asked in.
pub(crate) fn versions(asked: Option<Version>) -> String {
    let body = Versions {
        cni_version: asked.unwrap_or(Version::NEWEST).as_str(),
        supported: Version::ALL.map(Version::as_str),
    };
    serde_json::to_string(&body).unwrap_or_default()
}

#[derive(Serialize)]
struct Versions {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(rename = "supportedVersions")]
    supported: [&'static str; 5],
}

/// What ADD made.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) host_device: &'a str,
    pub(crate) host_mac: String,
    pub(crate) device: &'a str,
    pub(crate) mac: String,
    pub(crate) netns: &'a str,
    /// Address of the pod, and its gateway; IPv6 before IPv4.
    pub(crate) addresses: Vec<(IpAddr, IpAddr)>,
    pub(crate) device_mtu: u32,
    pub(crate) route_mtu: u32,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    interfaces: [Interface<'a>; 2],
    ips: Vec<Address>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
}

#[derive(Serialize)]
struct Address {
    /// Family, up to 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    interface: usize,
    address: IpNet,
    gateway: IpAddr,
}

#[derive(Serialize)]
struct Route {
    dst: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

#[derive(Serialize)]
struct Dns {}

impl Attached<'_> {
    pub(crate) fn to_json(&self, version: Version) -> Result<String, serde_json::Error> {
        let mtu = |value: u32| (version >= Version::V1_1_0).then_some(value);
        let host =
            Interface { name: self.host_device, mac: &self.host_mac, mtu: mtu(self.device_mtu), sandbox: "" };
        let pod =
            Interface { name: self.device, mac: &self.mac, mtu: mtu(self.device_mtu), sandbox: self.netns };
        let body = Body {
            cni_version: version.as_str(),
            interfaces: [host, pod],
            ips: self.addresses.iter().map(|pair| address(*pair, version)).collect(),
            routes: self
                .addresses
                .iter()
                .flat_map(|(_, gateway)| routes(*gateway, mtu(self.route_mtu)))
                .collect(),
            dns: Dns {},
        };
        serde_json::to_string(&body)
    }
}

fn address((address, gateway): (IpAddr, IpAddr), version: Version) -> Address {
    let family = if address.is_ipv4() { "4" } else { "6" };
    let version = (version < Version::V1_0_0).then_some(family);
    Address { version, interface: 1, address: IpNet::from(address), gateway }
}

fn routes(gateway: IpAddr, mtu: Option<u32>) -> [Route; 2] {
    let everything = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    [
        Route { dst: IpNet::from(gateway), gw: None, mtu: None },
        Route { dst: everything, gw: Some(gateway), mtu },
    ]
}

#[cfg(test)]
mod tests {
    use super::Attached;
    use crate::config::Version;

    fn mk_attached() -> Attached<'static> {
        let ip = |text: &str| text.parse().expect("an address");
        Attached {
            host_device: "lxc0123456789ab",
            host_mac: "02:00:00:00:00:01".into(),
            device: "eth0",
            mac: "02:00:00:00:00:02".into(),
            netns: "/var/run/netns/x",
            addresses: vec![(ip("fd00::5"), ip("fd00::1")), (ip("10.244.1.5"), ip("10.244.1.1"))],
            device_mtu: 1500,
            route_mtu: 1450,
        }
    }

    #[test]
    fn the_result_of_version_1_1_names_mtus() {
        let text = mk_attached().to_json(Version::V1_1_0).expect("prints");
        assert_eq!(
            text,
            concat!(
                r#"{"cniVersion":"1.1.0","interfaces":[{"name":"lxc0123456789ab","mac":"02:00:00:00:00:01","mtu":1500},"#,
                r#"{"name":"eth0","mac":"02:00:00:00:00:02","mtu":1500,"sandbox":"/var/run/netns/x"}],"#,
                r#""ips":[{"interface":1,"address":"fd00::5/128","gateway":"fd00::1"},"#,
                r#"{"interface":1,"address":"10.244.1.5/32","gateway":"10.244.1.1"}],"#,
                r#""routes":[{"dst":"fd00::1/128"},{"dst":"::/0","gw":"fd00::1","mtu":1450},"#,
                r#"{"dst":"10.244.1.1/32"},{"dst":"0.0.0.0/0","gw":"10.244.1.1","mtu":1450}],"dns":{}}"#
            )
        );
    }

    #[test]
    fn the_result_of_version_0_3_names_families() {
        let text = mk_attached().to_json(Version::V0_3_1).expect("prints");
        assert!(text.contains(r#"{"version":"6","interface":1,"address":"fd00::5/128""#), "{text}");
        assert!(!text.contains("mtu"), "{text}");
    }
}
