//! The three encoders behind one face: bytes go in, what they have become comes out.
//!
//! Everything is written to memory. Windows are kept small, because a worker has many streams.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::accept::Encoding;

/// 100 MB/s; one more costs a fifth of the speed for a percent of the length.
const GZIP_LEVEL: u32 = 5;
/// 80 MB/s; one more is half as fast, and with this window its output is longer.
const BROTLI_QUALITY: u32 = 4;
/// 300 MB/s.
const ZSTD_LEVEL: i32 = 3;

/// 256 KiB, and below 1 MiB of memory for each stream. Brotli's usual one is 4 MiB, zstd's 2 MiB.
const WINDOW_LOG: u32 = 18;

/// Where brotli puts what it hands on.
const BROTLI_BUFFER: usize = 8 * 1024;

/// One stream.
pub(super) enum Encoder {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// Begins a stream.
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => {
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))))
            }
            Encoding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                WINDOW_LOG,
            ))),
            Encoding::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_LOG)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Takes bytes; returns what is finished, which may be nothing.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes)?,
            Self::Brotli(encoder) => encoder.write_all(bytes)?,
            Self::Zstd(encoder) => encoder.write_all(bytes)?,
        }
        Ok(self.take())
    }

    /// Returns everything that was written so far in a form that can be read.
    pub(super) fn flush(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.flush()?,
            Self::Brotli(encoder) => encoder.flush()?,
            Self::Zstd(encoder) => encoder.flush()?,
        }
        Ok(self.take())
    }

    /// Ends the stream.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
        }))
    }

    fn take(&mut self) -> Bytes {
        let written = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        Bytes::from(std::mem::take(written))
    }
}

/// What the tests read with.
#[cfg(test)]
pub(super) mod decode {
    use std::io::{self, Read, Write};

    use super::Encoding;

    /// All of a finished stream.
    pub(crate) fn whole(encoding: Encoding, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut read)?,
            Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut read)?,
            Encoding::Zstd => zstd::Decoder::new(bytes)?.read_to_end(&mut read)?,
        };
        Ok(read)
    }

    /// What can be read of the beginning of a stream.
    pub(crate) fn part(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut decoder = flate2::write::GzDecoder::new(Vec::new());
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
            Encoding::Brotli => {
                let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 4096);
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
            Encoding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).unwrap();
                decoder.write_all(bytes).unwrap();
                decoder.flush().unwrap();
                decoder.get_ref().clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    #[test]
    fn a_flush_makes_everything_readable() {
        for encoding in ALL {
            let mut encoder = Encoder::new(encoding).unwrap();
            let mut sent = Vec::new();
            for text in ["one", "two", "three"] {
                sent.extend_from_slice(&encoder.write(text.as_bytes()).unwrap());
                sent.extend_from_slice(&encoder.flush().unwrap());
                assert!(decode::part(encoding, &sent).ends_with(text.as_bytes()), "{encoding:?}");
            }
            sent.extend_from_slice(&encoder.finish().unwrap());
            assert_eq!(decode::whole(encoding, &sent).unwrap(), b"onetwothree");
        }
    }

    #[test]
    fn nothing_at_all_is_a_stream_too() {
        for encoding in ALL {
            let sent = Encoder::new(encoding).unwrap().finish().unwrap();
            assert!(!sent.is_empty());
            assert_eq!(decode::whole(encoding, &sent).unwrap(), b"");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_goes_in_comes_out(
            pieces in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..2000), any::<bool>()), 0..8,
            ),
        ) {
            for encoding in ALL {
                let mut encoder = Encoder::new(encoding).unwrap();
                let mut sent = Vec::new();
                for (piece, flush) in &pieces {
                    sent.extend_from_slice(&encoder.write(piece).unwrap());
                    if *flush {
                        sent.extend_from_slice(&encoder.flush().unwrap());
                    }
                }
                sent.extend_from_slice(&encoder.finish().unwrap());
                let whole: Vec<u8> =
                    pieces.iter().flat_map(|(piece, _)| piece).copied().collect();
                prop_assert_eq!(decode::whole(encoding, &sent).unwrap(), whole);
            }
        }
    }
}
