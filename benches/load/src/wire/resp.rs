//! The protocol of Redis, version 2.

use anyhow::{Result, bail};

/// What Redis answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Simple,
    Integer,
    Nothing,
    Error(&'a [u8]),
    Bulk(&'a [u8]),
    Array(Vec<Self>),
}

/// A reply at the front of `bytes`, once it is there, and its length.
pub(crate) fn reply(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else { return Ok(None) };
    let (line, mut used) = (&bytes[1..end], end + 2);
    let value = match bytes[0] {
        b'+' => Reply::Simple,
        b':' => Reply::Integer,
        b'-' => Reply::Error(line),
        b'$' => match usize::try_from(number(line)?) {
            Err(_) => Reply::Nothing,
            Ok(len) => {
                let Some(bulk) = bytes.get(used..used + len + 2) else { return Ok(None) };
                used += len + 2;
                Reply::Bulk(&bulk[..len])
            }
        },
        b'*' => match usize::try_from(number(line)?) {
            Err(_) => Reply::Nothing,
            Ok(len) => {
                let mut items = Vec::with_capacity(len);
                for _ in 0..len {
                    let Some((item, len)) = reply(&bytes[used..])? else { return Ok(None) };
                    items.push(item);
                    used += len;
                }
                Reply::Array(items)
            }
        },
        other => bail!("no reply of Redis begins with {other:#04x}"),
    };
    Ok(Some((value, used)))
}

/// Writes a command.
pub(crate) fn command(arguments: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

fn number(line: &[u8]) -> Result<i64> {
    Ok(std::str::from_utf8(line)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_replies_are_taken_whole_or_not_at_all() {
        let bytes = b"*2\r\n$3\r\nabc\r\n*3\r\n:1\r\n$-1\r\n+OK\r\nrest";
        let nested = Reply::Array(vec![Reply::Integer, Reply::Nothing, Reply::Simple]);
        let whole = Reply::Array(vec![Reply::Bulk(b"abc"), nested]);
        assert_eq!(reply(bytes).unwrap(), Some((whole, bytes.len() - 4)));
        for cut in 0..bytes.len() - 4 {
            assert_eq!(reply(&bytes[..cut]).unwrap(), None);
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulks() {
        let mut out = Vec::new();
        command(&[b"GET", b"key"], &mut out);
        assert_eq!(
            reply(&out).unwrap().unwrap().0,
            Reply::Array(vec![Reply::Bulk(b"GET"), Reply::Bulk(b"key")])
        );
    }
}
