//! The growth curves as pictures.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    element::{Circle, PathElement, Text},
    prelude::{IntoDrawingArea as _, IntoLogRange as _, LineSeries, RGBColor, SVGBackend, WHITE},
    style::{Color as _, IntoFont as _, ShapeStyle},
};

use crate::{
    peer::PeerKind,
    record::{Figure, Results},
    report::tables::number,
    workload::Workload,
};

const SIZE: (u32, u32) = (760, 380);
/// Where the plot ends and the names of its lines begin.
const PLOT_WIDTH: i32 = 580;
/// Colours that all eyes tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 4] =
    [RGBColor(213, 94, 0), RGBColor(86, 180, 233), RGBColor(0, 158, 115), RGBColor(130, 100, 160)];
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";

/// One picture: a figure, or several, along a curve. Both axes are logarithmic, so that what grows in proportion is a
/// straight line, and what stays flat is a level one.
struct Plot {
    file: &'static str,
    title: &'static str,
    workload: Workload,
    along: &'static str,
    /// What is shown, what it is multiplied with, and its name where there are several.
    figures: &'static [(Figure, f64, &'static str)],
}

const PLOTS: &[Plot] = &[
    Plot {
        file: "throughput-by-viewers.svg",
        title: "Deliveries per second, in thousands",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::DeliveriesPerSecond, 1e-3, "")],
    },
    Plot {
        file: "cpu-by-viewers.svg",
        title: "Server CPU per delivery, µs",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::CpuPerMillionS, 1.0, "")],
    },
    Plot {
        file: "latency-by-viewers.svg",
        title: "From sending to arrival, p99, 64 events outstanding, ms",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::LatencyP99Ms, 1.0, "")],
    },
    Plot {
        file: "memory-by-viewers.svg",
        title: "Server memory under load, MiB",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::ServerMib, 1.0, "")],
    },
    Plot {
        file: "cost-by-agents.svg",
        title: "5,000 events per second in all, from more and more agents",
        workload: Workload::GrowthAgents,
        along: "agents",
        figures: &[
            (Figure::CpuPerMillionS, 1.0, "server CPU per event, µs"),
            (Figure::AckP99Ms, 1.0, "ack p99, ms"),
            (Figure::ServerMib, 1.0, "server memory, MiB"),
        ],
    },
    Plot {
        file: "cost-by-log-length.svg",
        title: "Cost per event, µs, in batches of 256",
        workload: Workload::GrowthLog,
        along: "events in the log",
        figures: &[(Figure::AppendUs, 1.0, "append"), (Figure::ReadUs, 1.0, "read anywhere")],
    },
];

/// Draws every plot whose curve was measured.
pub(super) fn draw(results: &Results, folder: &Path) -> Result<()> {
    for plot in PLOTS {
        let lines = plot.lines(results);
        if !lines.is_empty() {
            // A drawing error borrows from the drawing.
            plot.draw(&lines, &folder.join(plot.file)).map_err(|error| anyhow!("{}: {error}", plot.file))?;
        }
    }
    Ok(())
}

/// A line's name and points.
type Line = (String, Vec<(f64, f64)>);

impl Plot {
    fn lines(&self, results: &Results) -> Vec<Line> {
        let several = self.workload.peers().len() > 1;
        let mut lines = Vec::new();
        for &peer in self.workload.peers() {
            let curve = results.curve(self.workload, peer);
            for &(figure, scale, name) in self.figures {
                // A logarithm has no place for nothing.
                let point = |(at, figures): &(u64, crate::record::Figures)| {
                    let at = *at as f64;
                    Some((at, figures.get(figure)? * scale)).filter(|(_, value)| *value > 0.0)
                };
                let points: Vec<_> = curve.iter().filter_map(point).collect();
                if !points.is_empty() {
                    lines.push((if several { title(peer) } else { name.to_owned() }, points));
                }
            }
        }
        lines
    }

    fn draw(&self, lines: &[Line], file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (along, up) = (range(lines, |point| point.0), range(lines, |point| point.1));
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(SIZE.0 - PLOT_WIDTH.unsigned_abs())
            .caption(self.title, (FONT, 17).into_font())
            .set_label_area_size(LabelAreaPosition::Left, 60)
            .set_label_area_size(LabelAreaPosition::Bottom, 42)
            .build_cartesian_2d((along.0..along.1).log_scale(), (up.0..up.1).log_scale())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(WHITE)
            .x_desc(self.along)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .draw()?;
        // The names stand beside the lines, not over them.
        let (left, mut down) = (PLOT_WIDTH + 8, 50);
        for ((name, points), colour) in lines.iter().zip(COLOURS) {
            let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, style)))?;
            area.draw(&PathElement::new([(left, down), (left + 18, down)], style))?;
            area.draw(&Text::new(name.clone(), (left + 24, down - 7), (FONT, 13)))?;
            down += 22;
        }
        area.present()?;
        Ok(())
    }
}

/// Whole powers of ten around all points, so that the axes have lines to read by.
fn range(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = || lines.iter().flat_map(|(_, points)| points.iter().map(of));
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let (least, most) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    (least, if most > least { most } else { least * 10.0 })
}

fn title(peer: PeerKind) -> String {
    peer.about().title.replace('*', "")
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", number(Some(value), 1e-6, 0))
    } else {
        let digits = if value >= 0.999 {
            0
        } else if value >= 0.0999 {
            1
        } else {
            2
        };
        number(Some(value), 1.0, digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_reach_from_one_power_of_ten_to_another() {
        let lines = [("a".to_owned(), vec![(1.0, 0.03), (4000.0, 7.0)])];
        let near =
            |(a, b): (f64, f64), (c, d): (f64, f64)| (a / c - 1.0).abs() < 1e-9 && (b / d - 1.0).abs() < 1e-9;
        assert!(near(range(&lines, |point| point.0), (1.0, 10_000.0)));
        assert!(near(range(&lines, |point| point.1), (0.01, 10.0)));
        assert!(near(range(&[("a".to_owned(), vec![(1.0, 1.0)])], |point| point.1), (1.0, 10.0)));
    }

    #[test]
    fn a_plot_names_its_lines_and_is_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plot.svg");
        let lines =
            [("ours".to_owned(), vec![(1.0, 2.0), (100.0, 3.0)]), ("theirs".to_owned(), vec![(1.0, 9.0)])];
        PLOTS[0].draw(&lines, &file).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for text in ["ours", "theirs", PLOTS[0].title, PLOTS[0].along] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn places_on_an_axis_are_short() {
        assert_eq!([0.01, 0.1, 1.0, 1_000.0, 1e7].map(short), ["0.01", "0.1", "1", "1,000", "10 M"]);
    }
}
