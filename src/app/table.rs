//! Aligned columns for people, and the words for times and sizes in them.

use std::io::IsTerminal;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// How the output may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub colours: bool,
    /// Lines are cut to this; `None` where a program reads them.
    pub width: Option<usize>,
}

impl Style {
    /// For standard output: colours and cut lines on a terminal only.
    pub fn of_stdout() -> Style {
        if !std::io::stdout().is_terminal() {
            return Style { colours: false, width: None };
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Style { colours: !set("NO_COLOR") && !dumb, width: Some(columns.unwrap_or(80).max(40)) }
    }

    pub fn paint(self, colour: Colour, text: &str) -> String {
        match colour {
            Colour::Plain => text.to_owned(),
            _ if !self.colours => text.to_owned(),
            Colour::Bold => format!("\x1b[1m{text}\x1b[0m"),
            Colour::Good => format!("\x1b[32m{text}\x1b[0m"),
            Colour::Warn => format!("\x1b[33m{text}\x1b[0m"),
            Colour::Bad => format!("\x1b[31m{text}\x1b[0m"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Bold,
    Good,
    Warn,
    Bad,
}

#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Row(Vec<(String, Colour)>),
    /// Text below a row, from the second column on.
    Below(String),
}

const GAP: usize = 2;

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), lines: Vec::new() }
    }

    /// One cell a column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Colour)>) {
        self.lines.push(Line::Row(cells.into_iter().map(|(text, colour)| (clean(&text), colour)).collect()));
    }

    /// Explains the row above.
    pub fn below(&mut self, text: &str) {
        self.lines.push(Line::Below(clean(text)));
    }

    /// The header and the rows, each line ended.
    pub fn render(&self, style: Style) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| name.len()).collect();
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, (text, _)) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(text.chars().count());
                }
            }
        }
        let header = self.columns.iter().map(|(name, _)| ((*name).to_owned(), Colour::Bold)).collect::<Vec<_>>();
        let mut out = self.line(&header, &widths, style);
        for line in &self.lines {
            match line {
                Line::Row(cells) => out += &self.line(cells, &widths, style),
                Line::Below(text) => {
                    let indent = widths.first().map_or(0, |width| width + GAP);
                    let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(indent));
                    out += &format!("{:indent$}{}\n", "", cut(text, room));
                }
            }
        }
        out
    }

    fn line(&self, cells: &[(String, Colour)], widths: &[usize], style: Style) -> String {
        let mut line = String::new();
        let mut column = 0;
        for (((text, colour), width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            if column > 0 {
                line.push_str("  ");
                column += GAP;
            }
            let room = style.width.map_or(usize::MAX, |whole| whole.saturating_sub(column));
            let text = cut(text, room.min(*width));
            let blanks = " ".repeat(width - text.chars().count());
            let text = style.paint(*colour, &text);
            match align {
                Align::Left => line += &(text + &blanks),
                Align::Right => line += &(blanks + &text),
            }
            column += width;
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept = text.chars().take(room.saturating_sub(1)).collect::<String>();
    if room == 0 { kept } else { kept + "…" }
}

/// Nothing that came from outside may move the cursor.
fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// The two largest units: `45s`, `3m 20s`, `1h 1m`, `2d 3h`.
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A short time with its unit: `0.4 ms`, `12 ms`, `1.5 s`.
pub fn short(duration: Duration) -> String {
    match duration.as_secs_f64() * 1e3 {
        millis @ ..10.0 => format!("{millis:.1} ms"),
        millis @ ..1000.0 => format!("{millis:.0} ms"),
        millis => format!("{:.1} s", millis / 1e3),
    }
}

/// `999 B`, `1.0 KiB`, `50 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / (1u64 << (10 * power)) as f64;
    if value < 10.0 { format!("{value:.1} {}", UNITS[power - 1]) } else { format!("{value:.0} {}", UNITS[power - 1]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> (String, Colour) {
        (text.to_owned(), Colour::Plain)
    }

    #[test]
    fn columns_are_aligned_and_cut() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COUNT", Align::Right), ("WHAT", Align::Left)]);
        table.row([cell("wéb"), cell("12"), cell("GET /a")]);
        table.below("a reason");
        table.row([cell("images"), cell("3"), (String::new(), Colour::Bad)]);
        let plain = Style { colours: false, width: None };
        assert_eq!(
            table.render(plain),
            "NAME    COUNT  WHAT\nwéb        12  GET /a\n        a reason\nimages      3\n"
        );
        let narrow = Style { width: Some(18), ..plain };
        assert_eq!(table.render(narrow), "NAME    COUNT  WH…\nwéb        12  GE…\n        a reason\nimages      3\n");
        let coloured = Style { colours: true, width: None };
        assert!(table.render(coloured).starts_with("\x1b[1mNAME\x1b[0m    \x1b[1mCOUNT\x1b[0m"));
    }

    #[test]
    fn nothing_moves_the_cursor() {
        let mut table = Table::new(&[("A", Align::Left)]);
        table.row([cell("\x1b[2J\r\n")]);
        assert_eq!(table.render(Style { colours: false, width: None }), "A\n\u{fffd}[2J\u{fffd}\u{fffd}\n");
    }

    #[test]
    fn times_and_sizes_have_units() {
        let ages = [0, 59, 60, 3661, 93_784, 900_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "59s", "1m 0s", "1h 1m", "1d 2h", "10d 10h"]);
        let times = [400, 1500, 12_300, 1_500_000].map(|micros| short(Duration::from_micros(micros)));
        assert_eq!(times, ["0.4 ms", "1.5 ms", "12 ms", "1.5 s"]);
        let sizes = [999, 1024, 52_428_800, u64::MAX].map(size);
        assert_eq!(sizes, ["999 B", "1.0 KiB", "50 MiB", "16 EiB"]);
    }
}
