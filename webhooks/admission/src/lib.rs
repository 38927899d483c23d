//! The validating webhook for all kinds of ours: what can never be valid is refused, what has no effect is warned of.
//!
//! | module | what |
//! |---|---|
//! | [`review`] | pure: an AdmissionReview → its answer, by the parse code that the operator plans with |
//! | [`certificate`] | certificates that the operator makes for itself |
//! | [`serve`] | HTTPS, and questions to the planner |
//! | [`register`] | tells the API server where the webhook is and whom to believe |
//!
//! `docs/design/admission.md` says why it is built so.

pub mod certificate;
pub mod register;
pub mod review;
pub mod serve;

/// Name of the Service, of the ValidatingWebhookConfiguration and, with a family behind it, of the EndpointSlice.
pub const NAME: &str = "cilium-webhook";

/// Name of the webhook in its configuration; `kubectl` shows it to users.
pub const WEBHOOK: &str = "validate.cilium.io";

/// Path under which reviews are taken.
pub const PATH: &str = "/validate";
