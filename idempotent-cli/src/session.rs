//! [`Session`]: the store that the command line names, and an engine on it.

use std::{io::Read as _, time::Duration};

use idempotent_runtime::{
    Idempotency, IdempotencyKey, Keyring, Policy, Scope, StoreKey,
    store::{
        AnyStore, ConnectOptions, Store as _,
        inspect::{Entry, Found, Inspectable, KeyPrefix, find},
    },
};

use crate::{
    cli::{Global, Which},
    failure::Failure,
};

/// The secret of the service, if it has one.
const SECRET: &str = "IDEMPOTENT_SECRET";
/// The keys that the service encrypts responses with: `id:64 hexadecimal digits`, the newest first, with commas between.
const KEYRING: &str = "IDEMPOTENT_KEYRING";

/// The store that the command line names.
pub(crate) struct Session {
    pub(crate) store: AnyStore,
}

impl Session {
    pub(crate) async fn open(global: &Global, migrate: bool) -> Result<Self, Failure> {
        let url = global.store.as_deref().filter(|url| !url.trim().is_empty());
        let url = url.ok_or_else(|| {
            Failure::Usage("no store is named: give `--store URL` or set IDEMPOTENT_STORE".into())
        })?;
        if url.trim_start().starts_with("memory:") {
            return Err(Failure::Usage(
                "a store in memory lives in its process and cannot be reached from here".into(),
            ));
        }
        if !migrate {
            file_exists(url)?;
        }
        let mut options = ConnectOptions::new().migrate(migrate).as_it_is(!migrate);
        for weakness in &global.accept {
            options = options.accept(*weakness);
        }
        if global.accept_unverified {
            options = options.accept_unverified();
        }
        let store = options.connect(url).await?;
        Ok(Self { store })
    }

    /// The store, as what can be listed.
    pub(crate) fn inspectable(&self) -> Result<&dyn Inspectable, Failure> {
        self.store.inspectable().ok_or_else(|| {
            Failure::Refused(format!(
                "the {} store cannot list records",
                self.store.name()
            ))
        })
    }

    /// An engine on the store, with the service's secret and keyring as the environment has them. What it stores is kept
    /// for `ttl`.
    pub(crate) fn engine(&self, ttl: Duration) -> Result<Idempotency, Failure> {
        let mut builder = Idempotency::builder()
            .store(self.store.clone())
            .policy(Policy::new().ttl(ttl));
        if let Some(secret) = variable(SECRET)? {
            builder = builder.secret(secret);
        }
        if let Some(text) = variable(KEYRING)? {
            builder = builder.encrypt(keyring(&text)?);
        }
        Ok(builder.build()?)
    }

    /// The record that the command line names.
    pub(crate) async fn record(&self, which: &Which) -> Result<Entry, Failure> {
        let id = match which.id {
            Some(id) => id,
            None => KeyPrefix::from(&self.by_what_was_sent(which)?),
        };
        self.by_prefix(id).await
    }

    /// The record with this whole ID: changes take no other.
    pub(crate) async fn by_whole_id(&self, id: KeyPrefix) -> Result<Entry, Failure> {
        if id.lowest() != id.highest() {
            return Err(Failure::Usage(format!(
                "{id} is the beginning of an ID: a change needs all 64 digits, which `idempotent show {id}` prints"
            )));
        }
        self.by_prefix(id).await
    }

    async fn by_prefix(&self, id: KeyPrefix) -> Result<Entry, Failure> {
        match find(self.inspectable()?, id).await? {
            Found::One(entry) => Ok(*entry),
            Found::None => Err(Failure::NotFound(format!(
                "no record's ID begins with {id}, or it has expired"
            ))),
            Found::Several(entries) => {
                let ids: Vec<_> = entries
                    .iter()
                    .map(|entry| crate::view::id(&entry.key))
                    .collect();
                Err(Failure::Refused(format!(
                    "the IDs of several records begin with {id}; give more digits:\n  {}",
                    ids.join("\n  ")
                )))
            }
        }
    }

    fn by_what_was_sent(&self, which: &Which) -> Result<StoreKey, Failure> {
        let (Some(endpoint), true) = (&which.endpoint, which.key_stdin) else {
            return Err(Failure::Usage(
                "no record is named: give an ID, or `--endpoint` and `--key-stdin`".into(),
            ));
        };
        let mut text = String::new();
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
        // Of the one line break that a shell adds, the key has nothing.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let key = IdempotencyKey::new(text)
            .map_err(|error| Failure::Usage(format!("the standard input is no key: {error}")))?;
        let scope = which.caller.as_ref().map(Scope::new);
        let engine = self.engine(Duration::from_secs(24 * 60 * 60))?;
        Ok(engine.store_key(endpoint, scope.as_ref(), &key))
    }
}

/// An SQLite file that is missing would be created: a mistyped path is no empty store.
fn file_exists(url: &str) -> Result<(), Failure> {
    let Some(path) = url.trim().strip_prefix("sqlite:") else {
        return Ok(());
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split('?').next().unwrap_or_default();
    if std::path::Path::new(path).exists() {
        return Ok(());
    }
    Err(Failure::Failed(
        format!("there is no file {path:?}: name the file that the service has, or create one with `migrate`").into(),
    ))
}

fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::Usage(format!("{name} is not valid UTF-8")))
        }
    }
}

fn keyring(text: &str) -> Result<Keyring, Failure> {
    let mut keyring: Option<Keyring> = None;
    for part in text.split(',') {
        let (id, key) = part.split_once(':').and_then(|(id, digits)| Some((id.trim().parse().ok()?, key(digits.trim())?)))
            // Nothing of the text: it is a secret.
            .ok_or_else(|| Failure::Usage(format!("{KEYRING} is not `id:64 hexadecimal digits`, the newest first, with commas between")))?;
        keyring = Some(match keyring {
            None => Keyring::new(id, key),
            Some(keyring) => keyring.and_old(id, key),
        });
    }
    keyring.ok_or_else(|| Failure::Usage(format!("{KEYRING} names no key")))
}

/// 64 digits of a secret, read as those of an ID are.
fn key(digits: &str) -> Option<[u8; 32]> {
    let whole: KeyPrefix = digits.parse().ok()?;
    (whole.lowest() == whole.highest()).then(|| *whole.lowest().as_bytes())
}

#[cfg(test)]
mod tests {
    use idempotent_runtime::store::{
        Acquisition, Claim, Held, Outcome, Record, Store, StoreError, StoreErrorKind, Token, Wake,
        Write,
    };

    use super::*;

    /// A store of another crate that cannot list.
    struct Mute;

    fn down<T>() -> Result<T, StoreError> {
        Err(StoreError::new("mute", StoreErrorKind::Unavailable))
    }

    impl Store for Mute {
        fn name(&self) -> &'static str {
            "mute"
        }
        async fn acquire(&self, _: &Claim) -> Result<Acquisition, StoreError> {
            down()
        }
        async fn renew(&self, _: &Held) -> Result<Write, StoreError> {
            down()
        }
        async fn complete(&self, _: &Held, _: &Outcome) -> Result<Write, StoreError> {
            down()
        }
        async fn release(&self, _: &StoreKey, _: &Token) -> Result<Write, StoreError> {
            down()
        }
        async fn abandon(&self, _: &StoreKey, _: &Token) -> Result<Write, StoreError> {
            down()
        }
        async fn get(&self, _: &StoreKey) -> Result<Option<Record>, StoreError> {
            down()
        }
        async fn purge_expired(&self, _: usize) -> Result<usize, StoreError> {
            down()
        }
        fn attach(&self, _: Wake) {}
    }

    #[test]
    fn a_store_that_does_not_list_its_records_says_so() {
        let session = Session {
            store: AnyStore::new(Mute),
        };
        match session.inspectable().err() {
            Some(refused @ Failure::Refused(_)) => {
                assert_eq!(refused.to_string(), "the mute store cannot list records");
            }
            other => panic!("{other:?} instead of a refusal"),
        }
    }

    #[test]
    fn a_keyring_is_read_and_never_repeated_in_an_error() {
        let (one, two) = ("ab".repeat(32), "cd".repeat(32));
        assert!(keyring(&format!("2:{one}, 1:{two}")).is_ok());
        for wrong in [
            String::new(),
            one.clone(),
            format!("x:{one}"),
            format!("1:{}", &one[1..]),
            format!("1:{one},"),
        ] {
            let message = keyring(&wrong)
                .expect_err("a keyring that is none")
                .to_string();
            assert!(!message.contains("abab"), "{message}");
        }
    }
}
