//! Stores that connect to their servers over TLS: a trusted certificate is accepted, an untrusted one is refused with
//! an error that names the certificate.
//!
//! The servers' certificate is signed by an authority of the test. `SSL_CERT_FILE` makes a process trust it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use self::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;

/// A certificate authority, and the certificate of a server at 127.0.0.1 that it signed.
struct Certificates(Folder);

impl Certificates {
    fn new() -> Self {
        let folder = Folder::new("certificates");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
            .distinguished_name
            .push(DnType::CommonName, "The authority of a test");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = server.signed_by(&key, &authority).expect("a certificate");
        for (name, text) in [
            ("authority.pem", authority.pem()),
            ("server.pem", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

/// Claims a key on the store of this URL, completes it and reads it back, in a process that trusts this file.
fn lap(url: &str, trusted: Option<PathBuf>) -> Output {
    let mut lap = Command::new(env!("CARGO_BIN_EXE_store-lap"));
    lap.arg(url)
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR");
    if let Some(file) = trusted {
        lap.env("SSL_CERT_FILE", file);
    }
    lap.output().expect("a process")
}

/// Asserts that the store works for a process that trusts the server's certificate, and that one that does not gets an
/// error that names the certificate.
fn assert_works_only_with_trust(url: &str, certificates: &Certificates) {
    let untrusting = lap(url, None);
    let stderr = String::from_utf8_lossy(&untrusting.stderr).into_owned();
    assert!(
        !untrusting.status.success(),
        "{url} accepted an untrusted certificate"
    );
    assert!(
        stderr.contains("certificate") || stderr.contains("UnknownIssuer"),
        "{stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");

    let trusting = lap(url, Some(certificates.file("authority.pem")));
    let stderr = String::from_utf8_lossy(&trusting.stderr);
    assert!(trusting.status.success(), "{stderr}");
}

/// The settings with which a Redis, a node of a Cluster or a sentinel speaks TLS on this port and to its peers.
fn redis_settings(certificates: &Certificates, port: u16) -> [(&'static str, String); 7] {
    [
        ("tls-port", port.to_string()),
        ("tls-ca-cert-file", certificates.text("authority.pem")),
        ("tls-cert-file", certificates.text("server.pem")),
        ("tls-key-file", certificates.text("server.key")),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
        ("appendonly", "yes".to_owned()),
    ]
}

/// A Redis that speaks TLS on this port, with these settings in addition.
fn redis(certificates: &Certificates, port: u16, more: &[&str]) -> Option<Redis> {
    let settings = redis_settings(certificates, port);
    let names = settings
        .iter()
        .map(|(name, value)| (format!("--{name}"), value));
    let words: Vec<_> = names
        .flat_map(|(name, value)| [name, value.clone()])
        .collect();
    let words = words.iter().map(String::as_str);
    Redis::with(&words.chain(more.iter().copied()).collect::<Vec<_>>())
}

#[test]
fn redis_over_tls() {
    let (certificates, port) = (Certificates::new(), servers::free_port());
    let Some(_redis) = redis(&certificates, port, &[]) else {
        return;
    };
    assert_works_only_with_trust(&format!("rediss://127.0.0.1:{port}"), &certificates);
}

/// Both the sentinel and the primary that it names speak TLS only.
#[test]
fn redis_behind_a_sentinel_over_tls() {
    let certificates = Certificates::new();
    let (port, at) = (servers::free_port(), servers::free_port());
    let Some(_redis) = redis(&certificates, port, &[]) else {
        return;
    };
    let folder = Folder::new("sentinel");
    let file = folder.path().join("sentinel.conf");
    let mut text = format!(
        "port 0\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds main 5000\n"
    );
    let settings = redis_settings(&certificates, at);
    let tls = settings.iter().filter(|(name, _)| name.starts_with("tls"));
    text.extend(tls.map(|(name, value)| format!("{name} {value}\n")));
    fs::write(&file, text).expect("a settings file");
    let program = servers::server("redis-server").expect("it was installed a moment ago");
    let arguments = [file.as_os_str(), "--sentinel".as_ref()];
    let _sentinel = servers::Process::start(&program, arguments, folder.path());
    servers::until("the sentinel", || {
        std::net::TcpStream::connect(("127.0.0.1", at)).ok()
    });
    assert_works_only_with_trust(
        &format!("rediss+sentinel://127.0.0.1:{at}/main"),
        &certificates,
    );
}

/// The record is on the second node, which the store learns of from the first one.
#[test]
fn a_redis_cluster_over_tls() {
    let certificates = Certificates::new();
    let mut nodes = Vec::new();
    // The record's slot is 8891.
    for slots in [("0", "8191"), ("8192", "16383")] {
        let (port, bus) = (servers::free_port(), servers::free_port().to_string());
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--tls-cluster",
            "yes",
        ];
        let Some(node) = redis(&certificates, port, &settings) else {
            return;
        };
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        nodes.push((node, port, bus));
    }
    let [(first, at, _), (second, port, bus)] = &nodes[..] else {
        unreachable!("two nodes")
    };
    first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), bus]);
    servers::until("the Cluster", || {
        let ready = |node: &Redis| {
            let info = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        };
        (ready(first) && ready(second)).then_some(())
    });
    assert_works_only_with_trust(&format!("rediss+cluster://127.0.0.1:{at}"), &certificates);
    let records = [first, second].map(|node| node.ask(&["DBSIZE"]));
    assert_eq!(records, [":0\r\n", ":1\r\n"]);
}

#[test]
fn postgres_over_tls() {
    let certificates = Certificates::new();
    let key = certificates.file("server.key");
    servers::postgres::keep_secret(&key);
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificates.text("server.pem")),
        format!("ssl_key_file={}", key.display()),
    ];
    let Some(postgres) = Postgres::with(&settings.each_ref().map(String::as_str)) else {
        return;
    };
    let port = postgres.port();
    let url = format!("postgres://test@127.0.0.1:{port}/postgres?sslmode=verify-full");
    assert_works_only_with_trust(&url, &certificates);
}

#[test]
fn mariadb_over_tls() {
    let certificates = Certificates::new();
    let settings = [
        format!("--ssl-cert={}", certificates.text("server.pem")),
        format!("--ssl-key={}", certificates.text("server.key")),
        "--require-secure-transport=on".to_owned(),
    ];
    let Some(mariadb) = MariaDb::with(&settings.each_ref().map(String::as_str)) else {
        return;
    };
    let port = mariadb.port();
    let url = format!("mysql://root@127.0.0.1:{port}/mysql?ssl-mode=verify_identity");
    assert_works_only_with_trust(&url, &certificates);
}
