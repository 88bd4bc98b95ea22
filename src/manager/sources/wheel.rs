//! Takes files out of a Python wheel, which is a ZIP archive (PKWARE APPNOTE 6.3, §4.3). Reads nothing else of it.
//!
//! An archive comes from a stranger: names are never used as paths (the caller says what it wants and where), sizes
//! are those the caller allows, every content is checked against its CRC-32, and what this reader does not know (more
//! than one volume, encryption, other methods than stored and deflated, 64-bit sizes) is refused.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Crc;
use flate2::read::DeflateDecoder;

/// The end record is this long, plus a comment of at most 65,535 bytes.
const END_RECORD: u64 = 22;
/// The largest directory that is read.
const DIRECTORY_BYTES: u64 = 16 << 20;

/// An opened archive: its directory.
pub(crate) struct Wheel {
    file: File,
    members: Vec<Member>,
}

/// A file in the archive, as its directory says.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its name there; not to be used as a path.
    pub name: String,
    /// Bytes when unpacked.
    pub bytes: u64,
    packed_bytes: u64,
    offset: u64,
    crc: u32,
    method: u16,
}

impl Wheel {
    /// Reads the directory.
    ///
    /// # Errors
    /// `InvalidData` if it is no archive, or one of a kind that is not read here.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let (offset, size, count) = end_record(&mut file, length)?;
        if size > DIRECTORY_BYTES || offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(damaged("its directory lies outside of it"));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut directory =
            vec![0; usize::try_from(size).map_err(|_| damaged("its directory is too large"))?];
        file.read_exact(&mut directory)?;
        let mut rest = directory.as_slice();
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(member(&mut rest)?);
        }
        Ok(Self { file, members })
    }

    /// The files in it, in the directory's order.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Unpacks one file to `target`, which must not exist.
    ///
    /// # Errors
    /// `InvalidData` if its size or CRC-32 is not what the directory says.
    pub(crate) fn unpack(&mut self, member: &Member, target: &Path) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(member.offset))?;
        let mut header = [0; 30];
        self.file.read_exact(&mut header)?;
        if header[..4] != *b"PK\x03\x04" {
            return Err(damaged("a file in it is not where its directory says"));
        }
        let skip = i64::from(two(&header[26..])) + i64::from(two(&header[28..]));
        self.file.seek(SeekFrom::Current(skip))?;
        let packed = (&mut self.file).take(member.packed_bytes);
        let mut content: Box<dyn Read + '_> = match member.method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(packed)),
            other => return Err(damaged(&format!("a file in it is packed by method {other}"))),
        };
        let mut out = File::options().write(true).create_new(true).open(target)?;
        let mut crc = Crc::new();
        let mut written = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            written += read as u64;
            if written > member.bytes {
                return Err(damaged("a file in it is larger than its directory says"));
            }
            crc.update(&buffer[..read]);
            out.write_all(&buffer[..read])?;
        }
        if written != member.bytes || crc.sum() != member.crc {
            return Err(damaged("a file in it is not what its directory says"));
        }
        out.sync_all()
    }
}

/// (offset of the directory, its size, its entries)
fn end_record(file: &mut File, length: u64) -> io::Result<(u64, u64, u16)> {
    let tail = length.min(END_RECORD + u64::from(u16::MAX));
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    file.take(tail).read_to_end(&mut bytes)?;
    let start = bytes
        .windows(END_RECORD as usize)
        .rposition(|window| window[..4] == *b"PK\x05\x06")
        .ok_or_else(|| damaged("it has no directory"))?;
    let record = &bytes[start..];
    let (disk, count, size, offset) =
        (two(&record[4..]), two(&record[10..]), four(&record[12..]), four(&record[16..]));
    if disk != 0 || count == u16::MAX || size == u32::MAX || offset == u32::MAX {
        return Err(damaged("it is in several parts, or has 64-bit sizes"));
    }
    Ok((offset.into(), size.into(), count))
}

/// Takes one entry off the front of the directory.
fn member(rest: &mut &[u8]) -> io::Result<Member> {
    let cut = || damaged("its directory is cut off");
    let entry = rest.get(..46).filter(|entry| entry[..4] == *b"PK\x01\x02").ok_or_else(cut)?;
    let (flags, method) = (two(&entry[8..]), two(&entry[10..]));
    let (crc, packed, bytes) = (four(&entry[16..]), four(&entry[20..]), four(&entry[24..]));
    let (name, extra, comment) = (two(&entry[28..]), two(&entry[30..]), two(&entry[32..]));
    let offset = four(&entry[42..]);
    if flags & 1 != 0 || [packed, bytes, offset].contains(&u32::MAX) {
        return Err(damaged("a file in it is encrypted, or has a 64-bit size"));
    }
    let end = 46 + usize::from(name);
    let name = rest.get(46..end).ok_or_else(cut)?;
    let name = String::from_utf8(name.to_vec()).map_err(|_| damaged("a name in it is not UTF-8"))?;
    *rest = rest.get(end + usize::from(extra) + usize::from(comment)..).ok_or_else(cut)?;
    Ok(Member { name, bytes: bytes.into(), packed_bytes: packed.into(), offset: offset.into(), crc, method })
}

fn two(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn four(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the wheel cannot be read: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    /// An archive of one file, as the format's description says, with fields that a test can falsify.
    struct Archive {
        method: u16,
        flags: u16,
        bytes: u32,
        crc: u32,
        packed: Vec<u8>,
    }

    impl Archive {
        fn of(content: &[u8]) -> Self {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            let mut crc = Crc::new();
            crc.update(content);
            let bytes = u32::try_from(content.len()).unwrap();
            Self { method: 8, flags: 0, bytes, crc: crc.sum(), packed: encoder.finish().unwrap() }
        }

        fn write(&self) -> Vec<u8> {
            let name = b"pkg/model.gguf";
            let mut all = b"PK\x03\x04".to_vec();
            all.extend([0; 22]);
            all.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            all.extend([0; 2]);
            all.extend(name);
            all.extend(&self.packed);
            let offset = u32::try_from(all.len()).unwrap();
            all.extend(b"PK\x01\x02\x14\0\x14\0");
            for number in [self.flags, self.method, 0, 0] {
                all.extend(number.to_le_bytes());
            }
            for number in [self.crc, u32::try_from(self.packed.len()).unwrap(), self.bytes] {
                all.extend(number.to_le_bytes());
            }
            all.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            all.extend([0; 12]);
            all.extend([0; 4]);
            all.extend(name);
            let size = u32::try_from(all.len()).unwrap() - offset;
            all.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
            all.extend(size.to_le_bytes());
            all.extend(offset.to_le_bytes());
            all.extend([0; 2]);
            all
        }
    }

    fn unpack(archive: &[u8]) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        std::fs::write(&path, archive).unwrap();
        let mut wheel = Wheel::open(&path)?;
        let member = wheel.members()[0].clone();
        let target = folder.path().join("out");
        wheel.unpack(&member, &target)?;
        std::fs::read(target)
    }

    #[test]
    fn what_was_packed_comes_out() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(unpack(&Archive::of(&content).write()).unwrap(), content);
        let stored = Archive { method: 0, packed: content.clone(), ..Archive::of(&content) };
        assert_eq!(unpack(&stored.write()).unwrap(), content);
    }

    #[test]
    fn what_is_not_as_the_directory_says_is_refused() {
        let zeros = vec![0; 10 << 20];
        let bomb = Archive { bytes: 1000, ..Archive::of(&zeros) };
        assert!(unpack(&bomb.write()).unwrap_err().to_string().contains("larger"));
        for archive in [
            Archive { crc: 1, ..Archive::of(b"content") },
            Archive { bytes: 100, ..Archive::of(b"content") },
            Archive { method: 14, ..Archive::of(b"content") },
            Archive { flags: 1, ..Archive::of(b"content") },
            Archive { bytes: u32::MAX, ..Archive::of(b"content") },
            Archive { packed: b"not deflated".to_vec(), ..Archive::of(b"content") },
        ] {
            assert!(unpack(&archive.write()).is_err());
        }
    }

    #[test]
    fn an_archive_cut_or_changed_anywhere_never_panics() {
        let whole = Archive::of(b"some content").write();
        for end in 0..whole.len() {
            assert!(unpack(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            // Some bytes (dates, versions) mean nothing here; what comes out is then what was packed.
            if let Ok(content) = unpack(&changed) {
                assert_eq!(content, b"some content", "changed at {at}");
            }
        }
    }
}
