//! Stored responses at rest: compressed, encrypted, or as they are.
//!
//! A second layer around the form of a stored response, chosen by its first byte:
//!
//! ```text
//! 1  the form itself
//! 2  compressed: u16 status, u32 length of the form, then an LZ4 block of it
//! 3  encrypted:  u32 key id, 24 bytes of nonce, u16 status, then XChaCha20-Poly1305 of 1 or 2 and its tag
//! ```
//!
//! 1. Compression comes before encryption, and only where it makes the response smaller.
//! 2. An encrypted response is bound to the record's store key, its fingerprint, the key id and the status: a row
//!    that is moved to another key, or whose status is changed, does not open.
//! 3. An engine with a keyring opens nothing that is not encrypted, unless the keyring accepts that for a migration:
//!    anyone who can write to the store could otherwise plant an answer.
//! 4. A response that does not open is an error, never an absent record: nothing is executed again.
//! 5. An outcome is sealed once. A completion that is repeated repeats the same bytes.

use bytes::Bytes;

#[cfg(feature = "encryption")]
use super::keyring::Keyring;
use super::{
    form::{Binding, COMPRESSED, COMPRESSED_HEAD, ENCRYPTED, Flaw, STATUS},
    limits::ResponseLimits,
    stored::{CorruptResponse, StoredResponse},
};

/// The most that LZ4 can make of one byte.
const LZ4_RATIO: usize = 255;
/// Larger responses are not compressed, and opening never makes a larger one: a few bytes that were planted in the
/// store must not cost a lot of memory.
const LARGEST: usize = 64 << 20;

/// How one engine keeps responses at rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sealer {
    /// Responses of at least so many bytes are compressed.
    #[cfg(feature = "compression")]
    pub(crate) compress_from: Option<usize>,
    #[cfg(feature = "encryption")]
    pub(crate) keyring: Option<Keyring>,
}

impl Sealer {
    /// The response as it is stored.
    pub(crate) fn seal(&self, response: StoredResponse, binding: &Binding) -> StoredResponse {
        let response = self.compress(response);
        self.encrypt(response, binding)
    }

    /// The response as it was before [`seal`](Self::seal).
    pub(crate) fn open(
        &self,
        stored: &StoredResponse,
        binding: &Binding,
    ) -> Result<StoredResponse, CorruptResponse> {
        let decrypted = self.decrypt(stored, binding)?;
        Ok(decompress(decrypted)?)
    }

    /// Bytes that are no response, such as a step, as they are stored: as the body of a response without headers.
    pub(crate) fn seal_bytes(&self, bytes: &[u8], binding: &Binding) -> Bytes {
        let (head, ()) = http::Response::new(()).into_parts();
        let limits = ResponseLimits {
            max_body: bytes.len(),
            ..ResponseLimits::default()
        };
        let response = StoredResponse::encode(&head, bytes, &limits, None, None)
            .expect("it has no headers, and its body is as large as it may be");
        self.seal(response, binding).0
    }

    /// The bytes as they were before [`seal_bytes`](Self::seal_bytes).
    pub(crate) fn open_bytes(
        &self,
        stored: Bytes,
        binding: &Binding,
    ) -> Result<Bytes, CorruptResponse> {
        let (_, _, bytes) = self
            .open(&StoredResponse::from_bytes(stored)?, binding)?
            .decode()?;
        Ok(bytes)
    }

    #[cfg(feature = "compression")]
    fn compress(&self, response: StoredResponse) -> StoredResponse {
        let form = response.as_bytes();
        let Ok(length) = u32::try_from(form.len()) else {
            return response;
        };
        if form.len() > LARGEST || self.compress_from.is_none_or(|least| form.len() < least) {
            return response;
        }
        let mut sealed =
            vec![0; COMPRESSED_HEAD + lz4_flex::block::get_maximum_output_size(form.len())];
        let Ok(size) = lz4_flex::block::compress_into(form, &mut sealed[COMPRESSED_HEAD..]) else {
            return response;
        };
        let size = COMPRESSED_HEAD + size;
        if size >= form.len() {
            return response;
        }
        sealed[0] = COMPRESSED;
        sealed[STATUS].copy_from_slice(&form[STATUS]);
        sealed[STATUS.end..COMPRESSED_HEAD].copy_from_slice(&length.to_be_bytes());
        // Copied into an allocation of exactly this size, so that the room for the worst case is freed.
        StoredResponse(Bytes::copy_from_slice(&sealed[..size]))
    }

    #[cfg(not(feature = "compression"))]
    #[expect(
        clippy::unused_self,
        reason = "without the feature there is no setting"
    )]
    fn compress(&self, response: StoredResponse) -> StoredResponse {
        response
    }

    #[cfg(feature = "encryption")]
    fn encrypt(&self, response: StoredResponse, binding: &Binding) -> StoredResponse {
        match &self.keyring {
            Some(keyring) => StoredResponse(keyring.encrypt(&response.0, binding)),
            None => response,
        }
    }

    #[cfg(not(feature = "encryption"))]
    #[expect(
        clippy::unused_self,
        reason = "without the feature there is no setting"
    )]
    fn encrypt(&self, response: StoredResponse, _: &Binding) -> StoredResponse {
        response
    }

    #[cfg(feature = "encryption")]
    fn decrypt(&self, stored: &StoredResponse, binding: &Binding) -> Result<StoredResponse, Flaw> {
        let encrypted = stored.0.first() == Some(&ENCRYPTED);
        match &self.keyring {
            Some(keyring) if encrypted => keyring.decrypt(&stored.0, binding).map(StoredResponse),
            Some(keyring) if !keyring.accepts_plain() => Err(Flaw::Plain),
            None if encrypted => Err(Flaw::Encrypted),
            _ => Ok(stored.clone()),
        }
    }

    #[cfg(not(feature = "encryption"))]
    #[expect(
        clippy::unused_self,
        reason = "without the feature there is no setting"
    )]
    fn decrypt(&self, stored: &StoredResponse, _: &Binding) -> Result<StoredResponse, Flaw> {
        if stored.0.first() == Some(&ENCRYPTED) {
            return Err(Flaw::Encrypted);
        }
        Ok(stored.clone())
    }
}

fn decompress(stored: StoredResponse) -> Result<StoredResponse, Flaw> {
    if stored.0.first() != Some(&COMPRESSED) {
        return Ok(stored);
    }
    let length = stored
        .0
        .get(STATUS.end..COMPRESSED_HEAD)
        .ok_or(Flaw::Truncated)?;
    // Four bytes, by the range just taken.
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    let block = &stored.0[COMPRESSED_HEAD..];
    // Before anything is allocated: the length may be hostile.
    if length > LARGEST || length / LZ4_RATIO > block.len() {
        return Err(Flaw::Compressed);
    }
    let form = inflate(block, length)?;
    if form.0[STATUS] != stored.0[STATUS] {
        return Err(Flaw::Compressed);
    }
    Ok(form)
}

#[cfg(feature = "compression")]
fn inflate(block: &[u8], length: usize) -> Result<StoredResponse, Flaw> {
    let form = lz4_flex::block::decompress(block, length).map_err(|_| Flaw::Compressed)?;
    if form.len() != length {
        return Err(Flaw::Compressed);
    }
    StoredResponse::from_form(Bytes::from(form))
}

#[cfg(not(feature = "compression"))]
fn inflate(_: &[u8], _: usize) -> Result<StoredResponse, Flaw> {
    Err(Flaw::NoCompression)
}

#[cfg(all(test, feature = "compression", feature = "encryption"))]
mod tests {
    use http::Response;
    use proptest::prelude::*;

    use super::*;
    use crate::{fingerprint::Fingerprint, response::ResponseLimits, scope::StoreKey};

    const KEY: [u8; 32] = [7; 32];

    fn response(status: u16, body: &[u8]) -> StoredResponse {
        let (head, ()) = Response::builder()
            .status(status)
            .body(())
            .unwrap()
            .into_parts();
        StoredResponse::encode(&head, body, &ResponseLimits::default(), None, None).unwrap()
    }

    fn binding(key: u8, fingerprint: u8) -> Binding {
        Binding {
            key: StoreKey::from_bytes([key; 32]),
            fingerprint: Fingerprint::from_bytes([fingerprint; 32]),
        }
    }

    fn sealer(keyring: Option<Keyring>) -> Sealer {
        Sealer {
            compress_from: Some(100),
            keyring,
        }
    }

    fn encrypting() -> Sealer {
        sealer(Some(Keyring::new(1, KEY)))
    }

    #[test]
    fn without_settings_nothing_changes() {
        let plain = response(201, b"paid");
        let sealed = Sealer::default().seal(plain.clone(), &binding(1, 1));
        assert_eq!(sealed, plain);
        assert_eq!(Sealer::default().open(&sealed, &binding(1, 1)), Ok(plain));
    }

    #[test]
    fn large_bodies_are_compressed_and_small_or_random_ones_are_not() {
        let large = response(200, &[b'a'; 10_000]);
        let sealed = sealer(None).seal(large.clone(), &binding(1, 1));
        assert!(sealed.as_bytes().len() < 200);
        assert_eq!(sealed.as_bytes()[0], COMPRESSED);
        // An engine without any setting reads it: the setting is about writing.
        assert_eq!(Sealer::default().open(&sealed, &binding(1, 1)), Ok(large));

        let small = response(200, b"paid");
        assert_eq!(sealer(None).seal(small.clone(), &binding(1, 1)), small);
        let noise: Vec<u8> = (0..5000).map(|_| rand::random()).collect();
        let noise = response(200, &noise);
        assert_eq!(sealer(None).seal(noise.clone(), &binding(1, 1)), noise);
    }

    #[test]
    fn an_old_key_opens_what_another_process_encrypts_with_it() {
        let first = sealer(Some(Keyring::new(1, KEY).and_old(2, [8; 32])));
        let second = sealer(Some(Keyring::new(2, [8; 32]).and_old(1, KEY)));
        let paid = response(201, b"paid");
        for (one, other) in [(&first, &second), (&second, &first)] {
            let sealed = one.seal(paid.clone(), &binding(1, 1));
            assert_eq!(other.open(&sealed, &binding(1, 1)), Ok(paid.clone()));
        }
    }

    #[test]
    fn a_response_over_the_largest_size_is_neither_opened_nor_compressed() {
        let bomb = |length: usize| {
            let form = [[1].as_slice(), &vec![0; length - 1]].concat();
            let block = lz4_flex::block::compress(&form);
            let length = u32::try_from(length).unwrap().to_be_bytes();
            let stored = [&[COMPRESSED, 0, 200], &length[..], &block].concat();
            let stored = StoredResponse::from_bytes(Bytes::from(stored)).unwrap();
            decompress(stored).map(drop)
        };
        // A valid block, but too large.
        assert_eq!(bomb(LARGEST + 1), Err(Flaw::Compressed));
        // Up to the limit only the content is checked.
        assert_ne!(bomb(1000), Err(Flaw::Compressed));
        let huge = response(200, &[]);
        let huge = StoredResponse([&huge.0[..], &vec![0; LARGEST]].concat().into());
        assert_eq!(sealer(None).compress(huge.clone()).0.len(), huge.0.len());
    }

    #[test]
    fn an_encrypted_response_opens_only_for_its_record() {
        let plain = response(201, b"card 4242");
        let sealed = encrypting().seal(plain.clone(), &binding(1, 2));

        let text = sealed.as_bytes();
        assert!(
            !text.windows(4).any(|window| window == b"4242"),
            "nothing of the body is readable"
        );
        assert_eq!(encrypting().open(&sealed, &binding(1, 2)), Ok(plain));
        for other in [binding(9, 2), binding(1, 9)] {
            assert_eq!(
                encrypting().open(&sealed, &other),
                Err(Flaw::NotAuthentic.into())
            );
        }
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let sealed = encrypting().seal(response(201, b"paid"), &binding(1, 1));
        for at in 0..sealed.as_bytes().len() {
            let mut changed = sealed.as_bytes().to_vec();
            changed[at] ^= 1;
            let opened = StoredResponse::from_bytes(Bytes::from(changed))
                .and_then(|changed| encrypting().open(&changed, &binding(1, 1)));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    #[test]
    fn keys_are_rotated_by_id() {
        let old = encrypting().seal(response(201, b"paid"), &binding(1, 1));
        let rotated = sealer(Some(Keyring::new(2, [8; 32]).and_old(1, KEY)));
        assert_eq!(
            rotated.open(&old, &binding(1, 1)),
            Ok(response(201, b"paid"))
        );
        let new = rotated.seal(response(202, b"later"), &binding(1, 1));
        assert_eq!(
            encrypting().open(&new, &binding(1, 1)),
            Err(Flaw::UnknownKey(2).into())
        );
        let without_old = sealer(Some(Keyring::new(2, [8; 32])));
        assert_eq!(
            without_old.open(&old, &binding(1, 1)),
            Err(Flaw::UnknownKey(1).into())
        );
        assert_eq!(
            Sealer::default().open(&old, &binding(1, 1)),
            Err(Flaw::Encrypted.into())
        );
    }

    #[test]
    fn a_planted_plain_response_is_refused_unless_accepted() {
        for planted in [
            response(200, b"free"),
            sealer(None).seal(response(200, &[b'a'; 999]), &binding(1, 1)),
        ] {
            assert_eq!(
                encrypting().open(&planted, &binding(1, 1)),
                Err(Flaw::Plain.into())
            );
            let migrating = sealer(Some(Keyring::new(1, KEY).accept_plain()));
            assert!(migrating.open(&planted, &binding(1, 1)).is_ok());
        }
    }

    #[test]
    fn the_status_shows_in_every_form() {
        let large = response(418, &[b'a'; 10_000]);
        let compressed = sealer(None).seal(large.clone(), &binding(1, 1));
        let encrypted = encrypting().seal(large.clone(), &binding(1, 1));
        for form in [large, compressed, encrypted] {
            assert!(format!("{form:?}").contains("status: 418"), "{form:?}");
        }
    }

    #[test]
    fn an_impossible_length_is_refused_before_anything_is_allocated() {
        let mut hostile = vec![COMPRESSED, 0, 200];
        hostile.extend_from_slice(&u32::MAX.to_be_bytes());
        hostile.push(0);
        let hostile = StoredResponse::from_bytes(Bytes::from(hostile)).unwrap();
        assert_eq!(
            Sealer::default().open(&hostile, &binding(1, 1)),
            Err(Flaw::Compressed.into())
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0_u8..5) {
            let mut bytes = bytes;
            bytes.insert(0, version);
            if let Ok(stored) = StoredResponse::from_bytes(Bytes::from(bytes)) {
                let _ = encrypting().open(&stored, &binding(1, 1));
                let _ = Sealer::default().open(&stored, &binding(1, 1));
                let _ = format!("{stored:?}");
            }
        }

        #[test]
        fn every_sealed_response_opens(status in 200_u16..600, body in proptest::collection::vec(0_u8..4, 0..2000)) {
            let plain = response(status, &body);
            for sealer in [sealer(None), encrypting()] {
                let sealed = sealer.seal(plain.clone(), &binding(3, 4));
                prop_assert_eq!(&sealer.open(&sealed, &binding(3, 4)).unwrap(), &plain);
                prop_assert!(StoredResponse::from_bytes(sealed.as_bytes().clone()).is_ok());
            }
        }
    }
}
