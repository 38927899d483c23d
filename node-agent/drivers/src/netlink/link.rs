use std::{fmt, str::FromStr};

use netlink_packet_core::Nla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute,
        LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
};

use rustix::{io::Errno, net::netdevice};

use super::{Error, Netlink, Request};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A random unicast, locally administered address (IEEE 802c).
    ///
    /// # Panics
    /// When the kernel has no random numbers, which it always has after boot.
    pub fn random() -> Self {
        let mut bytes = [0; 6];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .expect("getrandom(2) of 6 bytes cannot fail once the kernel has booted");
        bytes[0] = (bytes[0] & 0xfc) | 0x02;
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Option<Vec<u8>> = text.split(':').map(parse_byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("{text:?} is not a MAC address such as 02:00:5e:10:00:01"))
    }
}

/// Two hex digits.
fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// What sort of device it is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One end of a virtual Ethernet pair.
    Veth,
    /// A VXLAN tunnel.
    Vxlan {
        /// UDP port it listens on.
        port: u16,
        /// Takes the tunnel's parameters from each packet.
        external: bool,
    },
    /// Anything else.
    Other,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; zeros for devices without.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Index of the peer of a veth (in its own namespace).
    pub peer: u32,
    /// Sort.
    pub kind: Kind,
    /// Alias; empty when there is none.
    pub alias: String,
}

impl Netlink {
    /// The device of this name, if there is one.
    ///
    /// A veth that was set up before its peer drops what it should send until the kernel has noticed the peer; since Linux
    /// 6.9 this call makes the kernel notice before it answers.
    ///
    /// # Errors
    /// [`Error::ReadLinks`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message)
    }

    /// The device with this index, if there is one.
    ///
    /// # Errors
    /// [`Error::ReadLinks`].
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message)
    }

    fn get_link(&mut self, mut message: LinkMessage) -> Result<Option<Link>, Error> {
        message.attributes.push(without_statistics());
        match self.socket.execute(vec![Request::new(RouteNetlinkMessage::GetLink(message), 0)]) {
            Ok(answers) => Ok(answers.into_iter().find_map(parse)),
            Err(fault) if fault.errno() == Some(libc::ENODEV) => Ok(None),
            Err(fault) => Err(Error::ReadLinks(fault)),
        }
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::ReadLinks`].
    pub fn require_link(&mut self, name: &str) -> Result<Link, Error> {
        self.link(name)?.ok_or_else(|| Error::NoLink { name: name.to_owned() })
    }

    /// Index of a device, if there is one of that name. Unlike [`Netlink::link`], it waits for nobody who changes devices.
    ///
    /// # Errors
    /// [`Error::LookUp`].
    pub fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        found(netdevice::name_to_index(&self.socket, name))
    }

    /// Name of a device, if there is one of that index. As [`Netlink::index`], it waits for nobody.
    pub(super) fn name(&self, index: u32) -> Result<Option<String>, Error> {
        found(netdevice::index_to_name(&self.socket, index))
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// [`Error::ReadLinks`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_statistics());
        self.socket.dump(&RouteNetlinkMessage::GetLink(message), parse).map_err(Error::ReadLinks)
    }

    /// Removes a device (of a veth pair both ends go). One that is not there is a success.
    ///
    /// # Errors
    /// [`Error::DeleteLink`].
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = Request::new(RouteNetlinkMessage::DelLink(message), 0);
        match self.socket.execute(vec![request]) {
            Err(fault) if fault.errno() != Some(libc::ENODEV) => {
                Err(Error::DeleteLink { name: name.to_owned(), source: fault })
            }
            _ => Ok(()),
        }
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// [`Error::SetLink`].
    pub fn set_up(&mut self, name: &str) -> Result<(), Error> {
        self.set_links(name, vec![up(name)])
    }

    /// Changes a device and sets it up. The kernel acts on flags before it looks at the address generation mode, so this
    /// takes two requests.
    pub(super) fn set_and_up(&mut self, name: &str, settings: LinkMessage) -> Result<(), Error> {
        self.set_links(name, vec![settings, up(name)])
    }

    fn set_links(&mut self, name: &str, messages: Vec<LinkMessage>) -> Result<(), Error> {
        let requests =
            messages.into_iter().map(|message| Request::new(RouteNetlinkMessage::SetLink(message), 0));
        let done = self.socket.execute(requests.collect());
        done.map(drop).map_err(|source| Error::SetLink { name: name.to_owned(), source })
    }
}

fn found<T>(answer: Result<T, Errno>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NODEV | Errno::NXIO) => Ok(None),
        Err(error) => Err(Error::Open(error.into())),
    }
}

/// A message about the device of this name.
pub(super) fn by_name(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// A message that sets the device of this name up.
pub(super) fn up(name: &str) -> LinkMessage {
    let mut message = by_name(name);
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
    message
}

/// Keeps the kernel from giving the device a link-local address, which nobody needs there and which costs duplicate
/// address detection.
pub(super) fn no_link_local() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        peer: 0,
        kind: Kind::Other,
        alias: String::new(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(peer) => link.peer = peer,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().map(Mac).unwrap_or_default(),
            LinkAttribute::LinkInfo(info) => link.kind = parse_kind(&info),
            _ => {}
        }
    }
    Some(link)
}

fn parse_kind(info: &[LinkInfo]) -> Kind {
    let is = |kind: &InfoKind| info.iter().any(|info| matches!(info, LinkInfo::Kind(found) if found == kind));
    if is(&InfoKind::Veth) {
        return Kind::Veth;
    }
    if !is(&InfoKind::Vxlan) {
        return Kind::Other;
    }
    let (mut port, mut external) = (0, false);
    for info in info {
        let LinkInfo::Data(InfoData::Vxlan(data)) = info else { continue };
        for attribute in data {
            match attribute {
                InfoVxlan::Port(value) => port = *value,
                InfoVxlan::CollectMetadata(value) => external = *value,
                other => tracing::trace!(kind = other.kind(), "attribute of no interest"),
            }
        }
    }
    Kind::Vxlan { port, external }
}
