//! The hash that places a key in the tables.
//!
//! Store keys are digests, but without a secret a client can compute those of its own requests, and could choose keys
//! that collide in any hash that it knows. This one is keyed at random: multilinear hashing over 64-bit words with
//! 128-bit keys, which is strongly universal (Dietzfelbinger 1996; Lemire and Kaser, "Strongly universal string hashing
//! is fast", 2014). Two keys chosen without knowledge of the random key collide with the probability of chance, and
//! eight multiplications cost less than a keyed hash for strings of any length.

use rand::RngExt;

use crate::scope::StoreKey;

const WORDS: usize = 4;

pub(super) struct Hasher {
    offset: u128,
    factors: [u128; WORDS],
}

impl Hasher {
    pub(super) fn new() -> Self {
        let mut random = rand::rng();
        Self {
            offset: random.random(),
            factors: random.random(),
        }
    }

    pub(super) fn hash(&self, key: &StoreKey) -> u64 {
        let (words, _) = key.as_bytes().as_chunks::<8>();
        let sum = words
            .iter()
            .zip(&self.factors)
            .fold(self.offset, |sum, (word, factor)| {
                sum.wrapping_add(factor.wrapping_mul(u64::from_le_bytes(*word).into()))
            });
        // The low half of such a sum is not universal.
        (sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every byte of a key counts, also in the bits that choose a slot (the low ones) and in those that are compared
    /// first (the high ones).
    #[test]
    fn keys_that_differ_in_one_bit_have_unrelated_hashes() {
        let keyed = Hasher::new();
        let plain = [0x5a; 32];
        let mut hashes = HashSet::from([keyed.hash(&StoreKey::from_bytes(plain))]);
        for bit in 0..256 {
            let mut key = plain;
            key[bit / 8] ^= 1 << (bit % 8);
            hashes.insert(keyed.hash(&StoreKey::from_bytes(key)));
        }
        assert_eq!(hashes.len(), 257);
        let low: HashSet<_> = hashes.iter().map(|hash| hash & 0xff).collect();
        let high: HashSet<_> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(low.len() > 100, "{} of 256 low bytes", low.len());
        assert!(high.len() > 80, "{} of 128 tags", high.len());
    }

    #[test]
    fn two_hashers_place_a_key_differently() {
        let key = StoreKey::from_bytes([7; 32]);
        assert_ne!(Hasher::new().hash(&key), Hasher::new().hash(&key));
    }
}
