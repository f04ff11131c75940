//! The least that anybody who follows an agent server must do: read its event stream, and find the events in it.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::Result;

/// Reads the stream to its end, says how many events there were, and waits until its input is closed.
pub(crate) fn read(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("GET /event HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    println!("{}", count(BufReader::new(stream))?);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// The events of an answer in chunks.
fn count(mut answer: impl io::BufRead) -> io::Result<usize> {
    while line(&mut answer)?.len() > 2 {}
    let (mut events, mut chunk) = (0, Vec::new());
    loop {
        let size = line(&mut answer)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(events);
        }
        chunk.clear();
        answer.by_ref().take(size).read_to_end(&mut chunk)?;
        line(&mut answer)?;
        events += chunk.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"data: ")).count();
    }
}

fn line(answer: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    if answer.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_to_the_end_of_the_stream() {
        let answer = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n9\r\ndata: 1\n\n\r\n1a\r\ndata: 2\n\ndata: {\"n\":\"3\"}\n\n\r\n0\r\n\r\n";
        assert_eq!(count(answer.as_bytes()).unwrap(), 3);
        count(&answer.as_bytes()[..60]).unwrap_err();
    }
}
