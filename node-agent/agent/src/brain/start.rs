//! From nothing, or from what an earlier process left, to a node that works.

use anyhow::Context as _;
use cilium_api::node_state::Failure;
use cilium_api::parts::PartKey;
use cilium_dataplane::{Config, Dataplane};
use cilium_drivers::netlink::{self, HOST_DEVICE, Link, Netlink, POD_ALIAS, POD_PREFIX, VXLAN_DEVICE};
use cilium_drivers::probe;
use cilium_rest::model::EndpointChange;

use super::{Brain, Desired, Running, report};
use crate::config::Settings;
use crate::host::{Facts, Host, attach_pod, worlds};
use crate::kernel::Tables;
use crate::links::{self, to_link};

/// Milliseconds before a set-up that failed is tried again: it is too much work for every event.
const START_AGAIN: u64 = 5_000;

impl Brain {
    /// Sets the node up when its state is complete. Otherwise, and when something fails, the kernel stays as it is and the
    /// next change or check tries again.
    pub(super) fn start(&mut self) {
        if self.clock.now() < self.due.start {
            return;
        }
        self.set_up_failure = None;
        let obstacle = match (self.state.is_complete(), self.own_facts()) {
            (false, _) => self.missing(),
            (true, None) => format!("the operator has not planned node {} yet", self.settings.node),
            (true, Some(facts)) => match self.set_up(facts) {
                Ok(()) => String::new(),
                Err(error) => {
                    self.due.start = self.clock.now() + START_AGAIN;
                    let message = format!("the node cannot be set up: {error:#}");
                    self.set_up_failure = Some(Failure {
                        object: PartKey::node(&self.settings.node).0.to_string(),
                        message: message.clone(),
                    });
                    message
                }
            },
        };
        if obstacle.is_empty() {
            tracing::info!(revision = self.state.accepted().map(|a| a.revision), "the node works");
            self.conflist.ensure();
        } else if obstacle != self.obstacle {
            match &self.set_up_failure {
                Some(_) => tracing::error!(obstacle, "the node does not work"),
                None => tracing::info!(obstacle, "the node does not work yet"),
            }
        }
        self.obstacle = obstacle;
    }

    fn missing(&self) -> String {
        let failures = self.state.failures();
        match (failures.first(), self.state.accepted()) {
            (Some(failure), _) => format!("{} is refused: {}", failure.object, failure.message),
            (None, Some(_)) => "the state that all nodes share has not arrived yet".to_owned(),
            (None, None) => {
                let node = &self.settings.node;
                format!("there is no desired state of node {node} yet: is the operator running?")
            }
        }
    }

    /// New maps are filled before programs that use them are attached, so nobody sees them empty.
    fn set_up(&mut self, facts: Facts) -> anyhow::Result<()> {
        let now = self.clock.now();
        let probed = probe::probe(&self.settings.cgroup);
        self.features = report::features(&probed);
        if let Some(missing) = probed.iter().find(|feature| feature.required && !feature.available) {
            anyhow::bail!("{} is needed and missing: {}", missing.name, missing.detail);
        }
        let mut host = Host::set_up(&self.settings, facts)?;
        let mut tables = Tables::open(&self.settings.bpffs)?;
        let mut dataplane = Dataplane::new(mk_config(&self.settings, &host));
        dataplane.adopt(&mut tables, now).context("the kernel's tables cannot be read")?;
        dataplane.update(self.state.iter().map(|(key, _)| key), &Desired(&self.state));
        dataplane.set_names(self.names.all(), &Desired(&self.state));
        let devices = self.restore_links(&dataplane, &tables)?;
        for (id, change) in self.links.iter() {
            dataplane.link(id, to_link(change, self.cookie_of(change)));
        }
        self.note_reassigned(&dataplane.take_reassigned());
        dataplane.apply(&mut tables, now);
        host.attach(&self.settings)?;
        host.accelerate(&self.settings)?;
        for device in &devices {
            attach_pod(&host.datapath, device)?;
        }
        for pin in host.datapath.sweep()? {
            tracing::debug!(pin, "removed the pin of a link whose device is gone");
        }
        self.outside.announcements.set_devices(&host.uplinks);
        self.running = Some(Running { host, tables, dataplane });
        self.tell_rules();
        self.settle_soon();
        Ok(())
    }

    /// Compares what is known of links with the devices that exist. Returns the devices of linked pods.
    fn restore_links(&mut self, dataplane: &Dataplane, tables: &Tables) -> anyhow::Result<Vec<Link>> {
        let devices: Vec<Link> = Netlink::open()?
            .links()?
            .into_iter()
            .filter(|link| link.name.starts_with(POD_PREFIX) && id_of(link).is_some())
            .collect();
        let gone: Vec<u16> = self
            .links
            .iter()
            .filter(|(_, change)| !devices.iter().any(|device| is_of(change, device)))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            tracing::info!(endpoint = id, "its device is gone while the agent was away");
            self.links.remove(id)?;
        }
        for device in &devices {
            if let Some(id) = id_of(device)
                && self.links.get(id).is_none()
                && let Some(found) = find_again(id, device, dataplane, tables)
            {
                tracing::warn!(endpoint = id, device = device.name, "found again by its device");
                self.links.insert(id, found)?;
            }
        }
        let linked = |device: &Link| self.links.iter().any(|(_, change)| is_of(change, device));
        Ok(devices.into_iter().filter(linked).collect())
    }

    /// Devices of the node that exist as they were when it was set up.
    pub(super) fn devices_are_there(&self) -> bool {
        let Some(running) = &self.running else { return true };
        let Ok(mut netlink) = Netlink::open() else { return true };
        let known = &running.host.native;
        let native = netlink.link(&known.name).ok().flatten();
        let index = |name: &str| netlink.index(name).ok().flatten();
        let tunnel = running.host.config.tunnel_ifindex;
        native.is_some_and(|link| link.index == known.index && link.mac == known.mac)
            && index(HOST_DEVICE) == Some(running.host.devices().host)
            && (tunnel == 0 || index(VXLAN_DEVICE) == Some(tunnel))
    }

    /// Disconnects pods whose namespace is gone, and their device with it: the runtime's DEL may come much later.
    pub(super) fn forget_lost_devices(&mut self) {
        let lost = match self.lost_devices() {
            Ok(lost) => lost,
            Err(error) => {
                tracing::error!(error = crate::watch::chain(&error), "devices cannot be looked up");
                return;
            }
        };
        for id in lost {
            tracing::info!(endpoint = id, "its device is gone");
            if let Err(error) = self.forget(id) {
                tracing::error!(endpoint = id, error = format!("{error:#}"), "it stays linked");
            }
        }
    }

    fn lost_devices(&self) -> Result<Vec<u16>, netlink::Error> {
        let netlink = Netlink::open()?;
        let mut lost = Vec::new();
        for (id, change) in self.links.iter() {
            if netlink.index(&change.interface_name)? != Some(change.interface_index) {
                lost.push(id);
            }
        }
        Ok(lost)
    }

    /// Makes sure that the node's own programs are in their places. Returns how many were not.
    pub(super) fn attach_host(&mut self) -> usize {
        let Some(running) = &mut self.running else { return 0 };
        let attached = running.host.attach(&self.settings).unwrap_or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "the node's programs could not be attached again");
            0
        });
        self.outside.announcements.set_devices(&running.host.uplinks);
        attached
    }

    /// Takes the notes of pods that went while nobody listened.
    pub(super) fn drain_queue(&mut self) {
        let gone = links::drain(&self.settings.delete_queue()).unwrap_or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "the notes of deleted pods cannot be read");
            Vec::new()
        });
        for attachment in gone {
            if let Err(error) = self.disconnect(&attachment) {
                tracing::error!(attachment, error = format!("{error:#}"), "a deleted pod stays linked");
            }
        }
    }
}

fn mk_config(settings: &Settings, host: &Host) -> Config {
    let (world4, world6) = worlds(settings);
    Config {
        node: settings.node.clone(),
        tunnel: settings.tunnel,
        direct_routes: settings.direct_routes,
        devices: host.devices(),
        other_addresses: host.other_addresses(),
        route_mtu: host.route_mtu,
        world4,
        world6,
        host_firewall: settings.host_firewall,
        balancing: settings.balancing,
    }
}

/// The endpoint that a pod's device belongs to, by its alias.
fn id_of(device: &Link) -> Option<u16> {
    device.alias.strip_prefix(POD_ALIAS)?.parse().ok()
}

fn is_of(change: &EndpointChange, device: &Link) -> bool {
    change.interface_name == device.name && change.interface_index == device.index
}

/// How a pod is linked, from what the endpoint map has of it: for the case that the file is lost.
fn find_again(id: u16, device: &Link, dataplane: &Dataplane, tables: &Tables) -> Option<EndpointChange> {
    let (key, planned) = dataplane.planned_by_id(id)?;
    let (namespace, pod) = key.0.strip_prefix("endpoint/")?.split_once('/')?;
    let address = planned.addresses.first()?;
    let entry = tables.maps.endpoints.get(&(*address).into()).ok().flatten()?;
    let mac = |bytes: [u8; 6]| cilium_drivers::netlink::Mac(bytes).to_string();
    (entry.id == id && entry.ifindex == device.index).then(|| EndpointChange {
        interface_name: device.name.clone(),
        interface_index: device.index,
        mac: mac(entry.mac),
        host_mac: mac(entry.host_mac),
        k8s_namespace: namespace.to_owned(),
        k8s_pod_name: pod.to_owned(),
        k8s_uid: planned.uid.clone(),
        ..EndpointChange::default()
    })
}
