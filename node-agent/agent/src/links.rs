//! How the node's pods are linked: told by CNI, kept on disk for the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cilium_dataplane::Link;
use cilium_drivers::netlink::{Mac, lxc_name};
use cilium_drivers::netns::Netns;
use cilium_rest::model::EndpointChange;
use rustix::fs::FlockOperation;

/// All linked pods by number of their endpoint, in memory and as one file each.
pub(crate) struct Links {
    directory: PathBuf,
    links: BTreeMap<u16, EndpointChange>,
}

impl Links {
    /// Reads the directory, which is created when missing. A file that cannot be read is named in the log and left alone: the
    /// pod is found again by its device.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut links = BTreeMap::new();
        for entry in
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
            let Some(id) = id_of(&path) else { continue };
            match read(&path) {
                Ok(link) => {
                    links.insert(id, link);
                }
                Err(error) => {
                    tracing::error!(file = %path.display(), error = format!("{error:#}"), "lost how a pod is linked");
                }
            }
        }
        Ok(Self { directory: directory.to_owned(), links })
    }

    /// All links, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &EndpointChange)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The link of an endpoint.
    pub(crate) fn get(&self, id: u16) -> Option<&EndpointChange> {
        self.links.get(&id)
    }

    /// The endpoint of an attachment `<container>:<interface>`. A link that was found again by its device does not know its
    /// container, but its device is named after it.
    pub(crate) fn by_attachment(&self, attachment: &str) -> Option<u16> {
        let device = attachment.split_once(':').map(|(container, device)| lxc_name(container, device));
        self.links
            .iter()
            .find(|(_, link)| {
                link.attachment() == attachment || Some(&link.interface_name) == device.as_ref()
            })
            .map(|(id, _)| *id)
    }

    /// Keeps a link, on disk first.
    pub(crate) fn insert(&mut self, id: u16, link: EndpointChange) -> anyhow::Result<()> {
        let path = self.path(id);
        let beside = path.with_added_extension("new");
        let failed = || format!("cannot write {}", path.display());
        fs::write(&beside, serde_json::to_vec(&link)?).with_context(failed)?;
        fs::rename(&beside, &path).with_context(failed)?;
        self.links.insert(id, link);
        Ok(())
    }

    /// Forgets a link.
    pub(crate) fn remove(&mut self, id: u16) -> anyhow::Result<Option<EndpointChange>> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(self.links.remove(&id)),
        }
    }

    fn path(&self, id: u16) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn id_of(path: &Path) -> Option<u16> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn read(path: &Path) -> anyhow::Result<EndpointChange> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Number by which socket programs know a pod's network namespace; 0 when it cannot be read.
pub(crate) fn netns_cookie(change: &EndpointChange) -> u64 {
    let path = &change.netns_path;
    if path.is_empty() {
        return 0;
    }
    let cookie = Netns::open(path).and_then(|netns| netns.run(Netns::cookie)?);
    cookie.unwrap_or_else(|error| {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(path, error, "policies cannot exempt the pod from redirects");
        0
    })
}

/// What the dataplane needs to know of a link; `None` when its MAC addresses cannot be read.
pub(crate) fn to_link(change: &EndpointChange, netns_cookie: u64) -> Option<Link> {
    let mac = |text: &str| text.parse::<Mac>().ok().map(|mac| mac.0);
    Some(Link {
        uid: change.k8s_uid.clone(),
        ifindex: change.interface_index,
        mac: mac(&change.mac)?,
        host_mac: mac(&change.host_mac)?,
        netns_cookie,
    })
}

/// Takes the notes that the CNI plugin left while the agent was down: attachments that are gone. A note that cannot be read
/// stays for the next time.
pub(crate) fn drain(queue: &Path) -> anyhow::Result<Vec<String>> {
    let lock = match File::open(queue.join("lockfile")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", queue.display())),
    };
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let mut gone = Vec::new();
    for entry in fs::read_dir(queue)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "delete") {
            gone.push(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_change() -> EndpointChange {
        EndpointChange {
            container_id: "c1".into(),
            container_interface_name: "eth0".into(),
            interface_name: lxc_name("c1", "eth0"),
            interface_index: 7,
            mac: "02:00:00:00:00:01".into(),
            host_mac: "02:00:00:00:00:02".into(),
            ..EndpointChange::default()
        }
    }

    #[test]
    fn links_outlive_the_process_and_are_found_by_attachment() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut links = Links::open(dir.path()).expect("opens");
        links.insert(5, mk_change()).expect("writes");
        fs::write(dir.path().join("6.json"), "{").expect("writes");
        let mut links = Links::open(dir.path()).expect("opens");
        assert_eq!((links.by_attachment("c1:eth0"), links.by_attachment("c2:eth0")), (Some(5), None));
        let mut found_again = mk_change();
        found_again.container_id.clear();
        links.insert(5, found_again).expect("writes");
        assert_eq!(links.by_attachment("c1:eth0"), Some(5), "by the name of its device");
        assert!(links.remove(5).expect("removes").is_some());
        assert!(Links::open(dir.path()).expect("opens").get(5).is_none());
    }

    #[test]
    fn macs_are_parsed() {
        assert_eq!(to_link(&mk_change(), 9).map(|link| (link.ifindex, link.mac[5])), Some((7, 1)));
        assert_eq!(to_link(&EndpointChange::default(), 9), None);
    }

    #[test]
    fn a_namespace_that_is_gone_has_no_cookie() {
        assert_eq!(netns_cookie(&mk_change()), 0);
        let own = EndpointChange { netns_path: "/proc/self/ns/net".into(), ..mk_change() };
        assert_eq!(netns_cookie(&own), Netns::cookie().expect("reads"));
        assert_eq!(netns_cookie(&EndpointChange { netns_path: "/nowhere".into(), ..mk_change() }), 0);
    }

    #[test]
    fn notes_are_taken_once() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(drain(&dir.path().join("missing")).expect("nothing is there").is_empty());
        fs::write(dir.path().join("lockfile"), "").expect("writes");
        fs::write(dir.path().join("ab.delete"), "c1:eth0").expect("writes");
        assert_eq!(drain(dir.path()).expect("drains"), ["c1:eth0"]);
        assert!(drain(dir.path()).expect("drains").is_empty());
    }
}
