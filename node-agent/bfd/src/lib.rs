//! Bidirectional forwarding detection (RFC 5880) over one hop (RFC 5881): asynchronous mode, without authentication and echoes.
//!
//! Two systems send each other small packets many times in a second. Whoever misses several in a row knows that the way to the other
//! one is gone, long before the hold time of a BGP session is over.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | the control packet (pure) |
//! | [`session`] | one session as a function of time, packets and random numbers (pure) |
//! | [`sockets`] | UDP sockets, received TTLs |
//! | [`engine`] | sessions by their sockets and neighbours |
//! | [`thread`] | the thread that they live on, and the handle to it |
//!
//! # A thread of its own
//! Three packets at 100 ms are lost when nobody reads or writes for 300 ms. [`Bfd::start`] therefore has a thread for all sessions,
//! with a runtime of its own: however long its owner takes for thousands of routes, packets come and go. It asks the kernel for
//! precedence (a low nice value, and short turns), which the kernel may refuse. A thread that got no processor for long reads what
//! came in the meantime before it looks at its clock, so that its own lateness is nobody's fault. What that cannot mend is a node on
//! which the thread itself waits for longer than the *neighbour's* detection time.

pub mod engine;
pub mod packet;
pub mod session;
pub mod sockets;
pub mod thread;

pub use engine::{Change, Key};
pub use packet::{Diagnostic, Packet, State};
pub use session::{Parameters, Session};
pub use thread::Bfd;
