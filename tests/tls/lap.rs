//! Acquires a new key on the store of a URL, completes it and reads it back. A process of its own, because which
//! certificates a process trusts is decided when it starts.

use std::{error::Error, process::ExitCode, time::Duration};

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{self, Acquisition, Claim, Outcome, Store, Token, Write, conformance::response},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let url = std::env::args().nth(1).expect("the URL of a store");
    match lap(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                eprintln!("caused by: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn lap(url: &str) -> Result<(), Box<dyn Error>> {
    const MINUTE: Duration = Duration::from_secs(60);
    let store = store::migrate(url).await?;
    let key = StoreKey::from_bytes([7; 32]);
    let fingerprint = Fingerprint::from_bytes([7; 32]);
    let claim = Claim::new(key, fingerprint, Token::random(), MINUTE, MINUTE);
    let first = store.acquire(&claim).await?;
    assert_eq!(first, Acquisition::Acquired { attempt: 1 });
    let outcome = Outcome::Response(response(201, &[], b"over TLS"));
    let written = store.complete(&claim.held(), &outcome).await?;
    assert_eq!(written, Write::Applied);
    let again = store.acquire(&claim).await?;
    assert_eq!(again, Acquisition::Completed(outcome));
    Ok(())
}
