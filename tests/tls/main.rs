//! Stores whose servers are spoken to over TLS: a certificate that is trusted is enough, one that is not is
//! refused with a message that says so.
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

/// An authority, and the certificate of a server at 127.0.0.1 that it signed.
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

/// Claims a key on the store of this URL, completes it and reads it back, in a process that trusts the file.
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

/// The store works for who trusts the server's certificate, and who does not is told why it does not.
fn only_with_trust(url: &str, certificates: &Certificates) {
    let stranger = lap(url, None);
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success(), "{url} took any certificate");
    assert!(
        said.contains("certificate") || said.contains("UnknownIssuer"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");

    let friend = lap(url, Some(certificates.file("authority.pem")));
    let said = String::from_utf8_lossy(&friend.stderr);
    assert!(friend.status.success(), "{said}");
}

#[test]
fn redis_over_tls() {
    let certificates = Certificates::new();
    let port = servers::free_port();
    let (authority, certificate, key) = (
        certificates.text("authority.pem"),
        certificates.text("server.pem"),
        certificates.text("server.key"),
    );
    let settings = [
        "--appendonly",
        "yes",
        "--tls-port",
        &port.to_string(),
        "--tls-ca-cert-file",
        &authority,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    let Some(_redis) = Redis::with(&settings) else {
        return;
    };
    only_with_trust(&format!("rediss://127.0.0.1:{port}"), &certificates);
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
    only_with_trust(&url, &certificates);
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
    only_with_trust(&url, &certificates);
}
