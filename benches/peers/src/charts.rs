//! The three charts, as SVG.

use std::error::Error;

use peers::{LITERAL, SHARED_CALLS};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failing::{self, CALLERS};
use crate::lone::Lone;
use crate::release::{self, FOLLOWERS};

type Chart = Result<String, Box<dyn Error>>;

const OURS: RGBColor = RGBColor(0xc2, 0x41, 0x0c);
/// The main peer's.
const MAIN: RGBColor = RGBColor(0x25, 0x63, 0xeb);
const PEER: RGBColor = RGBColor(0x94, 0xa3, 0xb8);
const FLOOR: RGBColor = RGBColor(0x47, 0x55, 0x69);
const INK: RGBColor = RGBColor(0x1e, 0x29, 0x3b);
const GRID: RGBColor = RGBColor(0xe2, 0xe8, 0xf0);
/// Of the peers' lines, which have to be told apart.
const LINES: [RGBColor; 7] = [
    RGBColor(0x15, 0x80, 0x3d),
    RGBColor(0xa2, 0x1c, 0xaf),
    RGBColor(0x0e, 0x74, 0x90),
    RGBColor(0xa1, 0x62, 0x07),
    RGBColor(0x6d, 0x28, 0xd9),
    RGBColor(0xbe, 0x18, 0x5d),
    RGBColor(0x4d, 0x7c, 0x0f),
];

const WIDTH: i32 = 800;

pub fn lone(lone: &Lone) -> Chart {
    let mut bars = vec![Bar {
        name: "two lock/unlock pairs".to_owned(),
        length: lone.floor,
        says: format!("{:.0} ns", lone.floor),
        color: FLOOR,
    }];
    for row in &lone.rows {
        let keeps = if row.keeps_values { " (keeps it)" } else { "" };
        let allocations = row.text.allocations.round();
        let ending = if allocations == 1.0 { "" } else { "s" };
        bars.push(Bar {
            name: format!("{}{keeps}", row.name),
            length: row.text.nanos,
            says: format!("{:.0} ns, {allocations} allocation{ending}", row.text.nanos),
            color: color(row.name),
        });
    }
    // After the floor, ours and the main peer, which are the first rows.
    bars[3..].sort_by(|a, b| a.length.total_cmp(&b.length));
    draw_bars("The cost of a lone call", &bars)
}

pub fn failing(rows: &[failing::Row]) -> Chart {
    let mut bars: Vec<_> = rows
        .iter()
        .map(|row| {
            let ending = if row.runs == 1 { "" } else { "s" };
            Bar {
                name: row.name.to_owned(),
                length: row.loads_long,
                says: format!("{} run{ending}, {:.1} × the time", row.runs, row.loads_long),
                color: color(row.name),
            }
        })
        .collect();
    // To a tenth: what is less is noise, and would shuffle the rows. Ours come first of equals.
    bars.sort_by_key(|bar| (bar.length * 10.0).round() as u64);
    draw_bars(&format!("One load that fails, {CALLERS} callers: until the last is told"), &bars)
}

fn color(name: &str) -> RGBColor {
    match name {
        SHARED_CALLS => OURS,
        LITERAL => MAIN,
        _ => PEER,
    }
}

struct Bar {
    name: String,
    length: f64,
    says: String,
    color: RGBColor,
}

fn draw_bars(title: &str, bars: &[Bar]) -> Chart {
    const TOP: i32 = 56;
    const EACH: i32 = 30;
    const LEFT: i32 = 260;
    /// For what the longest bar says.
    const RIGHT: i32 = 180;
    let height = TOP + EACH * bars.len() as i32 + 14;
    let longest = bars.iter().map(|bar| bar.length).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = canvas(&mut svg, height, title)?;
        for (i, bar) in bars.iter().enumerate() {
            let top = TOP + EACH * i as i32;
            let middle = top + EACH / 2;
            let end = LEFT + ((WIDTH - LEFT - RIGHT) as f64 * bar.length / longest) as i32;
            area.draw(&Rectangle::new(
                [(LEFT, top + 5), (end.max(LEFT + 1), top + EACH - 5)],
                bar.color.filled(),
            ))?;
            let name = text(14, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(&*bar.name, (LEFT - 10, middle), name))?;
            let says = text(13, INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(&*bar.says, (end + 8, middle), says))?;
        }
        area.present()?;
    }
    Ok(svg)
}

pub fn release(rows: &[release::Row]) -> Chart {
    let (first, last) = (FOLLOWERS[1], FOLLOWERS[FOLLOWERS.len() - 1]);
    let line = |row: &release::Row| -> Vec<(f64, f64)> {
        let sizes = FOLLOWERS.iter().zip(&row.of).skip(1);
        sizes.map(|(followers, release)| (*followers as f64, release.last * 1e6)).collect()
    };
    // Of those whose followers all run their own function there is no release.
    let rows: Vec<_> =
        rows.iter().filter(|row| (1..FOLLOWERS.len()).all(|size| row.is_one(size))).collect();
    let micros = || rows.iter().flat_map(|row| line(row)).map(|(_, micros)| micros);
    let fastest = micros().fold(f64::INFINITY, f64::min);
    let slowest = micros().fold(0.0, f64::max);

    let mut svg = String::new();
    {
        let title = "Release: until the last of so many followers has its value";
        let area = canvas(&mut svg, 520, title)?;
        let (_, area) = area.split_vertically(44);
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(
                (first as f64..last as f64).log_scale().base(8.0),
                (fastest * 0.7..slowest * 1.4).log_scale(),
            )?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .axis_style(FLOOR)
            .label_style(text(13, INK))
            .x_desc("followers")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| {
                if *y < 1_000.0 {
                    format!("{y:.0} µs")
                } else {
                    format!("{:.0} ms", y / 1_000.0)
                }
            })
            .draw()?;
        let mut lines = LINES.into_iter().cycle();
        // Ours last, on top of the others.
        let mut order: Vec<_> = rows.iter().enumerate().collect();
        order.sort_by_key(|(i, row)| (row.name == SHARED_CALLS, *i));
        for (i, row) in order {
            let style = match row.name {
                SHARED_CALLS => OURS.stroke_width(4),
                LITERAL => MAIN.stroke_width(3),
                _ if i == 0 => FLOOR.stroke_width(2),
                _ => lines.next().expect("endless").stroke_width(2),
            };
            let points = line(row).into_iter().map(move |at| Circle::new(at, 3, style.filled()));
            chart.draw_series(points)?;
            chart
                .draw_series(LineSeries::new(line(row), style))?
                .label(row.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .label_font(text(13, INK))
            .legend_area_size(30)
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

fn canvas<'a>(
    svg: &'a mut String,
    height: i32,
    title: &str,
) -> Result<DrawingArea<SVGBackend<'a>, Shift>, Box<dyn Error>> {
    let area = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
    // Readable on a dark page, too.
    area.fill(&WHITE)?;
    area.draw(&Text::new(title, (20, 18), text(18, INK)))?;
    Ok(area)
}

fn text(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}
