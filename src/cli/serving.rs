//! What the commands that serve have in common: a socket, an announcement, signals.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpListener;

use super::{
    Exit,
    exit::Refusal,
    progress::{self, say},
    server::URL_FILE,
    signals::Signals,
};

/// Where to reach a server that runs: one JSON object with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Announcement {
    /// Its base URL.
    pub(super) url: String,
    /// A link that lets one browser in, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<String>,
    /// The town.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) town: Option<String>,
    /// The file of the operator's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// The process.
    pub(super) pid: u32,
}

impl Announcement {
    /// As the one line of `--json`.
    pub(super) fn json_line(&self) -> anyhow::Result<String> {
        Ok(format!("{}\n", serde_json::to_string(self).context("an announcement is JSON")?))
    }
}

/// A listener on this address; says what to do if it is taken.
pub(super) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let message = format!(
                "something listens on {address} already: is a server running? Another port: --listen"
            );
            Err(Refusal::because(Exit::Conflict, message))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

/// A listener on this address, or on a port of the system's choice if it is taken.
pub(super) async fn bind_or_any_port(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind("127.0.0.1:0").await,
        bound => bound.with_context(|| format!("cannot listen on {address}")),
    }
}

/// The URL of a listener, as a browser on this machine reaches it.
pub(super) fn url_of(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://127.0.0.1:{}", address.port());
    }
    format!("http://{address}")
}

/// The file by which the other commands find the server of a data directory, as long as it runs.
pub(super) struct UrlFile(PathBuf);

impl UrlFile {
    pub(super) fn write(data_dir: &Path, url: &str) -> anyhow::Result<Self> {
        let path = data_dir.join(URL_FILE);
        std::fs::write(&path, format!("{url}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for UrlFile {
    fn drop(&mut self) {
        // One that stays points to a server that does not answer; that is what the commands say then.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Ends in an orderly way; another signal does not wait for that.
pub(super) async fn wind_down<T>(
    what: &str,
    end: impl Future<Output = anyhow::Result<T>>,
    signals: &mut Signals,
) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = progress::shown(what, end) => ended.map(|_| Exit::Done),
        () = signals.next() => {
            say("ended at once\n");
            Ok(Exit::Interrupted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::exit::exit_of, *};

    #[tokio::test]
    async fn a_port_that_is_taken_is_refused_with_what_to_do_and_the_demo_takes_another_one() {
        let taken = bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address).await.unwrap_err();
        assert_eq!(exit_of(&error), Exit::Conflict);
        assert!(error.to_string().contains("--listen"), "{error}");
        let other = bind_or_any_port(&address).await.unwrap();
        assert_ne!(other.local_addr().unwrap(), taken.local_addr().unwrap());
    }

    #[test]
    fn a_server_on_every_address_is_named_by_one_that_a_browser_can_open() {
        assert_eq!(url_of("0.0.0.0:4280".parse().unwrap()), "http://127.0.0.1:4280");
        assert_eq!(url_of("[::1]:4280".parse().unwrap()), "http://[::1]:4280");
    }

    #[test]
    fn the_url_is_in_the_data_directory_as_long_as_the_server_runs() {
        let dir = tempfile::tempdir().unwrap();
        let file = UrlFile::write(dir.path(), "http://127.0.0.1:1").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(URL_FILE)).unwrap(), "http://127.0.0.1:1\n");
        drop(file);
        assert!(!dir.path().join(URL_FILE).exists());
    }

    #[test]
    fn the_announcement_is_one_line_without_what_is_not_known() {
        let announcement = Announcement {
            url: "http://127.0.0.1:1".to_owned(),
            login: None,
            town: Some("main".to_owned()),
            token_file: None,
            pid: 7,
        };
        assert_eq!(
            announcement.json_line().unwrap(),
            "{\"url\":\"http://127.0.0.1:1\",\"town\":\"main\",\"pid\":7}\n"
        );
    }
}
