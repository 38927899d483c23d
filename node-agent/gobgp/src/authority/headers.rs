//! The beginning of a client's side of an HTTP/2 connection (RFC 9113, 3.4 and 4.1), up to its first headers (RFC 7541).

/// Bytes that every client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of a frame's own header.
const FRAME: usize = 9;

/// Largest frame that a server takes when it said nothing else.
const MAX_FRAME: usize = 16_384;

/// Type of the frame that a request begins with.
const HEADERS: u8 = 1;

/// Flags of headers with something before them: padding, priority.
const MORE_BEFORE: u8 = 0x28;

/// Place of `:authority` in the table that everybody knows.
const AUTHORITY: usize = 1;

/// What is said in its place, with its length in front.
const LOCALHOST: &[u8] = b"\x09localhost";

/// Bytes that came, and that cannot go on yet because they are a part of something.
#[derive(Default)]
pub(super) struct Greeting {
    held: Vec<u8>,
    has_preface: bool,
}

impl Greeting {
    /// What can go on now that `bytes` came, and whether the greeting is over; then everything has gone on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut over = false;
        while !over {
            let Some((next, is_last)) = self.next() else { return (out, false) };
            out.extend(next);
            over = is_last;
        }
        out.append(&mut self.held);
        (out, true)
    }

    /// What was held back.
    pub(super) fn rest(self) -> Vec<u8> {
        self.held
    }

    /// The preface or the next frame, as it goes on, and whether nothing after it is of interest.
    fn next(&mut self) -> Option<(Vec<u8>, bool)> {
        if !self.has_preface {
            let came = self.held.len().min(PREFACE.len());
            if self.held[..came] != PREFACE[..came] {
                return Some((Vec::new(), true));
            }
            self.has_preface = came == PREFACE.len();
            return self.has_preface.then(|| (self.held.drain(..came).collect(), false));
        }
        let header = self.held.get(..FRAME)?;
        let length = header[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > MAX_FRAME {
            return Some((Vec::new(), true));
        }
        let is_headers = header[3] == HEADERS;
        if self.held.len() < FRAME + length {
            return None;
        }
        let frame: Vec<u8> = self.held.drain(..FRAME + length).collect();
        Some(if is_headers { (renamed(&frame).unwrap_or(frame), true) } else { (frame, false) })
    }
}

/// A frame of headers with another authority; `None` where it has none, or is not understood.
fn renamed(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, block) = frame.split_at_checked(FRAME)?;
    if header[4] & MORE_BEFORE != 0 {
        return None;
    }
    let (before, after) = around_authority(block)?;
    let block = [before, LOCALHOST, after].concat();
    let length = u32::try_from(block.len()).ok()?.to_be_bytes();
    Some([&length[1..], &header[3..], &block].concat())
}

/// What stands before the authority's value, and what after it.
fn around_authority(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = block;
    loop {
        let first = *rest.first()?;
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let (index, after) = integer(rest, prefix)?;
        rest = after;
        // A header of the table, or another size of the table: no text follows.
        if first >= 0x80 || prefix == 5 {
            continue;
        }
        if index == 0 {
            rest = skip_text(rest)?;
        }
        let after = skip_text(rest)?;
        if index == AUTHORITY {
            return Some((&block[..block.len() - rest.len()], after));
        }
        rest = after;
    }
}

/// What follows a text.
fn skip_text(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(bytes, 7)?;
    rest.get(length..)
}

/// A number whose first byte has `prefix` bits of it, and what follows (RFC 7541, 5.1).
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mask = (1_u8 << prefix) - 1;
    let mut number = usize::from(first & mask);
    if first & mask < mask {
        return Some((number, rest));
    }
    for shift in [0, 7, 14] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const SETTINGS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";

    /// Headers of a request: `:method`, `:scheme`, `:path` by name, `:authority`, and one by a name of its own.
    fn mk_request(authority: &[u8]) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        let block =
            [b"\x83\x86\x44\x02/a\x41", &[length][..], authority, b"\x40\x02te\x01x\x00\x01b\x01c"].concat();
        let header = [0, 0, u8::try_from(block.len()).unwrap(), HEADERS, 4, 0, 0, 0, 1];
        [&header[..], &block].concat()
    }

    /// All that goes on of `bytes` that come in pieces of `size`, and what is held back in the end.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut greeting = Some(Greeting::default());
        let mut passed = Vec::new();
        for piece in bytes.chunks(size) {
            let Some(mut begun) = greeting.take() else {
                passed.extend_from_slice(piece);
                continue;
            };
            let (out, over) = begun.take(piece);
            passed.extend(out);
            greeting = (!over).then_some(begun);
        }
        passed.extend(greeting.map(Greeting::rest).unwrap_or_default());
        passed
    }

    #[test]
    fn the_first_request_gets_another_authority_however_it_comes() {
        let second = mk_request(b"/var/run/second.sock");
        let came = [PREFACE, SETTINGS, &mk_request(b"/var/run/gobgp.sock"), &second].concat();
        let expected = [PREFACE, SETTINGS, &mk_request(b"localhost"), &second].concat();
        for size in 1..=came.len() {
            assert_eq!(passed(&came, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_not_understood_goes_on_as_it_came() {
        let padded: &[u8] = b"\x00\x00\x03\x01\x0c\x00\x00\x00\x01\x41\x01a";
        let broken: &[u8] = b"\x00\x00\x03\x01\x04\x00\x00\x00\x01\x41\xff\xff";
        for after in [padded, broken, b"\xff\xff\xff\x01", b"\x00\x00\x09\x01\x04\x00"] {
            let came = [PREFACE, SETTINGS, after].concat();
            assert_eq!(passed(&came, 5), came);
        }
        let other = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice();
        assert_eq!(passed(other, 7), other);
        assert_eq!(passed(b"PRI *", 2), b"PRI *");
    }

    proptest! {
        #[test]
        fn whatever_comes_goes_on_the_same_in_pieces(
            block in vec(any::<u8>(), 0..64), flags in any::<u8>(), more in vec(any::<u8>(), 0..32), size in 1_usize..40,
        ) {
            let header = [0, 0, u8::try_from(block.len()).unwrap(), HEADERS, flags, 0, 0, 0, 1];
            let came = [PREFACE, &header, &block, &more].concat();
            let whole = passed(&came, came.len());
            prop_assert_eq!(&passed(&came, size), &whole);
            prop_assert!(whole == came || whole.windows(LOCALHOST.len()).any(|at| at == LOCALHOST));
            prop_assert!(whole.ends_with(&more));
        }
    }

    #[test]
    fn numbers_are_read_as_the_rfc_has_them() {
        assert_eq!(integer(&[0x0a, 1], 5), Some((10, &[1][..])));
        assert_eq!(integer(&[0x1f, 0x9a, 0x0a], 5), Some((1337, &[][..])));
        assert_eq!(integer(&[0x1f, 0x9a], 5), None);
        assert_eq!(integer(&[0x1f, 0xff, 0xff, 0xff, 0xff], 5), None);
    }
}
