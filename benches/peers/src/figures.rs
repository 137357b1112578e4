//! Figures as text, with as many digits as tell something.

pub fn nanos(nanos: f64) -> String {
    format!("{nanos:.0} ns")
}

pub fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 1_000.0 {
        format!("{micros:.0} µs")
    } else {
        format!("{:.1} ms", micros / 1_000.0)
    }
}

pub fn runs(runs: usize) -> String {
    let ending = if runs == 1 { "" } else { "s" };
    format!("{} run{ending}", thousands(runs as u64))
}

/// An average that is mostly a whole number.
pub fn count(n: f64) -> String {
    let n = (n * 10.0).round() / 10.0;
    format!("{n}")
}

pub fn percent(n: f64) -> String {
    if n == 0.0 {
        "0 %".to_owned()
    } else {
        format!("{n:.3} %")
    }
}

/// A ratio, or a count.
pub fn number(n: f64) -> String {
    let rounded = (n * 1_000.0).round() / 1_000.0;
    format!("{rounded}")
}

pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
