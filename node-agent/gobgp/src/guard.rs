//! What is answered to methods that are not served.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

/// Names of the two services.
const SERVICES: [&str; 2] = ["api.GoBgpService", "apipb.GobgpApi"];

/// Methods that are served.
const SERVED: [&str; 8] = [
    "GetBgp",
    "WatchEvent",
    "ListPeer",
    "ListPath",
    "GetTable",
    "ListPolicy",
    "ListDefinedSet",
    "ListPolicyAssignment",
];

/// Lets through what is served, and says of the rest why it is not.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    match refusal(request.uri().path()) {
        Some(status) => status.into_http(),
        None => next.run(request).await,
    }
}

/// Why the method at `path` (`/service/method`) is refused; `None` where it is served or of another service.
fn refusal(path: &str) -> Option<Status> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    if !SERVICES.contains(&service) || SERVED.contains(&method) {
        return None;
    }
    if let Some(kind) = method.strip_prefix("List") {
        return Some(Status::unimplemented(format!("this speaker has nothing to list of the kind {kind}")));
    }
    Some(Status::permission_denied("this speaker is told by CiliumBGPClusterConfig what to be"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn code(path: &str) -> Option<Code> {
        refusal(path).map(|status| status.code())
    }

    #[test]
    fn what_reads_is_served_or_unknown_and_what_writes_is_denied() {
        assert_eq!(code("/api.GoBgpService/ListPeer"), None);
        assert_eq!(code("/apipb.GobgpApi/GetBgp"), None);
        assert_eq!(code("/grpc.health.v1.Health/Check"), None);
        assert_eq!(code("/apipb.GobgpApi/ListVrf"), Some(Code::Unimplemented));
        for method in ["AddPath", "AddPathStream", "DeletePeer", "StopBgp", "SetLogLevel", "EnableMrt"] {
            assert_eq!(
                code(&format!("/api.GoBgpService/{method}")),
                Some(Code::PermissionDenied),
                "{method}"
            );
        }
    }
}
