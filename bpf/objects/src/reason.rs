//! Why packets are dropped.

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $flow:literal, $text:literal; )+) => {
        /// Reasons for which the programs drop packets, with the numbers of the flow API's `DropReason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $( $(#[$doc])* $name = $number, )+
        }

        impl DropReason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$( Self::$name, )+];

            /// The reason behind a number; `None` for 0 (forwarded) and numbers that the programs do not use.
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// Name in the flow API.
            pub fn flow_name(self) -> &'static str {
                match self {
                    $( Self::$name => $flow, )+
                }
            }

            /// Words for people.
            pub fn text(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )+
                }
            }
        }
    };
}

reasons! {
    /// A pod sent from an address, or on a device, that is not its own; or another host used an address of this node.
    InvalidSourceIp = 132, "INVALID_SOURCE_IP", "Invalid source ip";
    /// No rule allows the connection in a direction that is enforced.
    PolicyDenied = 133, "POLICY_DENIED", "Policy denied";
    /// The IP header contradicts itself or the packet's length.
    InvalidPacket = 134, "INVALID_PACKET_DROPPED", "Invalid packet";
    /// The packet ends before the ports or flags of its protocol.
    CtInvalidHeader = 135, "CT_TRUNCATED_OR_INVALID_HEADER", "CT: Truncated or invalid header";
    /// Neither IPv4, IPv6 nor ARP.
    UnsupportedL3 = 139, "UNSUPPORTED_L3_PROTOCOL", "Unsupported L3 protocol";
    /// The kernel could not make the packet writable.
    WriteError = 141, "ERROR_WRITING_TO_PACKET", "Error while writing to packet";
    /// Not TCP, UDP, SCTP, ICMP or ICMPv6.
    UnknownL4 = 142, "UNKNOWN_L4_PROTOCOL", "Unknown L4 protocol";
    /// A packet from the tunnel has no tunnel key, or the kernel refused the key for one that goes there.
    TunnelKey = 147, "ERROR_RETRIEVING_TUNNEL_KEY", "Error retrieving tunnel key";
    /// A packet from the tunnel is for nobody on this node.
    UnknownTarget = 150, "UNKNOWN_L3_TARGET_ADDRESS", "Unknown L3 target address";
    /// The connection could not be recorded.
    CtInsertFailed = 155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed";
    /// Too many extension headers.
    InvalidExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER", "Invalid IPv6 extension header";
    /// The packet is too large for the way on; its sender is told so.
    FragmentationNeeded = 157, "IP_FRAGMENTATION_NOT_SUPPORTED", "Fragmentation needed";
    /// A service without a backend that this node may use.
    NoService = 158, "SERVICE_BACKEND_NOT_FOUND", "Service backend not found";
    /// The destination's node has no tunnel endpoint.
    NoTunnelEndpoint = 160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT", "No tunnel/encapsulation endpoint (datapath BUG!)";
    /// A reply to a masqueraded connection that is not known any more.
    CtUnknownState = 163, "UNKNOWN_CONNECTION_TRACKING_STATE", "Unknown connection tracking state";
    /// All ports of the node's address are taken towards that destination.
    NatNoMapping = 167, "NO_MAPPING_FOR_NAT_MASQUERADE", "No mapping for NAT masquerade";
    /// A protocol that cannot share the node's address (SCTP, ICMP other than echo and errors).
    NatUnsupportedProtocol = 168, "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE", "Unsupported protocol for NAT masquerade";
    /// No route that a masqueraded packet, or one of a service, could take.
    FibLookupFailed = 169, "FIB_LOOKUP_FAILED", "FIB lookup failed";
    /// A later fragment came without, or before, the first.
    FragmentNotFound = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", "First logical datagram fragment not found";
    /// Router discovery, multicast listener reports and the like, which pods do not need. Counted, never an event.
    ForbiddenIcmp6 = 176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message";
    /// The client is in none of the source ranges of the service.
    NotInSourceRange = 177, "DENIED_BY_LB_SRC_RANGE_CHECK", "Denied by LB src range check";
    /// The DNS proxy does not run.
    SocketLookup = 178, "SOCKET_LOOKUP_FAILED", "Socket lookup failed";
    /// The kernel would not give the packet to the DNS proxy.
    SocketAssign = 179, "SOCKET_ASSIGN_FAILED", "Socket assign failed";
    /// A rule denies the connection, whatever others allow.
    PolicyDeny = 181, "POLICY_DENY", "Policy denied by denylist";
    /// A pod sent a frame with a VLAN tag.
    VlanFiltered = 182, "VLAN_FILTERED", "VLAN traffic disallowed by VLAN filter";
    /// The hop limit is used up. The packet goes to the stack, which answers with an ICMP error.
    TtlExceeded = 196, "TTL_EXCEEDED", "TTL exceeded";
    /// The endpoint has no policy yet.
    EndpointNotReady = 203, "DROP_EP_NOT_READY", "Endpoint policy not ready";
}

impl DropReason {
    /// Number in events and metrics.
    pub fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn numbers_are_sorted_and_lead_back() {
        assert!(DropReason::ALL.is_sorted());
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
        }
        assert_eq!(DropReason::from_number(0), None);
    }

    #[test]
    fn header_has_the_same_numbers() {
        let header = include_str!("../../include/reasons.h");
        let in_header: Vec<u8> = header
            .lines()
            .filter_map(|line| line.trim().strip_prefix("DROP_")?.split_once(" = ")?.1.strip_suffix(','))
            .map(|number| number.parse().unwrap())
            .collect();
        let here: Vec<u8> = DropReason::ALL.iter().map(|reason| reason.number()).collect();
        assert_eq!(in_header, here);
    }
}
