//! The form of a stored response, written and read. See the [parent module](super) for its layout.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    form::{COMPRESSED, ENCRYPTED, Flaw, PLAIN},
    limits::{NotStorable, ResponseLimits},
};

/// Version, status and number of headers.
const HEAD: usize = 1 + 2 + 2;
/// The two lengths of a header.
const HEADER: usize = 2 + 4;
/// The length of the body.
const BODY: usize = 8;

/// Which header lines are kept, by their place: decided once, although they are measured before they are written.
struct Kept([u64; 4]);

impl Kept {
    /// How many lines are remembered. What is kept of further ones is asked again.
    const LINES: usize = 256;

    fn keep(&mut self, line: usize) {
        if line < Self::LINES {
            self.0[line / 64] |= 1 << (line % 64);
        }
    }

    fn is_kept(&self, line: usize) -> Option<bool> {
        (line < Self::LINES).then(|| self.0[line / 64] >> (line % 64) & 1 == 1)
    }
}

/// Writes a response, of its headers those that `keeps` is true of.
pub(super) fn encode(
    status: StatusCode,
    headers: &HeaderMap,
    keeps: impl Fn(&HeaderName) -> bool,
    body: &[u8],
    limits: &ResponseLimits,
) -> Result<Bytes, NotStorable> {
    let (mut count, mut size) = (0_u16, 0_usize);
    let mut kept = Kept([0; 4]);
    for (line, (name, value)) in headers.iter().enumerate() {
        if keeps(name) {
            kept.keep(line);
            count = count.checked_add(1).ok_or(NotStorable::TooManyHeaders)?;
            size += name.as_str().len() + value.len();
        }
    }
    if usize::from(count) > limits.max_headers {
        return Err(NotStorable::TooManyHeaders);
    }
    if size > limits.max_header_bytes {
        return Err(NotStorable::HeadersTooLarge);
    }
    let exact = HEAD + usize::from(count) * HEADER + size + BODY + body.len();
    let mut bytes = Vec::with_capacity(exact);
    bytes.push(PLAIN);
    bytes.extend_from_slice(&status.as_u16().to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    for (line, (name, value)) in headers.iter().enumerate() {
        if !kept.is_kept(line).unwrap_or_else(|| keeps(name)) {
            continue;
        }
        // A limit may be set higher than what the length fields can hold.
        let too_large = |_| NotStorable::HeadersTooLarge;
        let name_len = u16::try_from(name.as_str().len()).map_err(too_large)?;
        let value_len = u32::try_from(value.len()).map_err(too_large)?;
        bytes.extend_from_slice(&name_len.to_be_bytes());
        bytes.extend_from_slice(&value_len.to_be_bytes());
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(body);
    debug_assert_eq!(
        bytes.len(),
        exact,
        "the allocation is of exactly the right size"
    );
    Ok(Bytes::from(bytes))
}

/// Reads a response piece by piece, in its order: headers to the last one, then the body.
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    status: StatusCode,
    headers_left: u16,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Result<Self, Flaw> {
        let mut reader = Self {
            bytes,
            at: 0,
            status: StatusCode::OK,
            headers_left: 0,
        };
        match reader.array()? {
            [PLAIN] => {}
            [COMPRESSED | ENCRYPTED] => return Err(Flaw::Sealed),
            [version] => return Err(Flaw::Version(version)),
        }
        let status = u16::from_be_bytes(reader.array()?);
        reader.status = StatusCode::from_u16(status).map_err(|_| Flaw::Status)?;
        reader.headers_left = u16::from_be_bytes(reader.array()?);
        // Each takes at least its two lengths and one byte of name. Checked before any room is reserved.
        if usize::from(reader.headers_left) * (HEADER + 1) > bytes.len() - reader.at {
            return Err(Flaw::Truncated);
        }
        Ok(reader)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn headers_left(&self) -> usize {
        usize::from(self.headers_left)
    }

    pub(super) fn header(&mut self) -> Result<Option<(HeaderName, HeaderValue)>, Flaw> {
        if self.headers_left == 0 {
            return Ok(None);
        }
        self.headers_left -= 1;
        let name_len = u64::from(u16::from_be_bytes(self.array()?));
        let value_len = u64::from(u32::from_be_bytes(self.array()?));
        let name = HeaderName::from_bytes(&self.take(name_len)?).map_err(|_| Flaw::Header)?;
        let value = self.take(value_len)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Flaw::Header)?;
        Ok(Some((name, value)))
    }

    pub(super) fn body(mut self) -> Result<Bytes, Flaw> {
        let len = u64::from_be_bytes(self.array()?);
        let body = self.take(len)?;
        if self.at == self.bytes.len() {
            Ok(body)
        } else {
            Err(Flaw::Trailing)
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let array = self.bytes[self.at..].first_chunk().ok_or(Flaw::Truncated)?;
        self.at += N;
        Ok(*array)
    }

    /// The next `len` bytes, shared. Never moves past the end, so `at` is always in the bytes.
    fn take(&mut self, len: u64) -> Result<Bytes, Flaw> {
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= left)
            .ok_or(Flaw::Truncated)?;
        let start = self.at;
        self.at += len;
        Ok(self.bytes.slice(start..self.at))
    }
}
