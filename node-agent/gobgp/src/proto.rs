//! Messages and services, made of `proto/` by the build script.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "code made by tonic-prost-build"
)]

include!(concat!(env!("OUT_DIR"), "/all.rs"));

pub(crate) use cilium::gobgp::*;
