//! Certificates that the operator makes for itself.
//!
//! A key never leaves the process that made it: nothing is stored, a new leader makes a new one. The API server believes the certificate
//! itself, there is no authority above it.

use std::sync::Arc;

use jiff::civil::Date;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Days for which a certificate is good.
pub const DAYS: i64 = 365;

/// Days after which the next one takes its place.
pub const ROTATE_AFTER_DAYS: i64 = 90;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name or the dates do not fit, or there are no random numbers.
    #[error("cannot make a certificate for {name}")]
    Make {
        /// DNS name.
        name: String,
        /// Cause.
        #[source]
        source: rcgen::Error,
    },
    /// The TLS library does not take it.
    #[error("cannot use the certificate that was made")]
    Use(#[source] rustls::Error),
    /// The calendar ends.
    #[error("there is no date {DAYS} days after {today}")]
    Date {
        /// The day of the start.
        today: Date,
    },
}

/// A certificate, ready to be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// As PEM, for whoever shall believe it.
    pub pem: String,
    /// What TLS connections are accepted with.
    pub config: Arc<ServerConfig>,
}

/// Year, month and day.
fn numbers(date: Date) -> Result<(i32, u8, u8), Error> {
    let number = |field: i8| u8::try_from(field).map_err(|_| Error::Date { today: date });
    Ok((date.year().into(), number(date.month())?, number(date.day())?))
}

/// Makes a certificate for a DNS name, good from the day before `today`, so that clocks may differ.
///
/// # Errors
/// The name is none, or there is something wrong with the TLS library.
pub fn make(name: &str, today: Date) -> Result<Certificate, Error> {
    let failed = |source| Error::Make { name: name.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
    let span = |days: i64| jiff::Span::new().try_days(days).and_then(|span| today.checked_add(span));
    let (from, to) = (span(-1), span(DAYS));
    let (Ok(from), Ok(to)) = (from, to) else { return Err(Error::Date { today }) };
    let ((year, month, day), until) = (numbers(from)?, numbers(to)?);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = until;
    params.not_after = rcgen::date_time_ymd(year, month, day);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private)
        })
        .map_err(Error::Use)?;
    Ok(Certificate { pem: certificate.pem(), config: Arc::new(config) })
}
