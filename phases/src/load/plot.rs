//! Plots as SVG: the geometry is made here, the markup by the page's template.

use serde::Serialize;

/// The drawing's size in its own units; the page scales it.
const SIZE: (f64, f64) = (720.0, 200.0);

/// Room for the labels of the axes: left and right, above and below.
const MARGIN: ((f64, f64), (f64, f64)) = ((52.0, 14.0), (12.0, 26.0));

/// A plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Plot {
    title: String,
    width: f64,
    height: f64,
    /// The inner part: left, right, top, bottom.
    frame: [f64; 4],
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    lines: Vec<Drawn>,
    /// The right edge of the part that does not count, if there is one.
    warm_up: Option<f64>,
    /// The target, if it is within the plot.
    limit: Option<Tick>,
}

/// A place on an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

/// A line as it is drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Drawn {
    label: String,
    /// What it is coloured by.
    class: String,
    /// The path's `d`.
    path: String,
}

/// A line to draw.
pub(super) struct Line<'a> {
    pub(super) label: &'a str,
    pub(super) class: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether it stays at a value until the next point.
    pub(super) steps: bool,
}

/// The axis to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum XAxis {
    /// Seconds since the end of the warm-up.
    Seconds,
    /// Percentiles, the higher ones spread out.
    Percentiles,
}

impl XAxis {
    fn scale(self, x: f64) -> f64 {
        match self {
            Self::Seconds => x,
            // 0, 90, 99 and 99.9 % have equal distances; 100 % is where 99.99 % would be.
            Self::Percentiles => (1.0 / (1.0 - x / 100.0)).log10().min(4.0),
        }
    }

    fn ticks(self, from: f64, to: f64) -> Vec<(f64, String)> {
        match self {
            Self::Seconds => steps(from, to, 8).into_iter().map(|x| (x, format!("{x} s"))).collect(),
            Self::Percentiles => [0.0, 50.0, 90.0, 95.0, 99.0, 99.9]
                .map(|x| (x, format!("{x} %")))
                .into_iter()
                .chain([(100.0, "max".to_owned())])
                .collect(),
        }
    }
}

impl Plot {
    /// Draws lines; `limit` is the target, with its name.
    pub(super) fn new(title: &str, axis: XAxis, lines: Vec<Line<'_>>, limit: Option<(f64, &str)>) -> Self {
        let points = || lines.iter().flat_map(|line| line.points.iter().copied());
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (first, last) = ends(&mut points().map(|(x, _)| x));
        let (first, last) = if first < last { (first, last) } else { (0.0, 1.0) };
        let (_, top) = ends(&mut points().map(|(_, y)| y));
        let y_steps = steps(0.0, if top > 0.0 { top } else { 1.0 }, 4);
        let highest = y_steps.last().copied().unwrap_or(1.0);
        let ((left, right), (above, below)) = MARGIN;
        let frame = [left, SIZE.0 - right, above, SIZE.1 - below];
        let place = |from: f64, to: f64, share: f64| round(from + share * (to - from));
        let span = (axis.scale(first), axis.scale(last));
        let x_at = |x: f64| place(frame[0], frame[1], (axis.scale(x) - span.0) / (span.1 - span.0));
        let y_at = |y: f64| place(frame[3], frame[2], y / highest);
        let draw = |line: &Line<'_>| {
            let mut path = String::new();
            for (i, (x, y)) in line.points.iter().map(|(x, y)| (x_at(*x), y_at(*y))).enumerate() {
                path += &match i {
                    0 => format!("M{x} {y}"),
                    _ if line.steps => format!("H{x}V{y}"),
                    _ => format!("L{x} {y}"),
                };
            }
            Drawn { label: line.label.to_owned(), class: line.class.to_owned(), path }
        };
        Self {
            title: title.to_owned(),
            width: SIZE.0,
            height: SIZE.1,
            frame,
            x_ticks: axis.ticks(first, last).into_iter().map(|(x, label)| Tick { at: x_at(x), label }).collect(),
            y_ticks: y_steps.iter().map(|y| Tick { at: y_at(*y), label: y.to_string() }).collect(),
            warm_up: (axis == XAxis::Seconds && first < 0.0).then(|| x_at(0.0)),
            limit: limit.filter(|(y, _)| *y <= highest).map(|(y, name)| Tick { at: y_at(y), label: name.to_owned() }),
            lines: lines.iter().map(draw).collect(),
        }
    }
}

/// Round values from below `from` (at least 0 stays 0) to above `to`, about `count` of them.
fn steps(from: f64, to: f64, count: u32) -> Vec<f64> {
    let rough = (to - from) / f64::from(count);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999).unwrap_or(10.0);
    let step = factor * power;
    let (first, last) = ((from / step).ceil() as i64, (to / step * 0.999_999).ceil() as i64);
    // Values such as 0.30000000000000004 are no labels.
    (first..=last).map(|i| (i as f64 * step * 1e6).round() / 1e6).collect()
}

/// Tenths are finer than what can be seen.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_labels() {
        assert_eq!(steps(0.0, 0.7, 4), [0.0, 0.2, 0.4, 0.6, 0.8]);
        assert_eq!(steps(0.0, 1000.0, 4), [0.0, 500.0, 1000.0]);
        assert_eq!(steps(-5.0, 30.0, 8), [-5.0, 0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
    }

    #[test]
    fn a_plot_without_points_is_an_empty_frame() {
        let plot = Plot::new("nothing", XAxis::Seconds, Vec::new(), Some((5.0, "target")));
        assert_eq!((plot.lines.len(), plot.limit, plot.warm_up), (0, None, None));
        assert!(plot.x_ticks.iter().all(|tick| tick.at.is_finite()));
    }

    #[test]
    fn lines_stay_within_the_frame() {
        let points = (-5..30).map(|x| (f64::from(x), f64::from(x * x))).collect();
        let plot = Plot::new("p", XAxis::Seconds, vec![Line { label: "a", class: "b", points, steps: true }], None);
        let [left, right, top, bottom] = plot.frame;
        let path = &plot.lines[0].path;
        let numbers = |mark: char| {
            path.split(mark)
                .skip(1)
                .filter_map(|rest| rest.split(['H', 'V', 'L', ' ']).next()?.parse::<f64>().ok())
                .collect::<Vec<_>>()
        };
        assert!(numbers('H').iter().all(|x| (left..=right).contains(x)), "{path}");
        assert!(numbers('V').iter().all(|y| (top..=bottom).contains(y)), "{path}");
    }
}
