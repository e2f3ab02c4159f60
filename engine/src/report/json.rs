//! The events themselves, one JSON object a line.

use std::io::Write;

use jiff::Timestamp;

use super::Reporter;
use super::sink::Sink;
use crate::event::Event;

pub(crate) struct Json {
    out: Sink,
}

impl Json {
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Sink::new(out) }
    }
}

impl Reporter for Json {
    fn event(&mut self, event: &Event) {
        self.out.with(|out| {
            serde_json::to_writer(&mut *out, event)?;
            out.write_all(b"\n")
        });
    }

    fn tick(&mut self, _now: Timestamp) {
        self.out.flush();
    }

    fn is_silent(&self) -> bool {
        self.out.is_silent()
    }

    fn finish(&mut self) {
        self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use crate::event::Event;
    use crate::report::{Kind, testing};

    #[test]
    fn each_line_is_the_event_itself() {
        let story = testing::story();
        let (out, err) = testing::report(Kind::Json, &story);
        let read: Vec<Event> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, story);
        assert_eq!(err, "");
        testing::snapshots().bind(|| insta::assert_snapshot!("report_json", out));
    }
}
