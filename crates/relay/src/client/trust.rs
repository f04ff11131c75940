//! What to say of a server whose certificate is not good: TLS libraries say what is wrong, and not what to do.

use std::{error::Error, io};

/// Why a server's certificate was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadCertificate {
    /// Of a CA of one's own, as a rule.
    #[error(
        "nobody whom this machine trusts has signed the server's certificate: name the file of its CA by SSL_CERT_FILE, or \
         have the system trust it"
    )]
    Untrusted(#[source] rustls::Error),
    /// For another name, or of another time.
    #[error("the server's certificate is not good")]
    Invalid(#[source] rustls::Error),
}

impl BadCertificate {
    /// The one that an error was caused by.
    pub(super) fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            // What an I/O error carries is no source of it.
            let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let tls = match carried {
                Some(carried) => carried.downcast_ref::<rustls::Error>(),
                None => error.downcast_ref::<rustls::Error>(),
            };
            if let Some(tls @ rustls::Error::InvalidCertificate(why)) = tls {
                let is_of_nobody = matches!(why, rustls::CertificateError::UnknownIssuer);
                return Some(if is_of_nobody { Self::Untrusted } else { Self::Invalid }(tls.clone()));
            }
            cause = match carried {
                Some(carried) => Some(carried),
                None => error.source(),
            };
        }
        None
    }
}

/// The text of an error, with what to do about a certificate if that is what was wrong.
pub(super) fn explained(error: &(dyn Error + 'static)) -> String {
    match BadCertificate::behind(error) {
        Some(bad @ BadCertificate::Untrusted(_)) => bad.to_string(),
        Some(BadCertificate::Invalid(tls)) => format!("the server's certificate is not good: {tls}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_certificate_of_an_unknown_ca_is_found_however_deep_it_lies() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let below = io::Error::other(tls);
        let above = io::Error::other(io::Error::other(below));
        assert!(explained(&above).contains("SSL_CERT_FILE"), "{}", explained(&above));
    }

    #[test]
    fn one_that_has_expired_is_told_as_that() {
        let tls = io::Error::other(rustls::Error::InvalidCertificate(CertificateError::Expired));
        let said = explained(&tls);
        assert!(said.contains("Expired") && !said.contains("SSL_CERT_FILE"), "{said}");
    }

    #[test]
    fn what_is_no_matter_of_certificates_is_left_alone() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
        assert_eq!(explained(&refused), "nobody listens");
        assert!(BadCertificate::behind(&io::Error::other(rustls::Error::DecryptError)).is_none());
    }
}
