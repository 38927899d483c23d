use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{
    CREATE, EXCLUSIVE, Error, HOST_DEVICE, Kind, Link, NET_DEVICE, Netlink, Request, VXLAN_DEVICE, link,
};

impl Netlink {
    /// Makes sure of the pair [`HOST_DEVICE`] and [`NET_DEVICE`]: a veth pair, up, without ARP, without link-local addresses.
    /// A pair that is right already is only adjusted; a device of another kind under one of the names is replaced.
    ///
    /// # Errors
    /// [`Error::ReadLinks`], [`Error::DeleteLink`], [`Error::CreateLink`], [`Error::SetLink`].
    pub fn ensure_host_pair(&mut self, mtu: u32) -> Result<Link, Error> {
        let (host, net) = (self.link(HOST_DEVICE)?, self.link(NET_DEVICE)?);
        let paired = matches!((&host, &net), (Some(host), Some(net))
            if host.kind == Kind::Veth && host.peer == net.index && net.peer == host.index);
        if !paired {
            self.delete_link(HOST_DEVICE)?;
            self.delete_link(NET_DEVICE)?;
            let peer = InfoData::Veth(InfoVeth::Peer(link::by_name(NET_DEVICE)));
            self.create_device(HOST_DEVICE, InfoKind::Veth, peer)?;
        }
        for device in [NET_DEVICE, HOST_DEVICE] {
            let mut message = settings(device, mtu);
            message.header.flags |= LinkFlags::Noarp;
            message.header.change_mask |= LinkFlags::Noarp;
            self.set_and_up(device, message)?;
        }
        self.require_link(HOST_DEVICE)
    }

    /// Makes sure of the tunnel device [`VXLAN_DEVICE`], up: the programs say for each packet where it goes (external
    /// mode), nothing is learned. A device with another port or mode is replaced.
    ///
    /// # Errors
    /// [`Error::ReadLinks`], [`Error::DeleteLink`], [`Error::CreateLink`], [`Error::SetLink`].
    pub fn ensure_vxlan(&mut self, port: u16, mtu: u32) -> Result<Link, Error> {
        let wanted = Kind::Vxlan { port, external: true };
        if self.link(VXLAN_DEVICE)?.is_none_or(|device| device.kind != wanted) {
            self.delete_link(VXLAN_DEVICE)?;
            let data =
                vec![InfoVxlan::CollectMetadata(true), InfoVxlan::Port(port), InfoVxlan::Learning(false)];
            self.create_device(VXLAN_DEVICE, InfoKind::Vxlan, InfoData::Vxlan(data))?;
        }
        self.set_and_up(VXLAN_DEVICE, settings(VXLAN_DEVICE, mtu))?;
        self.require_link(VXLAN_DEVICE)
    }

    fn create_device(&mut self, name: &str, kind: InfoKind, data: InfoData) -> Result<(), Error> {
        let mut message = link::by_name(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        let request = Request::new(RouteNetlinkMessage::NewLink(message), CREATE | EXCLUSIVE);
        match self.socket.execute(vec![request]) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::CreateLink { name: name.to_owned(), source }),
        }
    }
}

/// What all devices of ours have in common.
fn settings(name: &str, mtu: u32) -> LinkMessage {
    let mut message = link::by_name(name);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(link::no_link_local());
    message
}
