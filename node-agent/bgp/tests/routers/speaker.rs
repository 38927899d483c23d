//! The speaker's program in the node's namespace.

use anyhow::{Context as _, Result, ensure};
use cilium_rest::Client;
use cilium_rest::bgp::{PeerState, Peers, RouteChanges, RouteTable, RouteView, SessionState};
use ipnet::IpNet;

use crate::lab::{Lab, PATIENCE, Process, until};
use crate::session::Session;

pub(crate) struct Speaker<'lab> {
    lab: &'lab Lab,
    process: Process,
    client: Client,
}

fn spawn(lab: &Lab) -> Result<Process> {
    // Not beside the other one, where GoBGP's daemon has its own.
    let (state, socket, gobgp) =
        (lab.path("state"), lab.path("speaker.sock"), lab.path("speaker-gobgp.sock"));
    let options = [("--state-dir", &state), ("--socket", &socket), ("--gobgp-socket", &gobgp)];
    let args = options.into_iter().flat_map(|(name, path)| [name.as_ref(), path.as_os_str()]);
    lab.spawn(&lab.node, "speaker", env!("CARGO_BIN_EXE_cilium-bgp"), args, &[("RUST_LOG", "debug")])
}

impl<'lab> Speaker<'lab> {
    /// Starts it, and says what it shall be.
    pub(crate) fn start(lab: &'lab Lab, session: &Session) -> Result<Self> {
        let process = spawn(lab)?;
        let client = Client::new(&lab.path("speaker.sock"), Some(PATIENCE));
        let mut speaker = Self { lab, process, client };
        speaker.wait_for_socket()?;
        speaker.configure(session)?;
        speaker.client.replace("/v1/routes", &session.routes()).context("the speaker takes no prefixes")?;
        Ok(speaker)
    }

    fn wait_for_socket(&mut self) -> Result<()> {
        let Self { client, process, .. } = self;
        until("the speaker's socket", || {
            process.check()?;
            Ok(client.get::<Peers>("/v1/peers").ok())
        })
        .map(drop)
    }

    pub(crate) fn configure(&self, session: &Session) -> Result<()> {
        self.client.replace("/v1/config", &session.config()).context("the speaker takes no configuration")
    }

    pub(crate) fn change(&self, changes: &RouteChanges) -> Result<()> {
        self.client.patch("/v1/routes", changes).context("the speaker takes no changes")
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Ends it as an upgrade would.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.process.terminate()
    }

    /// Starts it again; it knows by itself what it shall be.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.lab)?;
        self.wait_for_socket()
    }

    /// The one neighbour.
    pub(crate) fn peer(&self) -> Result<PeerState> {
        let mut peers: Peers = self.client.get("/v1/peers")?;
        ensure!(peers.peers.len() == 1, "not one neighbour: {peers:?}");
        Ok(peers.peers.remove(0))
    }

    /// Waits until the neighbour is as it should be.
    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&PeerState) -> bool) -> Result<PeerState> {
        let mut last = None;
        let result = until(what, || {
            let peer = self.peer()?;
            let fits = fits(&peer);
            Ok(fits.then(|| peer.clone()).or_else(|| {
                last = Some(peer);
                None
            }))
        });
        result.with_context(|| format!("the speaker says {last:?}"))
    }

    pub(crate) fn wait_established(&self) -> Result<PeerState> {
        self.wait("a session", |peer| peer.state == SessionState::Established)
    }

    /// Waits for a session, and for one prefix of each family from the router.
    pub(crate) fn wait_received(&self) -> Result<PeerState> {
        self.wait("a session with a prefix of the router in each family", |peer| {
            peer.state == SessionState::Established && peer.families.iter().all(|it| it.received == 1)
        })
    }

    /// A prefix that the router made known.
    pub(crate) fn received(&self, session: &Session, prefix: IpNet) -> Result<Option<RouteView>> {
        let routes: Vec<RouteView> = self.client.get("/v1/routes")?;
        let peer = session.router();
        Ok(routes
            .into_iter()
            .find(|it| it.table == RouteTable::Received && it.prefix == prefix && it.peer == Some(peer)))
    }
}
