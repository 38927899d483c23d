//! Kernel parameters under `/proc/sys`, of the network namespace of the calling thread.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use thiserror::Error;

/// A kernel parameter could not be set.
#[derive(Debug, Error)]
#[error("cannot set kernel parameter {name} to {value}")]
pub struct Error {
    name: String,
    value: String,
    source: io::Error,
}

static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Looks for parameters below `root` instead of `/proc/sys`, which is read-only in a container. Only the first call counts.
pub fn use_root(root: &Path) {
    ROOT.get_or_init(|| root.to_owned());
}

/// Sets a parameter, such as `net.ipv4.ip_forward`, unless it has the value already. A dot that belongs to a name is written
/// as a slash, as in `sysctl(8)`: see [`device`].
///
/// # Errors
/// When it cannot be read or written.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = path(name);
    let present = fs::read_to_string(&path).is_ok_and(|present| present.trim() == value);
    if present {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| Error { name: name.to_owned(), value: value.to_owned(), source })
}

/// Reads a parameter; `None` when the kernel has none of this name.
pub fn get(name: &str) -> Option<String> {
    Some(fs::read_to_string(path(name)).ok()?.trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    let swapped: String = name
        .chars()
        .map(|char| match char {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    ROOT.get().map_or(Path::new("/proc/sys"), PathBuf::as_path).join(swapped)
}

/// The name of a device as a part of a parameter's name.
pub fn device(name: &str) -> String {
    name.replace('.', "/")
}

/// What a node needs that forwards for pods: forwarding, no reverse-path filter that knows only the host's routes.
/// Parameters without which forwarding works all the same may be refused; their errors are returned for the log.
///
/// # Errors
/// When one of the necessary parameters cannot be set.
pub fn prepare_node(ipv6: bool) -> Result<Vec<Error>, Error> {
    set("net.ipv4.ip_forward", "1")?;
    set("net.ipv4.conf.all.forwarding", "1")?;
    set("net.ipv4.conf.all.rp_filter", "0")?;
    set("net.ipv4.conf.default.rp_filter", "0")?;
    if ipv6 {
        set("net.ipv6.conf.all.disable_ipv6", "0")?;
        set("net.ipv6.conf.all.forwarding", "1")?;
    }
    let optional = [
        ("net.core.bpf_jit_enable", "1"),
        ("kernel.unprivileged_bpf_disabled", "1"),
        ("net.ipv4.fib_multipath_use_neigh", "1"),
        ("kernel.timer_migration", "0"),
    ];
    Ok(optional.into_iter().filter_map(|(name, value)| set(name, value).err()).collect())
}

/// Keeps ranges of ports, first and last, from sockets that ask for any port. What was kept before stays so.
///
/// # Errors
/// When the parameter cannot be set.
pub fn reserve_ports(ranges: &[(u16, u16)]) -> Result<(), Error> {
    const NAME: &str = "net.ipv4.ip_local_reserved_ports";
    let present = get(NAME).filter(|present| !present.is_empty());
    let ours = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
    set(NAME, &present.into_iter().chain(ours).collect::<Vec<_>>().join(","))
}

/// What one of our own devices needs.
///
/// # Errors
/// When a parameter cannot be set.
pub fn prepare_device(name: &str, ipv6: bool) -> Result<(), Error> {
    let device = device(name);
    for (name, value) in
        [("forwarding", "1"), ("rp_filter", "0"), ("accept_local", "1"), ("send_redirects", "0")]
    {
        set(&format!("net.ipv4.conf.{device}.{name}"), value)?;
    }
    if ipv6 {
        set(&format!("net.ipv6.conf.{device}.forwarding"), "1")?;
    }
    Ok(())
}

/// What a pod's host-side device needs: no reverse-path filter, and no redirects to pods for routing through the node.
///
/// # Errors
/// When a parameter cannot be set.
pub fn prepare_pod_device(name: &str) -> Result<(), Error> {
    let device = device(name);
    set(&format!("net.ipv4.conf.{device}.rp_filter"), "0")?;
    set(&format!("net.ipv4.conf.{device}.send_redirects"), "0")
}
