//! The hash that places a store key in a table of this process.
//!
//! Store keys are digests, but without a secret a client can compute those of its own requests, and could choose keys
//! that collide in any hash that it knows. This one is keyed at random: multilinear hashing over 64-bit words with
//! 128-bit keys, which is strongly universal (Dietzfelbinger 1996; Lemire and Kaser, "Strongly universal string hashing
//! is fast", 2014). Two keys chosen without knowledge of the random key collide with the probability of chance, and
//! eight multiplications cost less than a keyed hash for strings of any length.

use std::hash::{BuildHasher, Hasher};

use rand::RngExt;

const WORDS: usize = 4;

/// The random key of one table's hash.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHash {
    offset: u128,
    factors: [u128; WORDS],
}

/// The hash of one store key, on its way.
pub(crate) struct Sum {
    sum: u128,
    factors: [u128; WORDS],
}

impl KeyedHash {
    pub(crate) fn new() -> Self {
        let mut random = rand::rng();
        Self {
            offset: random.random(),
            factors: random.random(),
        }
    }
}

impl Default for KeyedHash {
    fn default() -> Self {
        Self::new()
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = Sum;

    fn build_hasher(&self) -> Sum {
        Sum {
            sum: self.offset,
            factors: self.factors,
        }
    }
}

impl Hasher for Sum {
    /// The bytes of one store key, whole and once.
    fn write(&mut self, key: &[u8]) {
        debug_assert_eq!(key.len(), 8 * WORDS, "only store keys are hashed");
        let (words, _) = key.as_chunks::<8>();
        let factors = words.iter().zip(&self.factors);
        self.sum = factors.fold(self.sum, |sum, (word, factor)| {
            sum.wrapping_add(factor.wrapping_mul(u64::from_le_bytes(*word).into()))
        });
    }

    /// The length, which is the same for all keys.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        // The low half of such a sum is not universal.
        (self.sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::scope::StoreKey;

    /// Every byte of a key counts, also in the bits that choose a slot (the low ones) and in those that are compared
    /// first (the high ones).
    #[test]
    fn keys_that_differ_in_one_bit_have_unrelated_hashes() {
        let keyed = KeyedHash::new();
        let plain = [0x5a; 32];
        let mut hashes = HashSet::from([keyed.hash_one(StoreKey::from_bytes(plain))]);
        for bit in 0..256 {
            let mut key = plain;
            key[bit / 8] ^= 1 << (bit % 8);
            hashes.insert(keyed.hash_one(StoreKey::from_bytes(key)));
        }
        assert_eq!(hashes.len(), 257);
        let low: HashSet<_> = hashes.iter().map(|hash| hash & 0xff).collect();
        let high: HashSet<_> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(low.len() > 100, "{} of 256 low bytes", low.len());
        assert!(high.len() > 80, "{} of 128 tags", high.len());
    }

    #[test]
    fn two_hashes_place_a_key_differently() {
        let key = StoreKey::from_bytes([7; 32]);
        assert_ne!(
            KeyedHash::new().hash_one(key),
            KeyedHash::new().hash_one(key)
        );
    }
}
