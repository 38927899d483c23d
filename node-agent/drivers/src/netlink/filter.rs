//! Programs on devices without tcx (kernels before 6.6): a filter on the clsact qdisc.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};

use super::{CREATE, EXCLUSIVE, Error, Netlink, REPLACE, Request};
use crate::datapath::Direction;

/// One filter a direction, always in the same place, so that writing it again replaces it.
const PRIORITY: u32 = 1;
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

impl Netlink {
    /// Puts a program on a device; one that is there already is replaced in one step.
    ///
    /// # Errors
    /// [`Error::SetFilter`].
    pub(crate) fn set_filter(
        &mut self,
        device: u32,
        direction: Direction,
        name: &str,
        program: impl AsFd,
    ) -> Result<(), Error> {
        let failed = |source| Error::SetFilter { device, source };
        self.ensure_clsact(device)?;
        let options = vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd().unsigned_abs())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ];
        let attributes = vec![TcAttribute::Kind("bpf".to_owned()), TcAttribute::Options(options)];
        let message = TcMessage::from_parts(header(device, direction), attributes);
        let request = Request::new(RouteNetlinkMessage::NewTrafficFilter(message), CREATE | REPLACE);
        self.socket.execute(vec![request]).map(drop).map_err(failed)
    }

    /// Makes the place for filters, if it is not there.
    ///
    /// # Errors
    /// [`Error::SetFilter`].
    pub(super) fn ensure_clsact(&mut self, device: u32) -> Result<(), Error> {
        match self.socket.execute(vec![Request::new(clsact(device), CREATE | EXCLUSIVE)]) {
            Err(source) if source.errno() != Some(libc::EEXIST) => Err(Error::SetFilter { device, source }),
            _ => Ok(()),
        }
    }

    /// Takes our program off a device. None there, or no such device, is a success.
    ///
    /// # Errors
    /// [`Error::DeleteFilter`].
    pub(crate) fn delete_filter(&mut self, device: u32, direction: Direction) -> Result<(), Error> {
        let attributes = vec![TcAttribute::Kind("bpf".to_owned())];
        let message = TcMessage::from_parts(header(device, direction), attributes);
        let request = Request::new(RouteNetlinkMessage::DelTrafficFilter(message), 0);
        match self.socket.execute(vec![request]) {
            Err(source) if !matches!(source.errno(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {
                Err(Error::DeleteFilter { device, source })
            }
            _ => Ok(()),
        }
    }

    /// The id of our program on a device.
    ///
    /// # Errors
    /// [`Error::ReadFilters`].
    pub(crate) fn filter(&mut self, device: u32, direction: Direction) -> Result<Option<u32>, Error> {
        let mut message = TcMessage::with_index(device.cast_signed());
        message.header.parent = header(device, direction).parent;
        let request = RouteNetlinkMessage::GetTrafficFilter(message);
        match self.socket.dump(&request, parse) {
            Ok(found) => Ok(found.first().copied()),
            Err(fault) if matches!(fault.errno(), Some(libc::ENODEV | libc::EINVAL)) => Ok(None),
            Err(source) => Err(Error::ReadFilters { device, source }),
        }
    }
}

fn clsact(device: u32) -> RouteNetlinkMessage {
    let mut message = TcMessage::with_index(device.cast_signed());
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.header.parent = TcHandle::CLSACT;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    RouteNetlinkMessage::NewQueueDiscipline(message)
}

fn header(device: u32, direction: Direction) -> TcHeader {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHeader {
        index: device.cast_signed(),
        handle: HANDLE,
        parent: TcHandle { major: TcHandle::CLSACT.major, minor },
        info: PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be()),
        ..TcHeader::default()
    }
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    if message.header.handle != HANDLE || message.header.info >> 16 != PRIORITY {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
}
