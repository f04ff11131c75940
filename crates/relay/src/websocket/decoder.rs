//! Finds messages in what a client sends.

use super::{Fault, Opcode};

/// Bytes of a control frame's payload, at most (RFC 6455 §5.5).
const CONTROL_BYTES: usize = 125;
/// Bytes of the longest header: two, a length of eight, a mask of four.
const HEADER_BYTES: usize = 14;

/// Takes a client's bytes as they come, however they are cut, and gives the messages and control frames in them.
///
/// It holds the bytes of one message that is not whole, at most the limit, and nothing between messages.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    header: [u8; HEADER_BYTES],
    /// How much of a header is there.
    header_len: u8,
    /// The frame whose payload is awaited.
    frame: Option<Frame>,
    message: Message,
    control: Vec<u8>,
    /// What was given out last is to be forgotten.
    given: Option<Given>,
}

/// What a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping: it is to be answered with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The client closes. Nothing that comes after it counts.
    Close {
        /// Why, if it says so.
        code: Option<u16>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    /// Bytes of the payload that are still to come.
    left: usize,
    mask: [u8; 4],
    /// Where in the mask the next byte lies.
    phase: usize,
}

/// A data message of which not everything is there.
#[derive(Debug, Default)]
struct Message {
    /// Text or binary; `None` between messages.
    opcode: Option<Opcode>,
    bytes: Vec<u8>,
    /// Up to here it is known to be UTF-8.
    valid: usize,
}

/// What was found: lying in the input, or put together from several.
enum Found<'a> {
    Here(Opcode, &'a [u8]),
    Message,
    Control(Opcode),
}

#[derive(Debug, Clone, Copy)]
enum Given {
    Message,
    Control,
}

impl Decoder {
    /// For messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            header: [0; HEADER_BYTES],
            header_len: 0,
            frame: None,
            message: Message::default(),
            control: Vec::new(),
            given: None,
        }
    }

    /// Takes bytes from the front of `input`, which it unmasks in place, up to and including the next message or control
    /// frame; `None` when it took all of them and none is whole.
    ///
    /// # Errors
    /// When the client broke the protocol: nothing that follows can be understood.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i mut [u8]) -> Result<Option<Received<'s>>, Fault> {
        match self.given.take() {
            Some(Given::Message) => self.message = Message::default(),
            Some(Given::Control) => self.control = Vec::new(),
            None => {}
        }
        let found = loop {
            if self.frame.is_none() && !self.header(input)? {
                return Ok(None);
            }
            if let Some(found) = self.payload(input)? {
                break found;
            }
            if self.frame.is_some() {
                return Ok(None);
            }
        };
        let (opcode, bytes) = match found {
            Found::Here(opcode, bytes) => (opcode, bytes),
            Found::Message => {
                self.given = Some(Given::Message);
                (self.message.opcode.unwrap_or(Opcode::Text), &*self.message.bytes)
            }
            Found::Control(opcode) => {
                self.given = Some(Given::Control);
                (opcode, &*self.control)
            }
        };
        received(opcode, bytes).map(Some)
    }

    /// Bytes of memory that are held for what is not whole.
    #[must_use]
    pub fn held(&self) -> usize {
        self.message.bytes.capacity() + self.control.capacity()
    }

    /// Reads on in a header, and says whether it is whole.
    fn header(&mut self, input: &mut &mut [u8]) -> Result<bool, Fault> {
        loop {
            let wanted = self.header_wanted()?;
            let have = usize::from(self.header_len);
            if have == wanted {
                break;
            }
            let taken = take(input, wanted - have);
            if taken.is_empty() {
                return Ok(false);
            }
            self.header[have..have + taken.len()].copy_from_slice(taken);
            self.header_len += u8::try_from(taken.len()).expect("a header is short");
        }
        self.header_len = 0;
        let frame = Frame::of(&self.header)?;
        self.check(&frame)?;
        self.frame = Some(frame);
        Ok(true)
    }

    /// How long the header is, as far as it is known; what its first bytes alone forbid is refused at once.
    fn header_wanted(&self) -> Result<usize, Fault> {
        if self.header_len < 2 {
            return Ok(2);
        }
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        let opcode = Opcode::of(first & 0x0f).ok_or(Fault::Protocol("a reserved opcode"))?;
        if second & 0x80 == 0 {
            return Err(Fault::Protocol("a client masks its frames"));
        }
        let length = second & 0x7f;
        if opcode.is_control() && length > 125 {
            return Err(Fault::Protocol("a control frame has at most 125 bytes"));
        }
        Ok(match length {
            126 => 8,
            127 => HEADER_BYTES,
            _ => 6,
        })
    }

    /// Whether a frame may come at this point.
    fn check(&self, frame: &Frame) -> Result<(), Fault> {
        let goes_on = self.message.opcode.is_some();
        match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong if !frame.fin => {
                return Err(Fault::Protocol("a control frame is not fragmented"));
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(()),
            Opcode::Continuation if !goes_on => {
                return Err(Fault::Protocol("there is no message to continue"));
            }
            Opcode::Text | Opcode::Binary if goes_on => {
                return Err(Fault::Protocol("a message begins within another"));
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        if frame.left > self.limit - self.message.bytes.len() {
            return Err(Fault::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Reads on in a payload.
    fn payload<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Found<'a>>, Fault> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let bytes = take(input, frame.left);
        frame.unmask(bytes);
        let Frame { fin, opcode, left, .. } = *frame;
        if left == 0 {
            self.frame = None;
        }
        if opcode.is_control() {
            if left == 0 && self.control.is_empty() {
                return Ok(Some(Found::Here(opcode, bytes)));
            }
            if self.control.is_empty() {
                self.control.reserve_exact(CONTROL_BYTES);
            }
            self.control.extend_from_slice(bytes);
            return Ok((left == 0).then_some(Found::Control(opcode)));
        }
        if left == 0 && fin && self.message.bytes.is_empty() {
            let opcode = self.message.opcode.take().unwrap_or(opcode);
            return Ok(Some(Found::Here(opcode, bytes)));
        }
        self.message.extend(opcode, bytes, left)?;
        Ok((left == 0 && fin).then_some(Found::Message))
    }
}

impl Message {
    fn extend(&mut self, opcode: Opcode, bytes: &[u8], left: usize) -> Result<(), Fault> {
        let text = *self.opcode.get_or_insert(opcode) == Opcode::Text;
        // What a header announces is reserved as it comes: an announcement alone costs nothing.
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.bytes.reserve(bytes.len() + left.min(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
        if text {
            match std::str::from_utf8(&self.bytes[self.valid..]) {
                Ok(_) => self.valid = self.bytes.len(),
                // A character that is not whole may become one.
                Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
                Err(_) => return Err(Fault::NotUtf8),
            }
        }
        Ok(())
    }
}

impl Frame {
    fn of(header: &[u8; HEADER_BYTES]) -> Result<Self, Fault> {
        let [first, second, rest @ ..] = header;
        let not_minimal = Fault::Protocol("a length is written in as few bytes as it takes");
        let (length, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), 2),
            127 => (u64::from_be_bytes(rest[..8].try_into().expect("eight bytes")), 8),
            short => (u64::from(short), 0),
        };
        match mask {
            2 if length < 126 => return Err(not_minimal),
            8 if length <= u64::from(u16::MAX) => return Err(not_minimal),
            _ => {}
        }
        if length >> 63 != 0 {
            return Err(Fault::Protocol("a length has 63 bits"));
        }
        Ok(Self {
            fin: first & 0x80 != 0,
            opcode: Opcode::of(first & 0x0f).ok_or(Fault::Protocol("a reserved opcode"))?,
            left: usize::try_from(length).unwrap_or(usize::MAX),
            mask: rest[mask..mask + 4].try_into().expect("four bytes"),
            phase: 0,
        })
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(self.phase);
        let word = u64::from_ne_bytes([mask, mask].concat().try_into().expect("eight bytes"));
        let mut words = bytes.chunks_exact_mut(8);
        for bytes in &mut words {
            let masked = u64::from_ne_bytes((&*bytes).try_into().expect("eight bytes"));
            bytes.copy_from_slice(&(masked ^ word).to_ne_bytes());
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
            *byte ^= mask;
        }
        self.phase = (self.phase + bytes.len()) % 4;
        self.left -= bytes.len();
    }
}

fn take<'a>(input: &mut &'a mut [u8], at_most: usize) -> &'a mut [u8] {
    let bytes = std::mem::take(input);
    let (taken, rest) = bytes.split_at_mut(at_most.min(bytes.len()));
    *input = rest;
    taken
}

fn received(opcode: Opcode, bytes: &[u8]) -> Result<Received<'_>, Fault> {
    Ok(match opcode {
        Opcode::Continuation | Opcode::Text => {
            Received::Text(std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?)
        }
        Opcode::Binary => Received::Binary(bytes),
        Opcode::Ping => Received::Ping(bytes),
        Opcode::Pong => Received::Pong,
        Opcode::Close => Received::Close { code: close_code(bytes)? },
    })
}

/// The code of a close frame (RFC 6455 §7.4): the client says none, or one that may be said.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Fault::Protocol("a close code has two bytes"))
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol("that close code is never sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Fault::NotUtf8),
    }
}
