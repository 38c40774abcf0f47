//! The cap on label values that users make.

use std::collections::HashSet;
use std::sync::RwLock;

use kalamdb_api::metrics::OTHER;

/// Knows the first so many values; all others are `other`.
pub struct LabelCap {
    most: usize,
    known: RwLock<HashSet<String>>,
}

impl LabelCap {
    /// At most so many.
    pub fn new(most: usize) -> Self {
        Self { most, known: RwLock::default() }
    }

    /// The value, or `other`.
    pub fn fold(&self, value: &str) -> String {
        let poisoned = std::sync::PoisonError::into_inner;
        if self.known.read().unwrap_or_else(poisoned).contains(value) {
            return value.to_owned();
        }
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.len() < self.most || known.contains(value) {
            known.insert(value.to_owned());
            return value.to_owned();
        }
        OTHER.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_beyond_the_cap_fold_and_known_ones_stay() {
        let cap = super::LabelCap::new(2);
        let folded: Vec<String> = ["a", "b", "c", "a", "d"].iter().map(|value| cap.fold(value)).collect();
        assert_eq!(folded, ["a", "b", "other", "a", "other"]);
    }
}
