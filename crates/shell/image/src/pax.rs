//! PAX records, read from the raw headers of an entry.
//!
//! `tar` splits records at line ends, so it loses any whose value holds one: names may, and a file's
//! capabilities (a bit field) do. What it takes from records itself (the size) must agree with what is
//! read here, or the entry is refused.

/// Bytes of one block of a tar stream.
const BLOCK: usize = 512;

/// The records that the headers of one entry hold, in order. `headers` are the bytes from the first
/// header that describes the entry to the entry's own. `None` where a record is broken.
pub(crate) fn records(headers: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut at = 0;
    while let Some(block) = headers.get(at..at + BLOCK) {
        let header = tar::Header::from_byte_slice(block);
        let kind = header.entry_type();
        let describes = kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink();
        if !describes || (header.as_gnu().is_none() && header.as_ustar().is_none()) {
            break;
        }
        let size = usize::try_from(header.entry_size().ok()?).ok()?;
        let data = headers.get(at + BLOCK..(at + BLOCK).checked_add(size)?)?;
        if kind.is_pax_local_extensions() {
            return parse(data);
        }
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    Some(Vec::new())
}

/// `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn parse(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(8).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let record = data.get(space + 1..length)?;
        let (last, record) = record.split_last()?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        if *last != b'\n' || equals == 0 {
            return None;
        }
        records.push((&record[..equals], &record[equals + 1..]));
        data = &data[length..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_line_ends_zero_bytes_and_equals_signs() {
        let data = b"14 a=b\n12 c=d\n8 e=\0=\xff\n";
        let read = parse(data).unwrap();
        assert_eq!(read, [(b"a".as_slice(), b"b\n12 c=d".as_slice()), (b"e", b"\0=\xff")][..]);
    }

    #[test]
    fn broken_records_are_refused() {
        for data in [
            &b"6 a=b\n"[..],
            b"8 a=b\n",
            b"7 a=b\nx",
            b"6 a=bx",
            b" a=b\n",
            b"x a=b\n",
            b"5 abc\n",
            b"4 =\n",
            b"0 ",
            b"7",
            b"-6 a=b\n",
            b"99999999999999999999 a=b\n",
            b"1 a=b\n",
            b"2 \n",
        ] {
            // The first is right, to show that the others differ by little.
            assert_eq!(parse(data).is_some(), data == b"6 a=b\n", "{:?}", String::from_utf8_lossy(data));
        }
    }
}
