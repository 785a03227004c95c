//! SCTP's checksum (RFC 9260, section 6.8 and appendix A): CRC-32C over the packet with the field zero.
//!
//! It covers the ports but no addresses, so translation of addresses alone leaves it right.

/// Length of the common header in bytes.
pub const HEADER_LENGTH: usize = 12;
/// Where in the header the checksum stands.
const CHECKSUM_OFFSET: usize = 8;

/// CRC-32C of each byte value: the Castagnoli polynomial, reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        let mut crc = value as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[value] = crc;
        value += 1;
    }
    table
};

fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// Whether the packet's checksum is right; a packet without a whole header has none.
pub fn is_valid(packet: &[u8]) -> bool {
    packet.get(CHECKSUM_OFFSET..HEADER_LENGTH).is_some_and(|field| field == checksum(packet).to_le_bytes())
}

/// The checksum of a packet, whatever stands in its field now.
fn checksum(packet: &[u8]) -> u32 {
    let zeroed = packet.iter().enumerate().map(|(place, byte)| match place {
        CHECKSUM_OFFSET..HEADER_LENGTH => 0,
        _ => *byte,
    });
    crc32c(zeroed)
}

/// Writes the right checksum. A packet without a whole header is left as it is.
pub fn fill_checksum(packet: &mut [u8]) {
    let value = checksum(packet);
    if let Some(field) = packet.get_mut(CHECKSUM_OFFSET..HEADER_LENGTH) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_its_standard_check_value() {
        // RFC 3720, appendix B.4, and the check value of CRC-32C for "123456789".
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    #[test]
    fn filled_checksum_is_valid_until_a_byte_changes() {
        let mut packet = *b"\x13\x88\x00\x50\0\0\0\x01\0\0\0\0data";
        fill_checksum(&mut packet);
        assert!(is_valid(&packet));
        packet[1] ^= 1;
        assert!(!is_valid(&packet) && !is_valid(&packet[..11]));
    }
}
