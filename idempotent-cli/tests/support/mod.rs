//! Stores with records for the tests of the tool, and the tool itself.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    time::Duration,
};

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{
        Acquisition, AnyStore, Claim, EndpointLabel, Outcome, Store as _, Token, Write,
        conformance::response, migrate,
    },
};

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// A body, a header and a key that no output may contain unless it is revealed.
pub(crate) const SECRET: &str = "canary-5f1c";
const HOUR: Duration = Duration::from_secs(3600);

/// A store of some kind, empty at first, and its server.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) store: AnyStore,
    _server: Box<dyn std::any::Any>,
}

/// Runs the test on a store of each kind that can list its records and is installed here.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a closure that the caller writes in place"
)]
pub(crate) fn on_each_store(test: impl AsyncFn(&Target)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut stores = 1;
    runtime.block_on(async {
        test(&sqlite().await).await;
        if let Some(server) = Postgres::start() {
            let url = server.url();
            test(&Target::new(url, server).await).await;
            stores += 1;
        }
        if let Some(server) = MariaDb::flushing() {
            let url = server.url();
            test(&Target::new(url, server).await).await;
            stores += 1;
        }
        if let Some(server) = Redis::flushing() {
            let url = server.url();
            test(&Target::new(url, server).await).await;
            stores += 1;
        }
    });
    eprintln!("tested on {stores} stores");
}

/// A store in a file.
pub(crate) async fn sqlite() -> Target {
    let folder = Folder::new("cli");
    let url = format!("sqlite://{}", folder.path().join("records.db").display());
    Target::new(url, folder).await
}

impl Target {
    async fn new(url: String, server: impl std::any::Any) -> Self {
        Self {
            store: migrate(&url).await.expect("a store"),
            url,
            _server: Box::new(server),
        }
    }

    /// A record whose lease is live.
    pub(crate) async fn in_flight(&self, key: StoreKey, endpoint: &str) -> Claim {
        let mut claim = Claim::new(
            key,
            Fingerprint::from_bytes([7; 32]),
            Token::random(),
            HOUR,
            HOUR * 24,
        );
        claim.endpoint = EndpointLabel::new(endpoint);
        let acquired = self.store.acquire(&claim).await.unwrap();
        assert!(
            matches!(acquired, Acquisition::Acquired { .. }),
            "{acquired:?}"
        );
        claim
    }

    /// A record whose outcome is unknown.
    pub(crate) async fn unknown(&self, key: StoreKey, endpoint: &str) {
        let claim = self.in_flight(key, endpoint).await;
        let write = self.store.abandon(&key, &claim.token).await.unwrap();
        assert_eq!(write, Write::Applied);
    }

    /// A record with a response that contains the secret.
    pub(crate) async fn completed(&self, key: StoreKey, endpoint: &str) {
        let claim = self.in_flight(key, endpoint).await;
        let body = format!("{{\"card\":\"{SECRET}\"}}");
        let outcome = Outcome::Response(response(201, &[("x-secret", SECRET)], body.as_bytes()));
        let write = self.store.complete(&claim.held(), &outcome).await.unwrap();
        assert_eq!(write, Write::Applied);
    }

    /// Runs the tool on this store.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs the tool with this standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idempotent"));
        command
            .env("IDEMPOTENT_STORE", &self.url)
            .env("RUST_LOG", "trace")
            .env("USER", "ann");
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The tool may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran(child.wait_with_output().unwrap())
    }
}

/// How the tool ended.
pub(crate) struct Ran(Output);

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// The standard error, without what the log says.
    pub(crate) fn error(&self) -> String {
        let text = String::from_utf8(self.0.stderr.clone()).unwrap();
        let said = |line: &&str| {
            !["TRACE", "DEBUG", " INFO", " WARN"]
                .iter()
                .any(|level| line.trim_start().starts_with(level.trim()))
        };
        text.lines().filter(said).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn everything(&self) -> String {
        self.out() + &String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// The JSON that was printed.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        self.done();
        serde_json::from_str(&self.out())
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.out()))
    }

    /// Asserts success.
    #[track_caller]
    pub(crate) fn done(&self) -> &Self {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Self {
        assert_eq!(
            self.0.status.code(),
            Some(code),
            "{}\n{}",
            self.out(),
            self.everything()
        );
        self
    }
}
