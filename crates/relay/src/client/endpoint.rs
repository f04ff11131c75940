//! Where a relay is, and how to get there: URL, credentials and TLS, shared by the HTTP calls and the streams.

use std::{io, sync::Arc};

use reqwest::Url;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::{
    ClientError, Credentials,
    dial::{Dial, Stream, Tcp},
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: Url,
    credentials: Credentials,
    tls: Arc<ClientConfig>,
    dialer: Arc<dyn Dial>,
}

impl Endpoint {
    pub(super) fn new(base_url: &str, credentials: Credentials) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url { url: base_url.to_owned() };
        let mut base = Url::parse(base_url).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong());
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let tls = Arc::new(tls(base.scheme() == "https")?);
        Ok(Self { base, credentials, tls, dialer: Arc::new(Tcp) })
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The same, whose streams are connected in another way.
    pub(super) fn with_dialer(mut self, dialer: Arc<dyn Dial>) -> Self {
        self.dialer = dialer;
        self
    }

    /// Connects to the relay.
    pub(super) async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        self.dialer.dial(host, self.base.port_or_known_default().unwrap_or_default()).await
    }

    pub(super) fn tls(&self) -> Arc<ClientConfig> {
        self.tls.clone()
    }

    /// The URL as it was given, for people.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The URL of a route such as `v1/agents/a/events`.
    pub(super) fn route(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", url.path(), path.trim_start_matches('/')));
        url
    }

    /// The WebSocket that carries any log (§4).
    pub(super) fn stream_url(&self) -> Url {
        let mut url = self.route("v1/stream");
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("http and ws are of the same kind");
        url
    }

    /// Whether the relay is on this machine: no proxy is asked then.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The system's root certificates where TLS is used; nothing is read from disk where it is not.
fn tls(used: bool) -> Result<ClientConfig, ClientError> {
    let failed = |source: rustls::Error| ClientError::Tls { source: source.into() };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = if used {
        builder.with_platform_verifier().map_err(failed)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_url_follows_the_base_urls_scheme_and_path() {
        let stream = |base: &str| Endpoint::new(base, Credentials::none()).unwrap().stream_url().to_string();
        assert_eq!(stream("http://127.0.0.1:4280"), "ws://127.0.0.1:4280/v1/stream");
        assert_eq!(stream("http://gastown.internal/town/?x=1"), "ws://gastown.internal/town/v1/stream");
    }

    #[test]
    fn what_is_no_url_of_a_relay_is_refused() {
        for url in ["", "gastown", "ftp://host/", "localhost:4280"] {
            let error = Endpoint::new(url, Credentials::none()).unwrap_err();
            assert!(matches!(error, ClientError::Url { .. }), "{url:?}: {error}");
        }
    }

    #[test]
    fn loopback_is_known_by_every_name() {
        for url in ["http://localhost:1", "http://127.8.9.1:1", "http://[::1]:1"] {
            assert!(Endpoint::new(url, Credentials::none()).unwrap().is_loopback(), "{url}");
        }
        assert!(!Endpoint::new("http://10.0.0.1", Credentials::none()).unwrap().is_loopback());
    }
}
