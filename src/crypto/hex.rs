//! Decoding of hexadecimal text.

use std::iter;

/// Decodes exactly `2 * N` hexadecimal digits of either case; `None` for anything else.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, &[high, low]) in iter::zip(&mut bytes, pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_are_decoded_and_other_text_is_rejected() {
        assert_eq!(decode("00fFA9"), Some([0x00, 0xff, 0xa9]));
        for bad in ["", "00ff", "00ffa", "00ffa9f", "00ffa900", "00ffag", "+0ffa9", "00ffé", " 0ffa9"] {
            assert_eq!(decode::<3>(bad), None, "{bad:?}");
        }
    }
}
