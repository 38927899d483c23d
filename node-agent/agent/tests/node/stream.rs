//! Datagrams between pods.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cilium_drivers::netns::Netns;

/// Sends everything back that comes to a port, until dropped.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(netns: &Netns, address: Ipv4Addr, port: u16) -> Self {
        let socket = bind(netns, address, port);
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("is a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..length], from).expect("the way back is known");
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("echo ends");
        }
    }
}

pub(crate) fn bind(netns: &Netns, address: Ipv4Addr, port: u16) -> UdpSocket {
    netns.run(|| UdpSocket::bind((address, port))).expect("enters").expect("binds")
}

/// Whether an answer to one datagram comes within a moment.
pub(crate) fn answers(netns: &Netns, from: Ipv4Addr, to: (Ipv4Addr, u16)) -> bool {
    let socket = bind(netns, from, 0);
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("is a socket");
    let sent = socket.send_to(b"are you there?", to);
    sent.is_ok() && socket.recv_from(&mut [0; 64]).is_ok()
}

/// A datagram each millisecond to something that sends them back.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, BTreeSet<u32>)>,
}

impl Stream {
    pub(crate) fn start(netns: &Netns, from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = bind(netns, from, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || run(&socket, to, &stopped));
        Self { stop, thread }
    }

    /// Numbers of datagrams that were sent and not answered.
    pub(crate) fn lost(self) -> (u32, Vec<u32>) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, answered) = self.thread.join().expect("the stream ends");
        (sent, (0..sent).filter(|number| !answered.contains(number)).collect())
    }
}

fn run(socket: &UdpSocket, to: SocketAddr, stopped: &AtomicBool) -> (u32, BTreeSet<u32>) {
    let mut answered = BTreeSet::new();
    let mut sent = 0u32;
    let begin = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        socket.send_to(&sent.to_be_bytes(), to).expect("datagrams can be sent");
        sent += 1;
        let next = begin + Duration::from_millis(u64::from(sent));
        let pause = next.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        collect(socket, pause, &mut answered, None);
    }
    // Answers to the last ones are still on their way.
    collect(socket, Duration::from_secs(5), &mut answered, Some(sent));
    (sent, answered)
}

fn collect(socket: &UdpSocket, within: Duration, answered: &mut BTreeSet<u32>, enough: Option<u32>) {
    let deadline = Instant::now() + within;
    let mut buffer = [0; 4];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if enough.is_some_and(|enough| answered.len() >= enough as usize) {
            return;
        }
        socket.set_read_timeout(Some(left)).expect("is a socket");
        if socket.recv_from(&mut buffer).is_ok() {
            answered.insert(u32::from_be_bytes(buffer));
        }
    }
}
