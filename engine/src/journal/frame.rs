//! Frames: how they are laid out, and how a reader tells a torn tail from damage.

use std::io::{self, Read};
use std::path::Path;

use super::error::{BoxError, JournalError};
use super::header::read_u32;

/// The most bytes that one frame can carry: 256 MiB.
pub const MAX_PAYLOAD: usize = 256 << 20;

const MARKER: [u8; 8] = *b"\xF5\xAAtrfr\xAA\xFF";
/// Marker, generation, sequence, length, checksum.
const HEADER: usize = 32;
/// The part of the header that its own checksum covers.
const CHECKED: usize = 28;
pub(super) const CHECKSUM: usize = 4;
/// How many bytes are read at once.
const CHUNK: usize = 1 << 20;

/// Which frame it is: the identity that each frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: u64,
    pub(super) seq: u64,
}

/// Where the intact frames of a file end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The end of the last intact frame, in bytes from the start of what was read.
    pub(super) at: usize,
    /// What the next frame has to be.
    pub(super) next: Place,
    /// The checksum of the last intact frame, if there is one.
    pub(super) checksum: Option<[u8; CHECKSUM]>,
}

/// What stands at a place where a frame may begin.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    /// The frame that is due.
    Frame { payload: &'a [u8], end: usize },
    /// Nothing, or a frame that was not finished; nothing was written after it.
    Tail,
    /// Something that no crash of a writer leaves.
    Damage { expected: String },
}

/// A frame header that fits its checksum.
struct FrameHeader {
    place: Place,
    length: usize,
}

/// The bytes of the frame `place` with `payload`, of at most [`MAX_PAYLOAD`] bytes.
pub(super) fn encode(place: Place, payload: &[u8]) -> Result<Vec<u8>, JournalError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(JournalError::TooLarge { bytes: payload.len() });
    }
    let mut frame = Vec::with_capacity(HEADER + payload.len() + CHECKSUM);
    frame.extend(MARKER);
    frame.extend(place.generation.to_le_bytes());
    frame.extend(place.seq.to_le_bytes());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    Ok(frame)
}

/// Hands the intact frames that `reader` gives to `each` with their sequence numbers, the first of which is `next`. In
/// memory it holds little more than one frame at a time.
///
/// What `reader` gives stood in `path` from `base` on and reaches to its end.
///
/// # Errors
/// [`JournalError::Damaged`], [`JournalError::Io`], and [`JournalError::Record`] when `each` fails.
pub(super) fn fold(
    path: &Path,
    mut reader: impl Read,
    base: u64,
    mut next: Place,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), BoxError>,
) -> Result<End, JournalError> {
    let mut window = Window::default();
    let mut checksum = None;
    loop {
        let offset = base + window.start as u64 + window.at as u64;
        match find(&window.bytes, window.at, next) {
            Found::Frame { payload, end } => {
                each(next.seq, payload).map_err(|source| JournalError::Record {
                    path: path.to_owned(),
                    seq: next.seq,
                    offset,
                    source,
                })?;
                next.seq += 1;
                checksum = window.bytes[..end].last_chunk().copied();
                window.at = end;
            }
            // Only who has seen the end of the file can tell.
            _ if !window.ends => window.grow(&mut reader).map_err(JournalError::io("read", path))?,
            Found::Tail => return Ok(End { at: window.start + window.at, next, checksum }),
            Found::Damage { expected } => return Err(JournalError::damaged(path, offset, expected)),
        }
    }
}

/// The part of a file that is being looked at.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    /// Where it begins, in bytes from the start of what is read.
    start: usize,
    /// How much of it was dealt with.
    at: usize,
    /// Whether it reaches to the end of the file.
    ends: bool,
}

impl Window {
    /// Forgets what was dealt with, and at least doubles what is left: to find the end of a long frame takes a few reads.
    fn grow(&mut self, reader: &mut impl Read) -> io::Result<()> {
        self.bytes.drain(..self.at);
        self.start += self.at;
        self.at = 0;
        let more = self.bytes.len().max(CHUNK);
        self.ends = reader.take(more as u64).read_to_end(&mut self.bytes)? < more;
        Ok(())
    }
}

fn find(bytes: &[u8], at: usize, due: Place) -> Found<'_> {
    let damage = |expected: &str| Found::Damage { expected: format!("frame {} {expected}", due.seq) };
    let Some(header) = FrameHeader::read(&bytes[at..]) else {
        return if follower_exists(bytes, at, due) { damage("with an intact header") } else { Found::Tail };
    };
    if header.place != due {
        let Place { generation, seq } = header.place;
        return damage(&format!("of generation {}, not frame {seq} of generation {generation}", due.generation));
    }
    if header.length > MAX_PAYLOAD {
        return damage(&format!("of at most {MAX_PAYLOAD} bytes, not of {}", header.length));
    }
    let body = at + HEADER + header.length;
    let Some(checksum) = bytes.get(body..body + CHECKSUM) else {
        return Found::Tail;
    };
    let end = body + CHECKSUM;
    if crc32fast::hash(&bytes[at..body]) == read_u32(checksum) {
        return Found::Frame { payload: &bytes[at + HEADER..body], end };
    }
    if end == bytes.len() { Found::Tail } else { damage("that fits its checksum") }
}

/// Whether the header of frame `due` or a later one stands anywhere behind `at`.
fn follower_exists(bytes: &[u8], at: usize, due: Place) -> bool {
    let behind = &bytes[at..];
    let starts = behind.windows(MARKER.len()).enumerate().filter(|(_, window)| *window == MARKER);
    starts
        .filter_map(|(start, _)| FrameHeader::read(&behind[start..]))
        .any(|FrameHeader { place, .. }| place.generation == due.generation && place.seq >= due.seq)
}

impl FrameHeader {
    /// The header at the start of `bytes`, if there is an intact one.
    fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let intact = header.starts_with(&MARKER) && crc32fast::hash(&header[..CHECKED]) == read_u32(&header[CHECKED..]);
        let read_u64 = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        intact.then(|| Self {
            place: Place { generation: read_u64(8), seq: read_u64(16) },
            length: read_u32(&header[24..CHECKED]) as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Place = Place { generation: 3, seq: 7 };

    fn frame(seq: u64, payload: &[u8]) -> Vec<u8> {
        encode(Place { seq, ..FIRST }, payload).unwrap()
    }

    type Frames = Vec<(u64, Vec<u8>)>;

    fn fold_all(bytes: &[u8]) -> Result<(Frames, End), JournalError> {
        let mut frames = Frames::new();
        let end = fold(Path::new("journal"), bytes, 100, FIRST, |seq, payload| {
            frames.push((seq, payload.to_vec()));
            Ok(())
        })?;
        Ok((frames, end))
    }

    #[test]
    fn frames_come_back_in_order() {
        let bytes = [frame(7, b"a"), frame(8, b""), frame(9, &[0xF5; 100])].concat();
        let (frames, end) = fold_all(&bytes).unwrap();
        assert_eq!(frames, [(7, b"a".to_vec()), (8, Vec::new()), (9, vec![0xF5; 100])]);
        assert_eq!(
            end,
            End { at: bytes.len(), next: Place { seq: 10, ..FIRST }, checksum: bytes.last_chunk().copied() }
        );
    }

    #[test]
    fn the_header_of_a_torn_follower_proves_damage() {
        let mut bytes = [frame(7, b"durable"), frame(8, b"torn")].concat();
        bytes.truncate(bytes.len() - 6);
        assert_eq!(fold_all(&bytes).unwrap().0.len(), 1);
        bytes[0] ^= 1;
        assert_eq!(
            fold_all(&bytes).unwrap_err().to_string(),
            "journal is damaged at byte 100: expected frame 7 with an intact header"
        );
    }

    #[test]
    fn a_bad_payload_with_anything_behind_it_is_damage() {
        let mut bytes = frame(7, b"durable");
        bytes[HEADER] ^= 1;
        assert_eq!(fold_all(&bytes).unwrap().1.at, 0);
        bytes.push(MARKER[0]);
        assert_eq!(
            fold_all(&bytes).unwrap_err().to_string(),
            "journal is damaged at byte 100: expected frame 7 that fits its checksum"
        );
    }

    #[test]
    fn a_torn_frame_may_carry_what_looks_like_a_later_frame() {
        let mut bytes = frame(7, &frame(8, b"a journal within"));
        bytes.truncate(bytes.len() - 1);
        assert_eq!(fold_all(&bytes).unwrap().1.at, 0);
    }

    #[test]
    fn frames_out_of_order_are_damage() {
        let twice = [frame(7, b"a"), frame(7, b"a")].concat();
        let error = fold_all(&twice).unwrap_err().to_string();
        assert_eq!(
            error,
            "journal is damaged at byte 137: expected frame 8 of generation 3, not frame 7 of generation 3"
        );
        let old = encode(Place { generation: 2, seq: 7 }, b"a").unwrap();
        assert!(fold_all(&old).is_err());
    }

    #[test]
    fn bytes_put_in_or_taken_out_are_damage() {
        let inserted = [b"junk".as_slice(), &frame(7, b"a")].concat();
        assert!(fold_all(&inserted).is_err());
        let removed = [&frame(7, b"a")[..20], &frame(1000, b"b")].concat();
        assert!(fold_all(&removed).is_err());
    }

    #[test]
    fn frames_longer_than_a_read_come_back_whole() {
        let long = |byte: u8, chunks: usize| vec![byte; chunks * CHUNK + 7];
        let payloads = [long(1, 0), long(2, 3), long(3, 1), long(4, 0)];
        let frames: Vec<_> = (7..).zip(&payloads).map(|(seq, payload)| frame(seq, payload)).collect();
        let mut bytes = frames.concat();
        assert!(fold_all(&bytes).unwrap().0.iter().map(|(_, payload)| payload).eq(&payloads));
        let second = frames[0].len() as u64 + 100;
        bytes[frames[0].len() + 2 * CHUNK] ^= 1;
        assert_eq!(
            fold_all(&bytes).unwrap_err().to_string(),
            format!("journal is damaged at byte {second}: expected frame 8 that fits its checksum")
        );
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let mut bytes = frame(7, b"a");
        let end = bytes.len();
        bytes.resize(end + 5000, 0);
        assert_eq!(fold_all(&bytes).unwrap().1.at, end);
    }

    #[test]
    fn a_frame_is_bounded() {
        let payload = vec![0; MAX_PAYLOAD + 1];
        assert!(matches!(encode(FIRST, &payload), Err(JournalError::TooLarge { .. })));

        let mut bytes = frame(7, b"a");
        bytes[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKED]);
        bytes[CHECKED..HEADER].copy_from_slice(&checksum.to_le_bytes());
        assert!(fold_all(&bytes).unwrap_err().to_string().contains("at most 268435456 bytes, not of 4294967295"));
    }
}
