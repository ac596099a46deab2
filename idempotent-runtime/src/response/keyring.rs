//! The keys that stored responses are encrypted with.

use std::fmt;

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::form::{Binding, ENCRYPTED, ENCRYPTED_HEAD, Flaw};

/// Begins the associated data, so that no other use of the key can have the same.
const DOMAIN: &[u8] = b"idempotent stored response v1";

/// The keys for encryption at rest: one that encrypts, and older ones that still decrypt.
///
/// To rotate while several processes serve, and some are older than others during a deploy, take three steps, each
/// finished everywhere before the next:
///
/// 1. Every process gets the new key as one that decrypts: `Keyring::new(1, old_key).and_old(2, new_key)`. Without
///    this step a process that does not know the new key yet answers 500 (`record_unreadable`) to what another one
///    stored with it.
/// 2. Every process encrypts with the new key and still decrypts with the old one, as below.
/// 3. When the longest ttl has passed since, no record needs the old key: leave it out.
///
/// Encryption is switched on in the same way: first everywhere with a keyring that
/// [accepts plain responses](Self::accept_plain), and without it when the longest ttl has passed. Processes that
/// have no keyring yet cannot replay encrypted responses, and answer 500 until they have one.
///
/// ```
/// use idempotent_runtime::Keyring;
///
/// # let (new_key, old_key) = ([1; 32], [2; 32]);
/// let keyring = Keyring::new(2, new_key).and_old(1, old_key);
/// ```
#[derive(Clone)]
pub struct Keyring {
    /// The first one encrypts.
    keys: Vec<(u32, XChaCha20Poly1305)>,
    accept_plain: bool,
}

impl Keyring {
    /// Encrypts with this key, XChaCha20-Poly1305 with 32 random bytes. The id is stored with each response.
    #[must_use]
    pub fn new(id: u32, key: [u8; 32]) -> Self {
        Self {
            keys: vec![(id, XChaCha20Poly1305::new(&key.into()))],
            accept_plain: false,
        }
    }

    /// Still decrypts what was encrypted with this key.
    #[must_use]
    pub fn and_old(mut self, id: u32, key: [u8; 32]) -> Self {
        self.keys.push((id, XChaCha20Poly1305::new(&key.into())));
        self
    }

    /// Also replays responses that were stored without encryption. Use it only after encryption was switched on and
    /// until those have expired: anyone who can write to the store can plant such a response.
    #[must_use]
    pub fn accept_plain(mut self) -> Self {
        self.accept_plain = true;
        self
    }

    pub(super) fn accepts_plain(&self) -> bool {
        self.accept_plain
    }

    pub(super) fn encrypt(&self, form: &Bytes, binding: &Binding) -> Bytes {
        let (id, cipher) = &self.keys[0];
        // Random: at 192 bits no two nonces meet, however many processes share the key.
        let nonce: [u8; 24] = rand::random();
        let [_, status @ ..] = *form
            .first_chunk::<3>()
            .expect("version and status begin every form");
        let aad = associated(binding, *id, status);
        let payload = Payload {
            msg: form,
            aad: &aad,
        };
        let text = cipher.encrypt(&XNonce::from(nonce), payload);
        // Invariant: the only error is a text of more than 256 GiB.
        let text = text.expect("a stored response is far below the cipher's limit");
        let mut sealed = Vec::with_capacity(ENCRYPTED_HEAD + text.len());
        sealed.push(ENCRYPTED);
        sealed.extend_from_slice(&id.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&status);
        sealed.extend_from_slice(&text);
        Bytes::from(sealed)
    }

    pub(super) fn decrypt(&self, sealed: &Bytes, binding: &Binding) -> Result<Bytes, Flaw> {
        let (head, text) = sealed
            .split_at_checked(ENCRYPTED_HEAD)
            .ok_or(Flaw::Truncated)?;
        let (id, rest) = head[1..].split_first_chunk::<4>().ok_or(Flaw::Truncated)?;
        let (nonce, status) = rest.split_first_chunk::<24>().ok_or(Flaw::Truncated)?;
        let status: [u8; 2] = status.try_into().map_err(|_| Flaw::Truncated)?;
        let id = u32::from_be_bytes(*id);
        let aad = associated(binding, id, status);
        // Several keys may have the same id: each is tried.
        let mut named = self.keys.iter().filter(|(key, _)| *key == id).peekable();
        if named.peek().is_none() {
            return Err(Flaw::UnknownKey(id));
        }
        named
            .find_map(|(_, cipher)| {
                cipher
                    .decrypt(
                        &XNonce::from(*nonce),
                        Payload {
                            msg: text,
                            aad: &aad,
                        },
                    )
                    .ok()
            })
            .map(Bytes::from)
            .ok_or(Flaw::NotAuthentic)
    }
}

fn associated(binding: &Binding, id: u32, status: [u8; 2]) -> Vec<u8> {
    [
        DOMAIN,
        binding.key.as_bytes(),
        binding.fingerprint.as_bytes(),
        &id.to_be_bytes(),
        &status,
    ]
    .concat()
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| id).collect();
        f.debug_struct("Keyring")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}
