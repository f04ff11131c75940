//! A relay behind TLS, as it is reached across networks: everything goes there by `https` and `wss`, and bits that are
//! flipped on the way break a connection and change nothing.

mod terminator;

use std::{process::Stdio, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use self::terminator::{Ca, Dialer, Terminator};
use crate::{
    split_mode::{Split, done},
    support::server::{GASTOWN, PATIENCE},
    under_load::{
        alone,
        fleet::Fleet,
        process::RelayProcess,
        proxy::{Proxy, Weather},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_town_whose_relay_is_behind_tls_is_watched_and_steered_with_a_ca_of_its_own() {
    let ca = Ca::new();
    let trusting = [("SSL_CERT_FILE".to_owned(), ca.file().display().to_string())];
    let mut tls = None;
    let town = Split::start_with(&trusting, async |relay| {
        let relay = relay.strip_prefix("http://").expect("a plain URL");
        tls.insert(Terminator::before(relay, &ca).await).url()
    })
    .await;
    town.start_agent().await;
    let mut watch = town.watch(&["--json"]);
    done(town.gastown(&["prompt", "toast", "work"]).await);
    watch.until("permission.asked").await;
    done(town.gastown(&["permit", "toast", "once"]).await);
    watch.until("session.turn.close").await;
    // The worker, its wrapper and the command line came by TLS: there is no other way to that relay that they know.
    let tls = tls.expect("it was started");
    assert!(tls.greeted() >= 3 && tls.broken() == 0, "{} greeted, {} broken", tls.greeted(), tls.broken());
    town.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_trusts_is_refused_with_a_word_on_what_to_do() {
    let ca = Ca::new();
    let tls = Terminator::before("127.0.0.1:1", &ca).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let asked = Command::new(GASTOWN)
        .args(["agents", "--url", &tls.url(), "--data-dir"])
        .arg(folder.path())
        .env_remove("SSL_CERT_FILE")
        .output();
    let asked = timeout(PATIENCE, asked).await.expect("it ends").expect("the binary starts");
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && said.contains("SSL_CERT_FILE"), "{said}");

    // A wrapper goes on trying, since the certificate may be replaced; its log says what is wrong.
    let scenario = folder.path().join("scenario.json");
    std::fs::write(&scenario, json!({ "title": "t", "turns": [] }).to_string()).expect("it is written");
    let mut wrapper = Command::new(GASTOWN)
        .args(["wrapper", "--town", "main", "--agent", "toast", "--generation", "1", "--runtime", "scripted"])
        .args(["--relay", &tls.url(), "--scenario"])
        .arg(&scenario)
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .arg("--dir")
        .arg(folder.path())
        .env("GASTOWN_WRAPPER_TOKEN", "x")
        .env_remove("SSL_CERT_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(wrapper.stderr.take().expect("it is piped")).lines();
    let told = async {
        while let Some(line) = lines.next_line().await.expect("its log can be read") {
            if line.contains("SSL_CERT_FILE") {
                return;
            }
        }
        panic!("the wrapper ended without a word on the certificate");
    };
    timeout(PATIENCE, told).await.expect("it says so");
    wrapper.kill().await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p5_p9_bits_that_are_flipped_below_tls_break_connections_and_change_no_event() {
    let _alone = alone().await;
    let data = tempfile::tempdir().expect("a temporary folder");
    let relay = RelayProcess::start(data.path()).await;
    let ca = Ca::new();
    let tls = Terminator::before(&relay.address, &ca).await;
    let (links, streams) = (Proxy::to(tls.address()).await, Proxy::to(tls.address()).await);
    let dialer = Arc::new(Dialer::trusting(&ca));
    let mut fleet = Fleet::new(rand::random());
    fleet.link_over(dialer.clone());
    fleet.produce(&relay, &links.address, 3, 10);
    fleet.watch(&relay.client_at(&streams.address).with_dialer(dialer), 6);
    fleet.acks(30).await;
    for proxy in [&links, &streams] {
        proxy.set(Weather::Flipped { one_in: 16 });
    }
    let damaged = async {
        while tls.broken() < 20 {
            fleet.acks_or_spooled(5).await;
            tls.breaks().await;
        }
    };
    timeout(PATIENCE + Duration::from_secs(30), damaged).await.expect("connections break, and come again");
    for proxy in [&links, &streams] {
        proxy.set(Weather::Cut);
        proxy.set(Weather::Fair);
    }
    fleet.acks(30).await;
    fleet.assert_history_holds(&relay).await;
}
