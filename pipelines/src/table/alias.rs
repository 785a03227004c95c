//! Weighted random choice in constant time.

use engine::random::Random;

/// Weighted choice in constant time: Walker's alias method, built as by Vose ("A Linear Algorithm for Generating Random
/// Numbers with a Given Distribution", IEEE TSE 17(9), 1991). Exact: columns are whole numbers, not fractions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasTable {
    /// For each column with any weight: keep it below this, else take the other.
    columns: Vec<(u64, u32, u32)>,
    /// Height of a column: the sum of all weights.
    height: u64,
    /// All have one weight: a column is a place, and need not be read.
    is_uniform: bool,
}

impl AliasTable {
    /// A table of these weights; those of 0 are never chosen.
    pub fn build(weights: impl Iterator<Item = u32>) -> Self {
        let weighted: Vec<(u32, u64)> = weights
            .enumerate()
            .map(|(index, weight)| (index as u32, u64::from(weight)))
            .filter(|w| w.1 > 0)
            .collect();
        let height: u64 = weighted.iter().map(|weight| weight.1).sum();
        let count = weighted.len() as u64;
        // Scaled by their number, weights are shares of columns that are `height` high.
        let mut small = Vec::new();
        let mut large = Vec::new();
        for (index, weight) in weighted {
            let scaled = weight * count;
            if scaled < height { small.push((index, scaled)) } else { large.push((index, scaled)) }
        }
        let mut columns = Vec::with_capacity(count as usize);
        while let Some((index, share)) = small.pop() {
            // The sum of all shares is count × height, so a small one leaves a large one.
            let Some((other, other_share)) = large.pop() else { break };
            columns.push((share, index, other));
            let left = other_share - (height - share);
            if left < height { small.push((other, left)) } else { large.push((other, left)) }
        }
        columns.extend(large.into_iter().map(|(index, _)| (height, index, index)));
        let is_uniform = columns
            .iter()
            .enumerate()
            .all(|(place, (share, index, _))| *share == height && *index as usize == place);
        Self { columns, height, is_uniform }
    }

    /// Whether no weight is above 0.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Reads the first column, if columns will be read.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.is_uniform {
            core::hint::black_box(self.columns.first().map(|column| column.0));
        }
    }

    /// A place at random, by weight; none if no place has any.
    #[inline]
    pub fn choose(&self, random: &mut Random) -> Option<usize> {
        let column = match self.columns.len() {
            0 => return None,
            1 => 0,
            count => random.below(count as u32) as usize,
        };
        if self.is_uniform {
            return Some(column);
        }
        let (share, index, other) = self.columns[column];
        // Heights above 2^32 need 65,538 backends of the largest weight; the build bounds both.
        let below = share == self.height || u64::from(random.below(self.height as u32)) < share;
        Some(if below { index } else { other } as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The columns' shares add up to the weights exactly.
        #[test]
        fn alias_table_is_exact(weights in proptest::collection::vec(0u32..=65_535, 0..40)) {
            let table = AliasTable::build(weights.iter().copied());
            let mut shares = vec![0u64; weights.len()];
            for (share, index, other) in &table.columns {
                shares[*index as usize] += share;
                shares[*other as usize] += table.height - share;
            }
            for (weight, share) in weights.iter().zip(&shares) {
                prop_assert_eq!(u64::from(*weight) * table.columns.len() as u64, *share);
            }
            prop_assert_eq!(table.choose(&mut Random::new(1)).is_none(), weights.iter().all(|weight| *weight == 0));
        }
    }

    /// With equal weights no column is read; the choice is the one that reading would give.
    #[test]
    fn equal_weights_are_chosen_alike_with_and_without_columns() {
        for (weights, is_uniform) in
            [(vec![7; 5], true), (vec![1], true), (vec![0, 1, 1], false), (vec![1, 2], false)]
        {
            let table = AliasTable::build(weights.into_iter());
            assert_eq!(table.is_uniform, is_uniform);
            let read = AliasTable { is_uniform: false, ..table.clone() };
            let (mut one, mut other) = (Random::new(3), Random::new(3));
            for _ in 0..1_000 {
                assert_eq!(table.choose(&mut one), read.choose(&mut other));
            }
        }
    }

    #[test]
    fn draining_backends_are_never_chosen() {
        let table = AliasTable::build([0, 3, 0, 1].into_iter());
        let mut random = Random::new(7);
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[table.choose(&mut random).unwrap()] += 1;
        }
        assert_eq!((counts[0], counts[2]), (0, 0));
        assert!((29_400..30_600).contains(&counts[1]), "{counts:?}");
    }
}
