//! The text format of Prometheus, version 0.0.4.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use super::number::{ByLabel, Histogram, Number};

/// The text, family by family.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn counter(&mut self, name: &str, help: &str, number: &Number) {
        self.value(name, "counter", help, number.load(Relaxed) as f64);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, number: &Number) {
        self.value(name, "gauge", help, number.load(Relaxed) as f64);
    }

    pub(super) fn value(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    pub(super) fn labelled(&mut self, name: &str, help: &str, label: &str, numbers: &ByLabel) {
        self.family(name, "counter", help);
        for (value, number) in numbers.all() {
            self.line(format_args!("{name}{{{label}=\"{value}\"}} {number}"));
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (bounds, count, sum) = histogram.cumulative();
        for (bound, below) in bounds {
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {sum}"));
        self.line(format_args!("{name}_count {count}"));
    }

    pub(super) fn done(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_help_its_type_and_its_values() {
        let (mut text, labels, histogram) =
            (Text::default(), ByLabel::default(), Histogram::new(&[0.5, 1.0]));
        text.counter("a_total", "as", &Number::new(3));
        labels.add("x".to_owned());
        text.labelled("b_total", "bs", "code", &labels);
        histogram.record(0.75);
        text.histogram("c", "cs", &histogram);
        let expected = "# HELP a_total as\n# TYPE a_total counter\na_total 3\n\
            # HELP b_total bs\n# TYPE b_total counter\nb_total{code=\"x\"} 1\n\
            # HELP c cs\n# TYPE c histogram\nc_bucket{le=\"0.5\"} 0\nc_bucket{le=\"1\"} 1\nc_bucket{le=\"+Inf\"} 1\n\
            c_sum 0.75\nc_count 1\n";
        assert_eq!(text.done(), expected);
    }
}
