//! TLS in front of a server that has none, as a reverse proxy is; and what trusts it.

use std::{io, path::Path, sync::Arc};

use async_trait::async_trait;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// A certificate authority that nobody knows, with its certificate in a file.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: TempDir,
}

/// Speaks TLS on a port of its own, and passes on what it says to a server.
pub(crate) struct Terminator {
    address: String,
    counts: watch::Receiver<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    greeted: u64,
    broken: u64,
}

/// Connects over TLS, trusting one authority.
pub(crate) struct Dialer(TlsConnector);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("it is written");
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), folder }
    }

    /// What `SSL_CERT_FILE` may name.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "ca.pem")
    }

    /// A server on this machine, certified.
    fn server(&self) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("these are names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key in a form that is known");
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's")
    }
}

impl Terminator {
    pub(crate) async fn before(server: &str, ca: &Ca) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (count, counts) = watch::channel(Counts::default());
        let acceptor = TlsAcceptor::from(Arc::new(ca.server()));
        let task = tokio::spawn(terminate(listener, acceptor, server.to_owned(), count));
        Self { address, counts, task }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Connections whose handshake was completed.
    pub(crate) fn greeted(&self) -> u64 {
        self.counts.borrow().greeted
    }

    /// Connections on which bytes came that were not what was sent.
    pub(crate) fn broken(&self) -> u64 {
        self.counts.borrow().broken
    }

    /// Waits for the next that breaks.
    pub(crate) async fn breaks(&self) {
        let mut counts = self.counts.clone();
        let broken = counts.borrow_and_update().broken;
        counts.wait_for(|counts| counts.broken > broken).await.expect("it runs");
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn terminate(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    server: String,
    counts: watch::Sender<Counts>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (acceptor, server, counts) = (acceptor.clone(), server.clone(), counts.clone());
        connections.spawn(async move {
            let conversation = async {
                let mut near = acceptor.accept(near).await?;
                counts.send_modify(|counts| counts.greeted += 1);
                let mut far = TcpStream::connect(server).await?;
                copy_bidirectional(&mut near, &mut far).await
            };
            if conversation.await.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
                counts.send_modify(|counts| counts.broken += 1);
            }
        });
    }
}

impl Dialer {
    pub(crate) fn trusting(ca: &Ca) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate.clone()).expect("it is a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(TlsConnector::from(Arc::new(config)))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.0.connect(name, stream).await
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

#[async_trait]
impl relay::client::Dial for Dialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn relay::client::Stream>> {
        Ok(Box::new(self.connect(host, port).await?))
    }
}

#[async_trait]
impl wrapper::link::Dial for Dialer {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn wrapper::link::Io>> {
        Ok(Box::new(self.connect(host, port).await?))
    }
}
