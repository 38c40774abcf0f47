//! Which bytes of a file a read of few rows needs, and in how few requests they are asked for. Pure.

use std::ops::Range;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::ParquetMetaData;

/// Requests that one read of pages makes.
const REQUESTS: usize = 2;
/// Bytes that are read in vain, at most, to keep to so few: beyond them a further request costs less.
const VAIN_BYTES: u64 = 8 << 20;

/// The pages of the selected rows, and the dictionaries that they need, of each column that is read. None where the file has no page
/// index.
pub fn of_pages(
    footer: &ParquetMetaData,
    group: usize,
    columns: &ProjectionMask,
    rows: &RowSelection,
) -> Vec<Range<u64>> {
    let Some(offsets) = footer.offset_index() else { return Vec::new() };
    let mut ranges = Vec::new();
    for (column, chunk) in footer.row_group(group).columns().iter().enumerate() {
        let Some(pages) = offsets.get(group).and_then(|group| group.get(column)) else { continue };
        if !columns.leaf_included(column) {
            continue;
        }
        let pages = pages.page_locations();
        let (start, _) = chunk.byte_range();
        if let Some(first) = pages.first().map(|page| page.offset.unsigned_abs())
            && first != start
        {
            ranges.push(start..first);
        }
        ranges.extend(rows.scan_ranges(pages));
    }
    ranges
}

/// The ranges in as few requests as they are to take: those with the least between them are joined first, as long as not too much
/// is read in vain.
pub fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut vain = 0;
    // Those that touch are one in any case.
    let gap = |pair: &[Range<u64>]| pair[1].start.saturating_sub(pair[0].end);
    loop {
        let least = ranges.windows(2).map(gap).zip(0..).min();
        let Some((bytes, at)): Option<(u64, usize)> = least else { return ranges };
        if bytes > 0 && (ranges.len() <= REQUESTS || vain + bytes > VAIN_BYTES) {
            return ranges;
        }
        vain += bytes;
        ranges[at].end = ranges[at].end.max(ranges[at + 1].end);
        ranges.remove(at + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_gap_stays_and_little_is_read_in_vain() {
        assert_eq!(joined(vec![]), []);
        assert_eq!(joined(vec![40..50, 0..10, 10..20]), [0..20, 40..50]);
        assert_eq!(joined(vec![0..10, 12..20, 500..510, 600..610]), [0..20, 500..610]);
        let far = 64 << 20;
        assert_eq!(joined(vec![0..10, 12..20, far..far + 1, 2 * far..2 * far + 1]).len(), 3);
    }
}
