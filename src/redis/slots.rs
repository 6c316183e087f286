//! Which slot of a cluster a key is in.

/// The part of a key that its slot is computed from (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
pub(crate) fn tag_of(key: &str) -> &str {
    let Some((_, rest)) = key.split_once('{') else { return key };
    match rest.split_once('}') {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => key,
    }
}

/// The slot of a key: CRC16 (XMODEM) of its tag, modulo 16,384.
pub(crate) fn slot_of(key: &str) -> u16 {
    let mut crc = 0u16;
    for byte in tag_of(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of redis-server 7.0.15.
        for (key, slot) in
            [("foo", 12_182), ("{user1000}.following", 3443), ("foo{}{bar}", 8363), ("123456789", 12_739)]
        {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }
}
