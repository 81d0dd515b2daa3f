//! Loading over the number of paths, both axes logarithmic.

use std::error::Error;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
    RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::load::Measured;

const SIZE: (u32, u32) = (860, 520);
const STOCK: RGBColor = RGBColor(190, 60, 40);
const SIGNED: RGBColor = RGBColor(120, 120, 120);
const BYTECODE: RGBColor = RGBColor(60, 140, 70);
const NATIVE: RGBColor = RGBColor(30, 100, 170);

/// Draws those that have a number of paths.
pub fn write(path: &Path, measured: &[Measured]) -> Result<(), Box<dyn Error>> {
    let points = |value: fn(&Measured) -> Option<f64>| -> Vec<(f64, f64)> {
        let series = measured.iter();
        series
            .filter_map(|one| Some((f64::from(1 << one.path_bits?), value(one)?)))
            .collect()
    };
    let series = [
        ("BPF_PROG_LOAD", STOCK, points(|one| Some(one.stock()))),
        (
            "pre-verified, native, with the signature's check",
            SIGNED,
            points(Measured::signed),
        ),
        (
            "pre-verified, bytecode",
            BYTECODE,
            points(Measured::bytecode),
        ),
        ("pre-verified, native", NATIVE, points(Measured::native)),
    ];
    let all = || series.iter().flat_map(|(_, _, points)| points);
    let limits = |of: fn(&(f64, f64)) -> f64| {
        let values = all().map(of);
        values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (left, right) = limits(|point| point.0);
    let (bottom, top) = limits(|point| point.1);

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(
            (left..right).log_scale(),
            (bottom / 2.0..top * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("paths through the program")
        .y_desc("microseconds to load it (median)")
        .x_label_formatter(&|paths| format!("{paths:.0}"))
        .y_label_formatter(&|micros| format!("{micros:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, color, points) in &series {
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                color.stroke_width(2),
            ))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(
            points
                .iter()
                .map(|&point| Circle::new(point, 3, color.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
