//! The three charts, as SVG: each against the number of connections, for each workload.

use anyhow::{anyhow, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::{Row, Workload, CONNECTIONS, WORKLOADS};

const SHARED: RGBColor = RGBColor(0xc2, 0x41, 0x0c);
const UNSHARED: RGBColor = RGBColor(0x47, 0x55, 0x69);
const INK: RGBColor = RGBColor(0x1e, 0x29, 0x3b);
const GRID: RGBColor = RGBColor(0xe2, 0xe8, 0xf0);

type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Names of files, and what is in them.
pub fn all(rows: &[Row]) -> Result<[(&'static str, String); 3]> {
    let millis = |row: &Row| row.p99 as f64 / 1000.0;
    let percent = |row: &Row| 100.0 * row.queries_each();
    let chart = |title, value: &dyn Fn(&Row) -> f64| {
        draw(rows, title, value).map_err(|error| anyhow!("{title}: {error}"))
    };
    Ok([
        ("throughput.svg", chart("Requests per second", &Row::throughput)?),
        ("p99.svg", chart("99 of 100 requests took at most, in ms", &millis)?),
        ("queries.svg", chart("Queries for 100 requests", &percent)?),
    ])
}

fn draw(rows: &[Row], title: &str, value: &dyn Fn(&Row) -> f64) -> Drawn<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1000, 400)).into_drawing_area();
        // Readable on a dark page, too.
        area.fill(&WHITE)?;
        area.draw(&Text::new(title, (20, 18), text(18)))?;
        let (_, area) = area.split_vertically(44);
        let panels = area.split_evenly((1, WORKLOADS.len()));
        for (panel, workload) in panels.iter().zip(WORKLOADS) {
            draw_panel(panel, rows, workload, value)?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    rows: &[Row],
    workload: Workload,
    value: &dyn Fn(&Row) -> f64,
) -> Drawn<()> {
    let of_panel = |row: &&Row| row.setup.workload == workload;
    let rows: Vec<_> = rows.iter().filter(of_panel).collect();
    let highest = rows.iter().map(|row| value(row)).fold(0.0, f64::max);
    let connections = CONNECTIONS.map(f64::from);
    let mut chart = ChartBuilder::on(area)
        .caption(workload.to_string(), text(15))
        .margin(10)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(
            (connections[0]..connections[3]).log_scale().base(2.0),
            // Room for the legend.
            0.0..highest * 1.5,
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(UNSHARED)
        .label_style(text(13))
        .x_desc("connections")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    // Shared on top.
    for (shared, cache, name) in [
        (false, false, "unshared, no cache"),
        (false, true, "unshared, cache"),
        (true, false, "shared, no cache"),
        (true, true, "shared, cache"),
    ] {
        let color = if shared { SHARED } else { UNSHARED };
        let style = color.stroke_width(if cache { 1 } else { 3 });
        let of_line = |row: &&&Row| (row.setup.shared, row.setup.cache) == (shared, cache);
        let at = |row: &&Row| (f64::from(row.setup.connections), value(row));
        let points: Vec<_> = rows.iter().filter(of_line).map(at).collect();
        let dots = points.iter().map(|at| Circle::new(*at, 3, style.filled()));
        chart.draw_series(dots)?;
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font(text(12))
        .legend_area_size(30)
        .draw()?;
    Ok(())
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}
