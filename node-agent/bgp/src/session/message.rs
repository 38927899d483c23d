//! UPDATEs: what the codec reads, in plain types, and what is said, in bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use cilium_rest::bgp::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustbgpd_wire::attribute::encode_path_attributes;
use rustbgpd_wire::nlri::encode_nlri;
use rustbgpd_wire::{
    Afi, AsPath, AsPathSegment, ErrorDisposition, Ipv4Prefix, Ipv6Prefix, LargeCommunity, MpReachNlri,
    MpUnreachNlri, NlriEntry, NotificationCode, NotificationMessage, Origin as WireOrigin, ParsedUpdate,
    PathAttribute, Prefix, RevisedParsedUpdate, Safi, UpdateMessage, UpdateValidationOptions, validate,
};

use crate::export::{Changes, Offer};

/// Bytes of the longest message (RFC 4271, 4.1); longer ones (RFC 8654) are not negotiated.
pub const LONGEST: usize = 4096;

/// Bytes of an UPDATE without attributes and prefixes.
const UPDATE_OVERHEAD: usize = 23;

/// Bytes of MP_REACH_NLRI before its prefixes, with the longest next hop.
const REACH_OVERHEAD: usize = 4 + 5 + 32;

/// Communities of an advertisement have at most this many bytes, so that there is room for prefixes.
pub const LONGEST_COMMUNITIES: usize = 3072;

/// Where a path came from (RFC 4271, 5.1.1); the lower, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Inside of its AS.
    Igp,
    /// By EGP.
    Egp,
    /// Otherwise.
    Incomplete,
}

impl Origin {
    /// As command lines write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A part of an AS path (RFC 4271, 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// One after the other, nearest first.
    Sequence(Box<[u32]>),
    /// Without order; counts as one.
    Set(Box<[u32]>),
}

/// What a peer said of prefixes: shared by all that have it in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Next hop; the global address where a link-local one came with it.
    pub next_hop: IpAddr,
    /// AS path.
    pub as_path: Box<[Segment]>,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Standard communities.
    pub communities: Box<[u32]>,
    /// Large communities.
    pub large_communities: Box<[(u32, u32, u32)]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator: Option<Ipv4Addr>,
}

impl Path {
    /// Numbers of the path, each set as one element.
    pub fn hops(&self) -> Vec<String> {
        let hops = |segment: &Segment| match segment {
            Segment::Sequence(numbers) => numbers.iter().map(ToString::to_string).collect(),
            Segment::Set(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                vec![format!("{{{}}}", numbers.join(","))]
            }
        };
        self.as_path.iter().flat_map(hops).collect()
    }

    /// Length as the choice of the best path counts it (RFC 4271, 9.1.2.2).
    pub fn length(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Sequence(numbers) => numbers.len(),
            Segment::Set(_) => 1,
        };
        self.as_path.iter().map(length).sum()
    }

    /// The AS that the path came from; `None`: it began in ours.
    pub fn neighbour(&self) -> Option<u32> {
        match self.as_path.first()? {
            Segment::Sequence(numbers) => numbers.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// Whether the path went through an AS before.
    pub fn contains(&self, asn: u32) -> bool {
        self.as_path.iter().any(|segment| match segment {
            Segment::Sequence(numbers) | Segment::Set(numbers) => numbers.contains(&asn),
        })
    }
}

/// An UPDATE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that go.
    pub withdrawn: Vec<IpNet>,
    /// Prefixes that come; those of two families have two next hops.
    pub announced: Vec<(Path, Vec<IpNet>)>,
    /// It is the end of a family's first set (RFC 4724, 2), and nothing else.
    pub end_of: Option<Family>,
    /// What was wrong with it and could be mended (RFC 7606): a sentence.
    pub flaw: Option<String>,
}

/// What reading depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) four_octet_as: bool,
    pub(super) is_internal: bool,
    pub(super) is_link_local: bool,
    pub(super) families: &'a [Family],
}

/// The codec's names of a family.
pub(super) fn afi(family: Family) -> Afi {
    match family {
        Family::Ipv4 => Afi::Ipv4,
        Family::Ipv6 => Afi::Ipv6,
    }
}

/// Ours.
pub(super) fn family_of(afi: Afi, safi: Safi) -> Option<Family> {
    match (afi, safi) {
        (Afi::Ipv4, Safi::Unicast) => Some(Family::Ipv4),
        (Afi::Ipv6, Safi::Unicast) => Some(Family::Ipv6),
        _ => None,
    }
}

/// Reads an UPDATE as RFC 7606 wants it. The error is what the session ends with.
pub(super) fn read(message: &UpdateMessage, context: Context<'_>) -> Result<Update, NotificationMessage> {
    let RevisedParsedUpdate { mut update, malformed } = message
        .parse_revised(context.four_octet_as, context.is_internal, false, &[])
        .map_err(|error| notification(&error))?;
    if let Some(fatal) = malformed.iter().find(|it| it.disposition == ErrorDisposition::SessionReset) {
        return Err(notification(&fatal.error));
    }
    if context.is_link_local {
        take_link_local_next_hops(&mut update);
    }
    let mut result = plain(&update, context);
    if let Some(end_of) = end_of(message, &update) {
        return Ok(Update { end_of: context.families.contains(&end_of).then_some(end_of), ..result.0 });
    }
    let mut withdraw = malformed.iter().any(|it| it.disposition == ErrorDisposition::TreatAsWithdraw);
    result.0.flaw = malformed.first().map(|it| format!("attribute {}: {}", it.type_code, it.error));
    if let Err(error) = check(&update, context) {
        match error.disposition {
            ErrorDisposition::SessionReset => {
                let data = Bytes::from(error.data);
                return Err(NotificationMessage::new(NotificationCode::UpdateMessage, error.subcode, data));
            }
            ErrorDisposition::TreatAsWithdraw => withdraw = true,
            ErrorDisposition::AttributeDiscard => {}
        }
        let text = rustbgpd_wire::notification::description(NotificationCode::UpdateMessage, error.subcode);
        result.0.flaw.get_or_insert_with(|| text.to_owned());
    }
    let (mut result, without_path) = result;
    if withdraw || !without_path.is_empty() {
        let announced = std::mem::take(&mut result.announced);
        result.withdrawn.extend(announced.into_iter().flat_map(|(_, prefixes)| prefixes));
        result.withdrawn.extend(without_path);
        result.flaw.get_or_insert_with(|| "an attribute is missing".to_owned());
        result.flaw = result.flaw.map(|flaw| format!("{flaw}; its prefixes count as withdrawn"));
    }
    Ok(result)
}

/// A router without a global address on the link says `::` in its place beside the link-local one (BIRD does).
fn take_link_local_next_hops(update: &mut ParsedUpdate) {
    for attribute in &mut update.attributes {
        if let PathAttribute::MpReachNlri(mp) = attribute
            && let Some(local) = mp.link_local_next_hop
            && mp.next_hop.is_unspecified()
        {
            mp.next_hop = IpAddr::V6(local);
        }
    }
}

fn notification(error: &rustbgpd_wire::DecodeError) -> NotificationMessage {
    let (code, subcode, data) = error.to_notification();
    NotificationMessage::new(code, subcode, data)
}

fn check(update: &ParsedUpdate, context: Context<'_>) -> Result<(), rustbgpd_wire::UpdateError> {
    let mut options = UpdateValidationOptions::default();
    options.allow_ipv4_link_local_mp_reach_next_hop = context.is_link_local;
    options.link_local_next_hop = context.is_link_local;
    let has_body = !update.announced.is_empty();
    let reach = update
        .attributes
        .iter()
        .any(|it| matches!(it, PathAttribute::MpReachNlri(mp) if !mp.announced.is_empty()));
    validate::validate_update_attributes_with_options(
        &update.attributes,
        has_body || reach,
        has_body,
        !context.is_internal,
        options,
    )
}

fn end_of(message: &UpdateMessage, update: &ParsedUpdate) -> Option<Family> {
    if !message.withdrawn_routes.is_empty() || !message.nlri.is_empty() {
        return None;
    }
    if message.path_attributes.is_empty() {
        return Some(Family::Ipv4);
    }
    match update.attributes.as_slice() {
        [PathAttribute::MpUnreachNlri(mp)] if mp.withdrawn.is_empty() => family_of(mp.afi, mp.safi),
        _ => None,
    }
}

/// The update, and prefixes that came without what makes a path.
fn plain(update: &ParsedUpdate, context: Context<'_>) -> (Update, Vec<IpNet>) {
    let mut result = Update::default();
    let mut without_path = Vec::new();
    let mut reach: Vec<(Option<IpAddr>, Vec<IpNet>)> = Vec::new();
    let takes = |afi, safi| family_of(afi, safi).is_some_and(|it| context.families.contains(&it));
    if context.families.contains(&Family::Ipv4) {
        result.withdrawn.extend(update.withdrawn.iter().filter_map(|it| net4(it.prefix)));
        let body: Vec<_> = update.announced.iter().filter_map(|it| net4(it.prefix)).collect();
        let next_hop = update.attributes.iter().find_map(|it| match it {
            PathAttribute::NextHop(address) => Some(IpAddr::V4(*address)),
            _ => None,
        });
        reach.push((next_hop, body));
    }
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::MpReachNlri(mp) if takes(mp.afi, mp.safi) => {
                reach.push((Some(mp.next_hop), mp.announced.iter().filter_map(net).collect()));
            }
            PathAttribute::MpUnreachNlri(mp) if takes(mp.afi, mp.safi) => {
                result.withdrawn.extend(mp.withdrawn.iter().filter_map(net));
            }
            _ => {}
        }
    }
    for (next_hop, prefixes) in reach.into_iter().filter(|(_, prefixes)| !prefixes.is_empty()) {
        match next_hop.and_then(|next_hop| path(&update.attributes, next_hop)) {
            Some(path) => result.announced.push((path, prefixes)),
            None => without_path.extend(prefixes),
        }
    }
    (result, without_path)
}

fn net4(prefix: Ipv4Prefix) -> Option<IpNet> {
    Ipv4Net::new(prefix.addr, prefix.len).ok().map(IpNet::V4)
}

fn net(entry: &NlriEntry) -> Option<IpNet> {
    match entry.prefix {
        Prefix::V4(prefix) => net4(prefix),
        Prefix::V6(prefix) => Ipv6Net::new(prefix.addr, prefix.len).ok().map(IpNet::V6),
    }
}

fn path(attributes: &[PathAttribute], next_hop: IpAddr) -> Option<Path> {
    let mut path = Path {
        next_hop,
        as_path: Box::default(),
        origin: Origin::Incomplete,
        local_preference: None,
        med: None,
        communities: Box::default(),
        large_communities: Box::default(),
        originator: None,
    };
    let mut has_origin = false;
    let mut has_as_path = false;
    for attribute in attributes {
        match attribute {
            PathAttribute::Origin(origin) => {
                has_origin = true;
                path.origin = match origin {
                    WireOrigin::Igp => Origin::Igp,
                    WireOrigin::Egp => Origin::Egp,
                    WireOrigin::Incomplete => Origin::Incomplete,
                };
            }
            PathAttribute::AsPath(it) => {
                has_as_path = true;
                path.as_path = it.segments.iter().map(segment).collect();
            }
            PathAttribute::LocalPref(preference) => path.local_preference = Some(*preference),
            PathAttribute::Med(med) => path.med = Some(*med),
            PathAttribute::Communities(all) | PathAttribute::CommunitiesPartial(all) => {
                path.communities = all.as_slice().into();
            }
            PathAttribute::LargeCommunities(all) | PathAttribute::LargeCommunitiesPartial(all) => {
                path.large_communities =
                    all.iter().map(|it| (it.global_admin, it.local_data1, it.local_data2)).collect();
            }
            PathAttribute::OriginatorId(id) => path.originator = Some(*id),
            _ => {}
        }
    }
    (has_origin && has_as_path).then_some(path)
}

fn segment(segment: &AsPathSegment) -> Segment {
    match segment {
        AsPathSegment::AsSequence(numbers) => Segment::Sequence(numbers.as_slice().into()),
        AsPathSegment::AsSet(numbers) => Segment::Set(numbers.as_slice().into()),
    }
}

/// Next hop of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// IPv4, for IPv4 prefixes.
    V4(Ipv4Addr),
    /// IPv6 (RFC 2545), for IPv4 prefixes, too (RFC 8950); the second one is link-local.
    V6(Ipv6Addr, Option<Ipv6Addr>),
}

impl NextHop {
    /// Its address; the global one of two.
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(address) => address.into(),
            Self::V6(address, _) => address.into(),
        }
    }
}

/// How prefixes of one family are said to a peer. Peers for which it is the same are sent the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Voice {
    /// The family.
    pub family: Family,
    /// Number in front of the path; `None` towards peers of the same AS.
    pub asn: Option<u32>,
    /// The peer reads AS numbers of four bytes (RFC 6793).
    pub four_octet_as: bool,
    /// Next hop of all prefixes.
    pub next_hop: NextHop,
}

impl Voice {
    /// As few UPDATEs as possible: first what goes, then what comes.
    pub fn say(&self, changes: &Changes) -> Bytes {
        let mut bytes = BytesMut::new();
        for prefixes in split(&changes.withdrawn, LONGEST - UPDATE_OVERHEAD - REACH_OVERHEAD) {
            self.push(&mut bytes, &[], prefixes, None);
        }
        for (offer, prefixes) in &changes.announced {
            let attributes = self.attributes(offer);
            let mut encoded = Vec::new();
            let length = encode_path_attributes(&attributes, &mut encoded, self.four_octet_as, false)
                .map_or(LONGEST, |()| encoded.len());
            let Some(room) = (LONGEST - UPDATE_OVERHEAD - REACH_OVERHEAD).checked_sub(length) else {
                tracing::error!(count = prefixes.len(), "communities leave no room for prefixes");
                continue;
            };
            for prefixes in split(prefixes, room) {
                self.push(&mut bytes, prefixes, &[], Some(&attributes));
            }
        }
        bytes.freeze()
    }

    fn attributes(&self, offer: &Offer) -> Vec<PathAttribute> {
        let segments = self.asn.map(|asn| AsPathSegment::AsSequence(vec![asn])).into_iter().collect();
        let mut all =
            vec![PathAttribute::Origin(WireOrigin::Igp), PathAttribute::AsPath(AsPath { segments })];
        if let (Family::Ipv4, NextHop::V4(address)) = (self.family, self.next_hop) {
            all.push(PathAttribute::NextHop(address));
        }
        all.extend(offer.local_preference.map(PathAttribute::LocalPref));
        if !offer.communities.is_empty() {
            all.push(PathAttribute::Communities(offer.communities.clone()));
        }
        if !offer.large_communities.is_empty() {
            let large = |&(admin, one, two): &(u32, u32, u32)| LargeCommunity::new(admin, one, two);
            all.push(PathAttribute::LargeCommunities(offer.large_communities.iter().map(large).collect()));
        }
        all
    }

    /// Whether prefixes stand in the body of an UPDATE, as IPv4 has it of old.
    fn is_in_body(&self) -> bool {
        self.family == Family::Ipv4 && matches!(self.next_hop, NextHop::V4(_))
    }

    fn push(
        &self,
        into: &mut BytesMut,
        announced: &[IpNet],
        withdrawn: &[IpNet],
        with: Option<&[PathAttribute]>,
    ) {
        let mut attributes = with.unwrap_or_default().to_vec();
        let mut message = UpdateMessage {
            withdrawn_routes: Bytes::new(),
            path_attributes: Bytes::new(),
            nlri: Bytes::new(),
        };
        if self.is_in_body() {
            message.withdrawn_routes = body(withdrawn);
            message.nlri = body(announced);
        } else if with.is_some() {
            attributes.insert(0, PathAttribute::MpReachNlri(Box::new(self.reach(announced))));
        } else {
            attributes.push(PathAttribute::MpUnreachNlri(Box::new(unreach(self.family, withdrawn))));
        }
        let mut encoded = Vec::new();
        let result = encode_path_attributes(&attributes, &mut encoded, self.four_octet_as, false);
        message.path_attributes = encoded.into();
        // Room was counted before; what the codec cannot say is no reason to end.
        if let Err(error) = result.and_then(|()| message.encode(into)) {
            tracing::error!(%error, "an UPDATE cannot be written");
        }
    }

    fn reach(&self, prefixes: &[IpNet]) -> MpReachNlri {
        let link_local_next_hop = match self.next_hop {
            NextHop::V4(_) => None,
            NextHop::V6(_, local) => local,
        };
        MpReachNlri {
            afi: afi(self.family),
            safi: Safi::Unicast,
            next_hop: self.next_hop.address(),
            link_local_next_hop,
            announced: prefixes.iter().map(entry).collect(),
            flowspec_announced: Vec::new(),
            evpn_announced: Vec::new(),
            bgpls_announced: Vec::new(),
            vpn_announced: Vec::new(),
            labeled_announced: Vec::new(),
            rtc_announced: Vec::new(),
        }
    }
}

/// The end of a family's first set (RFC 4724, 2).
pub fn end_of_rib(family: Family) -> Bytes {
    let mut attributes = Vec::new();
    if family == Family::Ipv6 {
        let unreach = PathAttribute::MpUnreachNlri(Box::new(unreach(family, &[])));
        encode_path_attributes(&[unreach], &mut attributes, true, false)
            .expect("an attribute without values can be written");
    }
    let message = UpdateMessage {
        withdrawn_routes: Bytes::new(),
        path_attributes: attributes.into(),
        nlri: Bytes::new(),
    };
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes).expect("a short message can be written");
    bytes.freeze()
}

fn unreach(family: Family, prefixes: &[IpNet]) -> MpUnreachNlri {
    MpUnreachNlri {
        afi: afi(family),
        safi: Safi::Unicast,
        withdrawn: prefixes.iter().map(entry).collect(),
        flowspec_withdrawn: Vec::new(),
        evpn_withdrawn: Vec::new(),
        bgpls_withdrawn: Vec::new(),
        vpn_withdrawn: Vec::new(),
        labeled_withdrawn: Vec::new(),
        rtc_withdrawn: Vec::new(),
    }
}

fn entry(prefix: &IpNet) -> NlriEntry {
    let prefix = match prefix {
        IpNet::V4(net) => Prefix::V4(Ipv4Prefix::new(net.network(), net.prefix_len())),
        IpNet::V6(net) => Prefix::V6(Ipv6Prefix::new(net.network(), net.prefix_len())),
    };
    NlriEntry { path_id: 0, prefix }
}

fn body(prefixes: &[IpNet]) -> Bytes {
    let prefixes: Vec<_> = prefixes
        .iter()
        .filter_map(|prefix| match prefix {
            IpNet::V4(net) => Some(Ipv4Prefix::new(net.network(), net.prefix_len())),
            IpNet::V6(_) => None,
        })
        .collect();
    let mut bytes = Vec::new();
    encode_nlri(&prefixes, &mut bytes);
    bytes.into()
}

/// Runs of prefixes that fit into so many bytes; none is empty.
fn split(mut prefixes: &[IpNet], room: usize) -> impl Iterator<Item = &[IpNet]> {
    std::iter::from_fn(move || {
        let mut left = room;
        let fits = prefixes.iter().take_while(|prefix| {
            let length = 1 + usize::from(prefix.prefix_len()).div_ceil(8);
            let fits = length <= left;
            left = left.saturating_sub(length);
            fits
        });
        let count = fits.count();
        let (now, later) = prefixes.split_at(count);
        prefixes = later;
        (count > 0).then_some(now)
    })
}
