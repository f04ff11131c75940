//! Lines in a picture.

use std::{error::Error, ops::Range, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    element::{Circle, PathElement, Text},
    prelude::{IntoDrawingArea as _, IntoLogRange as _, LineSeries, RGBColor, SVGBackend, WHITE},
    style::{Color as _, IntoFont as _, ShapeStyle},
};

use super::tables::number;

const SIZE: (u32, u32) = (760, 380);
/// Where the plot ends and the names of its lines begin.
const PLOT_WIDTH: i32 = 580;
/// Colours that all eyes tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 4] =
    [RGBColor(213, 94, 0), RGBColor(86, 180, 233), RGBColor(0, 158, 115), RGBColor(130, 100, 160)];
const GRID: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";
/// Lines of more points than this are drawn without them.
const FEW: usize = 20;

/// A line's name and points.
pub(super) type Line = (String, Vec<(f64, f64)>);

/// What is drawn.
pub(super) struct Picture<'a> {
    pub(super) title: &'a str,
    /// What the horizontal axis is.
    pub(super) along: &'a str,
    pub(super) lines: &'a [Line],
}

impl Picture<'_> {
    /// Draws it with two logarithmic axes.
    pub(super) fn draw_logarithmic(&self, file: &Path) -> Result<()> {
        let (along, up) = (decades(self.lines, |point| point.0), decades(self.lines, |point| point.1));
        self.draw(file, along.log_scale(), up.log_scale())
    }

    /// Draws it with two plain axes that begin at zero.
    pub(super) fn draw_linear(&self, file: &Path) -> Result<()> {
        let most = |of: fn(&(f64, f64)) -> f64| {
            let points = self.lines.iter().flat_map(|(_, points)| points);
            points.map(of).fold(1e-9, f64::max)
        };
        self.draw(file, 0.0..most(|point| point.0), 0.0..1.1 * most(|point| point.1))
    }

    fn draw<X, Y>(&self, file: &Path, along: X, up: Y) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        // A drawing error borrows from the drawing.
        self.try_draw(file, along, up).map_err(|error| anyhow!("{}: {error}", file.display()))
    }

    fn try_draw<X, Y>(&self, file: &Path, along: X, up: Y) -> Result<(), Box<dyn Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(SIZE.0 - PLOT_WIDTH.unsigned_abs())
            .caption(self.title, (FONT, 17).into_font())
            .set_label_area_size(LabelAreaPosition::Left, 60)
            .set_label_area_size(LabelAreaPosition::Bottom, 42)
            .build_cartesian_2d(along, up)?;
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
        for ((name, points), colour) in self.lines.iter().zip(COLOURS) {
            let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            if points.len() <= FEW {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, style)))?;
            }
            area.draw(&PathElement::new([(left, down), (left + 18, down)], style))?;
            area.draw(&Text::new(name.clone(), (left + 24, down - 7), (FONT, 13)))?;
            down += 22;
        }
        area.present()?;
        Ok(())
    }
}

/// Whole powers of ten around all points, so that the axes have lines to read by.
fn decades(lines: &[Line], of: fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = || lines.iter().flat_map(|(_, points)| points.iter().map(of));
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let (least, most) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    least..if most > least { most } else { least * 10.0 }
}

fn short(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value >= 1e6 {
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
        let near = |range: Range<f64>, start: f64, end: f64| {
            (range.start / start - 1.0).abs() < 1e-9 && (range.end / end - 1.0).abs() < 1e-9
        };
        assert!(near(decades(&lines, |point| point.0), 1.0, 10_000.0));
        assert!(near(decades(&lines, |point| point.1), 0.01, 10.0));
        assert!(near(decades(&[("a".to_owned(), vec![(1.0, 1.0)])], |point| point.1), 1.0, 10.0));
    }

    #[test]
    fn a_picture_names_its_lines_whatever_its_axes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("picture.svg");
        let lines =
            [("ours".to_owned(), vec![(1.0, 2.0), (100.0, 3.0)]), ("theirs".to_owned(), vec![(1.0, 9.0)])];
        let picture = Picture { title: "Something measured", along: "something counted", lines: &lines };
        for draw in [Picture::draw_linear, Picture::draw_logarithmic] {
            draw(&picture, &file).unwrap();
            let svg = std::fs::read_to_string(&file).unwrap();
            for text in ["ours", "theirs", picture.title, picture.along] {
                assert!(svg.contains(text), "{text}");
            }
        }
    }

    #[test]
    fn places_on_an_axis_are_short() {
        assert_eq!(
            [0.0, 0.01, 0.1, 1.0, 1_000.0, 1e7].map(short),
            ["0", "0.01", "0.1", "1", "1,000", "10 M"]
        );
    }
}
