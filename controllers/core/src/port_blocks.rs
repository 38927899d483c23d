//! Port ranges as the prefixes that a trie can hold.

/// Cuts `first..=last` into the fewest aligned blocks: the first port of each and how many of its 16 bits count.
///
/// An empty range gives nothing. A range of *n* ports gives at most 30 blocks.
pub fn port_blocks(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut blocks = Vec::new();
    while next < end {
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let fitting = (end - next).ilog2();
        let free = aligned.min(fitting);
        blocks.push((next as u16, 16 - free));
        next += 1 << free;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::port_blocks;

    fn covers((port, bits): (u16, u32), candidate: u16) -> bool {
        let free = 16 - bits;
        u32::from(candidate) >> free == u32::from(port) >> free
    }

    #[test]
    fn blocks_are_the_fewest() {
        assert_eq!(port_blocks(80, 80), [(80, 16)]);
        assert_eq!(port_blocks(8080, 8083), [(8080, 14)]);
        assert_eq!(port_blocks(0, 65535), [(0, 0)]);
        assert_eq!(port_blocks(1, 4), [(1, 16), (2, 15), (4, 16)]);
        assert_eq!(port_blocks(65535, 65535), [(65535, 16)]);
        assert_eq!(port_blocks(1, 65534).len(), 30);
        assert!(port_blocks(2, 1).is_empty());
    }

    proptest! {
        #[test]
        fn blocks_cover_the_range_and_nothing_else(first: u16, last: u16, probe: u16) {
            let inside = (first..=last).contains(&probe);
            let hits = port_blocks(first, last).into_iter().filter(|block| covers(*block, probe)).count();
            prop_assert_eq!(hits, usize::from(inside));
        }
    }
}
