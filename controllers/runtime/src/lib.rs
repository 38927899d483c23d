//! The shell that every controller needs: watch, lead, write, serve. No decision about networking is made here.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | connections to the API server that are warm when a write comes |
//! | [`watch`] | list and watch of one kind, without keeping the objects |
//! | [`lease`] | leader election over `coordination.k8s.io/v1` Lease |
//! | [`crds`] | installs and upgrades CustomResourceDefinitions |
//! | [`writer`] | concurrent writes, ordered for each object, refused when deposed |
//! | [`serve`], [`metrics`] | health and Prometheus endpoints |

pub mod backoff;
pub mod client;
pub mod crds;
pub mod lease;
pub mod metrics;
pub mod object;
pub mod serve;
pub mod watch;
pub mod writer;

/// The innermost cause of an error: what the API server or the kernel said, without every layer repeating it.
pub(crate) fn root_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}
