//! A node with pods, as the agent would set it up.
#![allow(dead_code, reason = "every test file uses another part")]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use cilium_bpf::layout::{Addr, Config, Endpoint, IpcacheEntry, IpcacheKey, Slot};
use cilium_delta::Table;
use cilium_drivers::{
    datapath::{AttachMode, Datapath, DeviceProgram, LoadOptions},
    maps::Maps,
    netlink::{
        HOST_DEVICE, Link, Neighbour, NeighbourTable, Netlink, PodAddress, PodLink, PodNetwork, Route,
        RouteTable, VXLAN_DEVICE, configure_pod, lxc_name,
    },
    netns::Netns,
    sysctl, testing,
};
use ipnet::IpNet;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) const ROUTER4: &str = "10.1.0.1";
pub(crate) const ROUTER6: &str = "fd00:1::1";

pub(crate) fn mk_options(bpffs: &Path) -> LoadOptions {
    let config = Config {
        host4: ip("192.0.2.1").into(),
        host6: ip("2001:db8::1").into(),
        world4: 9,
        world6: 10,
        event_rate: 1000,
        nat_first: 61000,
        nat_last: 65535,
        ..Config::default()
    };
    LoadOptions { config, bpffs: bpffs.to_owned(), map_sizes: BTreeMap::new(), mode: None }
}

pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) host_end: Link,
    pub(crate) addresses: [PodAddress; 2],
}

/// A namespace with forwarding, the router device, an uplink, and our programs.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) world: Netns,
    pub(crate) uplink: Link,
    pub(crate) bpffs: PathBuf,
    _mount: testing::Bpffs,
}

impl Node {
    pub(crate) fn create() -> Self {
        let mount = testing::Bpffs::create();
        let bpffs = mount.directory("cilium");
        let (netns, world) = (testing::namespace(), testing::namespace());
        netns.run(|| sysctl::prepare_node(true)).unwrap().unwrap();
        let (uplink, _) = testing::connect(
            (&netns, "up0", &[net("192.0.2.1/24"), net("2001:db8::1/64")]),
            (&world, "up0", &[net("192.0.2.2/24"), net("2001:db8::2/64")]),
        );
        let mut netlink = Netlink::open_in(&netns).unwrap();
        let router = netlink.ensure_host_pair(1500).unwrap();
        let addresses = [IpNet::from(ip(ROUTER4)), IpNet::from(ip(ROUTER6))];
        netlink.ensure_addresses(&router, &addresses).unwrap();
        netlink.ensure_vxlan(8472, 1500).unwrap();
        Self { netns, world, uplink, bpffs, _mount: mount }
    }

    pub(crate) fn load(&self) -> Datapath {
        Datapath::load(&mk_options(&self.bpffs)).unwrap()
    }

    pub(crate) fn load_with(&self, mode: AttachMode) -> Datapath {
        Datapath::load(&LoadOptions { mode: Some(mode), ..mk_options(&self.bpffs) }).unwrap()
    }

    pub(crate) fn maps(&self) -> Maps {
        Maps::open(&self.bpffs).unwrap()
    }

    /// A pod with addresses ending in `number`, known to all maps, open and without policy.
    pub(crate) fn add_pod(&self, number: u16) -> Pod {
        let netns = testing::namespace();
        let name = lxc_name(&number.to_string(), "eth0");
        let alias = format!("cilium:{number}");
        let link = PodLink { host: &name, device: "eth0", netns: &netns, mtu: 1500, alias: &alias };
        let ends = Netlink::open_in(&self.netns).unwrap().create_pod_link(&link).unwrap();
        let addresses = [
            PodAddress { address: ip(&format!("10.1.0.{number}")), gateway: ip(ROUTER4) },
            PodAddress { address: ip(&format!("fd00:1::{number}")), gateway: ip(ROUTER6) },
        ];
        let network =
            PodNetwork { device: "eth0", addresses: &addresses, host_mac: ends.host.mac, route_mtu: 1500 };
        configure_pod(&netns, &network).unwrap().ready().unwrap();
        Netlink::open_in(&self.netns).unwrap().require_link(&name).unwrap();

        let mut routes = RouteTable::new(Netlink::open_in(&self.netns).unwrap());
        let mut neighbours = NeighbourTable::new(Netlink::open_in(&self.netns).unwrap());
        let mut maps = self.maps();
        let identity = 1000 + u32::from(number);
        let slot = Slot { generation: u32::from(number), open: true, ..Slot::default() };
        maps.slots.set(&number.into(), &slot).unwrap();
        for PodAddress { address, .. } in addresses {
            let endpoint = Endpoint {
                ifindex: ends.host.index,
                identity,
                slot: number,
                id: number,
                mac: ends.pod_mac.0,
                host_mac: ends.host.mac.0,
            };
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let entry = IpcacheEntry { tunnel: Addr::NONE, identity };
            maps.ipcache.set(&IpcacheKey::new(address, bits), &entry).unwrap();
            maps.endpoints.set(&address.into(), &endpoint).unwrap();
            routes.set(&address.into(), &Route::on_link(ends.host.index)).unwrap();
            neighbours.set(&Neighbour { device: ends.host.index, address }, &ends.pod_mac).unwrap();
        }
        Pod { netns, host_end: ends.host, addresses }
    }

    /// Tells the ipcache which addresses are the node's own.
    pub(crate) fn add_host_addresses(&self) {
        let mut maps = self.maps();
        for (text, bits) in [(ROUTER4, 32), (ROUTER6, 128), ("192.0.2.1", 32), ("2001:db8::1", 128)] {
            let entry = IpcacheEntry { tunnel: Addr::NONE, identity: 1 };
            maps.ipcache.set(&IpcacheKey::new(ip(text), bits), &entry).unwrap();
        }
    }

    /// Puts every program where it belongs for these pods.
    pub(crate) fn attach(&self, datapath: &Datapath, pods: &[&Pod]) {
        self.netns
            .run(|| {
                for pod in pods {
                    datapath.attach(DeviceProgram::FromContainer, &pod.host_end).unwrap();
                    datapath.attach(DeviceProgram::ToContainer, &pod.host_end).unwrap();
                }
                datapath.attach(DeviceProgram::FromNetdev, &self.uplink).unwrap();
                let mut netlink = Netlink::open().unwrap();
                let router = netlink.require_link(HOST_DEVICE).unwrap();
                datapath.attach(DeviceProgram::FromHost, &router).unwrap();
                let tunnel = netlink.require_link(VXLAN_DEVICE).unwrap();
                datapath.attach(DeviceProgram::FromOverlay, &tunnel).unwrap();
            })
            .unwrap();
    }
}
