//! Services, backends and the way back from a backend to its service.

use super::{Addr, NetPort, layout};

layout! {
    /// Key of `cilium_services`.
    pub struct ServiceKey as "service_key" {
        /// Cluster address.
        pub address: Addr,
        /// Port of the service.
        pub port: NetPort,
        /// IP protocol number.
        pub protocol: u8,
    }
}

layout! {
    /// Value of `cilium_services`. Backends of a new set are written under a new generation before this value names it.
    pub struct ServiceEntry as "service_entry" {
        /// Generation of the backends.
        pub generation: u32,
        /// Backends `0..count` exist under that generation. 0: connecting fails at once.
        pub count: u32,
        /// Seconds since its last use of the service in which a client keeps its backend; 0 is not at all.
        pub affinity: u32,
    }
}

layout! {
    /// Key of `cilium_backends`.
    pub struct BackendKey as "backend_key" {
        /// Generation, unique over all services.
        pub generation: u32,
        /// Position within the set.
        pub index: u32,
    }
}

layout! {
    /// Value of `cilium_backends`.
    pub struct BackendEntry as "backend_entry" {
        /// Address of the backend, of the family of its service.
        pub address: Addr,
        /// Port of the backend.
        pub port: NetPort,
    }
}

layout! {
    /// Key of `cilium_sock_revnat`: one socket's use of one backend.
    pub struct SockRevnatKey as "sock_revnat_key" {
        /// Cookie of the socket.
        pub cookie: u64,
        /// Backend that the socket was sent to.
        pub backend: Addr,
        /// Port of the backend.
        pub port: NetPort,
    }
}

layout! {
    /// Value of `cilium_sock_revnat`: what the program believes it talks to.
    pub struct SockRevnatEntry as "sock_revnat_entry" {
        /// Address of the service.
        pub service: Addr,
        /// Port of the service.
        pub port: NetPort,
    }
}
