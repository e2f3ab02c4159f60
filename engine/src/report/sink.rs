//! A stream that goes silent once it fails.

use std::io::{self, BufWriter, Write};

/// Buffers what is written; after the first error it drops everything, because whoever read has gone.
pub(crate) struct Sink(Option<BufWriter<Box<dyn Write + Send>>>);

impl Sink {
    pub(crate) fn new(stream: Box<dyn Write + Send>) -> Self {
        Self(Some(BufWriter::with_capacity(64 * 1024, stream)))
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.with(|stream| {
            stream.write_all(line.as_bytes())?;
            stream.write_all(b"\n")
        });
    }

    pub(crate) fn flush(&mut self) {
        self.with(|stream| stream.flush());
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn with(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>) {
        let Some(stream) = &mut self.0 else { return };
        if write(stream).is_err() {
            // `into_parts` keeps the buffer from being written once more when it is dropped.
            drop(self.0.take().map(BufWriter::into_parts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Closed(Arc<AtomicU32>);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_tried_once() {
        let tries = Arc::new(AtomicU32::new(0));
        let mut sink = Sink::new(Box::new(Closed(Arc::clone(&tries))));
        for _ in 0..3 {
            sink.line("gone");
            sink.flush();
        }
        assert!(sink.is_silent());
        drop(sink);
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }
}
