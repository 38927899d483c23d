//! Running a program on a packet without a network (`BPF_PROG_TEST_RUN`).

use std::{io, os::fd::BorrowedFd};

use thiserror::Error;

use crate::sys::bpf;

/// The kernel did not run the program.
#[derive(Debug, Error)]
#[error("cannot run the program on a packet of {length} bytes")]
pub struct Error {
    /// Length of the packet.
    length: usize,
    source: io::Error,
}

/// What the program is given beside the packet, and what it leaves: fields of `struct __sk_buff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// `skb->mark`.
    pub mark: u32,
    /// Device on which the packet came in.
    pub ingress_device: u32,
    /// Device that the program is attached to.
    pub device: u32,
    /// Control block.
    pub cb: [u32; 5],
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Return value, such as `TC_ACT_SHOT`.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The context afterwards.
    pub context: Context,
    /// Mean time of one run, in nanoseconds.
    pub nanoseconds: u32,
}

/// Size of `struct __sk_buff`, and offsets of our fields in it (the kernel's `uapi/linux/bpf.h`).
const SIZE: usize = 192;
const MARK: usize = 8;
const INGRESS_DEVICE: usize = 36;
const DEVICE: usize = 40;
const CB: usize = 48;

/// Room for what a program may add in front of a packet.
const HEADROOM: usize = 256;

/// Runs a program of type `sched_cls` `repeat` times on a packet (with Ethernet header).
///
/// # Errors
/// When the kernel refuses the packet (shorter than an Ethernet header) or the context.
pub fn run(program: BorrowedFd<'_>, packet: &[u8], context: Context, repeat: u32) -> Result<Outcome, Error> {
    let mut output = vec![0; packet.len() + HEADROOM];
    let mut raw = encode(context);
    let done = bpf::test_run(program, packet, &mut output, &mut raw, repeat)
        .map_err(|source| Error { length: packet.len(), source })?;
    output.truncate(done.output);
    Ok(Outcome { verdict: done.result, packet: output, context: decode(&raw), nanoseconds: done.nanoseconds })
}

/// As [`run`], with a program of type `xdp`, on a packet that a device of the calling thread's network namespace received.
///
/// # Errors
/// As [`run`].
pub fn run_early(program: BorrowedFd<'_>, packet: &[u8], device: u32, repeat: u32) -> Result<Outcome, Error> {
    let failed = |source| Error { length: packet.len(), source };
    let length = u32::try_from(packet.len()).map_err(|error| failed(io::Error::other(error)))?;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let words = [0, length, 0, device, 0, 0];
    let mut raw: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut output = vec![0; packet.len() + HEADROOM];
    let done = bpf::test_run(program, packet, &mut output, &mut raw, repeat).map_err(failed)?;
    output.truncate(done.output);
    let context = Context { ingress_device: device, ..Context::default() };
    Ok(Outcome { verdict: done.result, packet: output, context, nanoseconds: done.nanoseconds })
}

fn encode(context: Context) -> [u8; SIZE] {
    let mut raw = [0; SIZE];
    let mut put = |at: usize, value: u32| raw[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(MARK, context.mark);
    put(INGRESS_DEVICE, context.ingress_device);
    put(DEVICE, context.device);
    for (index, value) in context.cb.into_iter().enumerate() {
        put(CB + 4 * index, value);
    }
    raw
}

fn decode(raw: &[u8; SIZE]) -> Context {
    let take = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    Context {
        mark: take(MARK),
        ingress_device: take(INGRESS_DEVICE),
        device: take(DEVICE),
        cb: std::array::from_fn(|index| take(CB + 4 * index)),
    }
}
