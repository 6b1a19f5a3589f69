//! Template functions on numbers with a fraction, and on words.

use gtmpl_ng::{Func, NumberKind, Value};

use super::functions::{Outcome, error, int, take, text};

/// All functions of this file.
pub(super) const TABLE: &[(&str, Func)] = &[
    ("float64", |args| take(args).map(|[value]| float(value).into())),
    ("add1f", |args| take(args).map(|[value]| (float(value) + 1.0).into())),
    ("addf", |args| fold(args, |a, b| a + b)),
    ("subf", |args| fold(args, |a, b| a - b)),
    ("mulf", |args| fold(args, |a, b| a * b)),
    ("divf", |args| fold(args, |a, b| a / b)),
    ("maxf", |args| fold(args, f64::max)),
    ("minf", |args| fold(args, f64::min)),
    ("floor", |args| take(args).map(|[value]| float(value).floor().into())),
    ("ceil", |args| take(args).map(|[value]| float(value).ceil().into())),
    ("round", round),
    ("toDecimal", |args| {
        take(args).map(|[value]| i64::from_str_radix(&text(value), 8).unwrap_or(0).into())
    }),
    ("plural", |args| {
        take(args).map(|[one, many, count]| if int(count) == 1 { one } else { many }.clone())
    }),
    ("untitle", |args| take(args).map(|[value]| by_words(&text(value), lower).into())),
    ("initials", |args| take(args).map(|[value]| initials(&text(value)).into())),
    ("swapcase", |args| take(args).map(|[value]| swapped(&text(value)).into())),
    ("abbrev", |args| take(args).map(|[width, value]| abbreviated(int(width), text(value)).into())),
];

/// The number that a value is; what is none counts as 0.
fn float(value: &Value) -> f64 {
    match value {
        Value::Number(number) => match number.kind() {
            NumberKind::Float(number) => number,
            #[expect(clippy::cast_precision_loss, reason = "as in Go")]
            NumberKind::Signed(number) => number as f64,
            #[expect(clippy::cast_precision_loss, reason = "as in Go")]
            NumberKind::Unsigned(number) => number as f64,
        },
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        Value::String(text) => text.parse().unwrap_or(0.0),
        _ => 0.0,
    }
}

fn fold(args: &[Value], step: fn(f64, f64) -> f64) -> Outcome {
    let result = args.iter().map(float).reduce(step);
    match result {
        Some(result) if result.is_finite() => Ok(result.into()),
        _ => error("the result is not a number"),
    }
}

/// To so many places, a half upwards unless another border is given.
fn round(args: &[Value]) -> Outcome {
    let (value, places, border) = match args {
        [value, places] => (value, places, 0.5),
        [value, places, border] => (value, places, float(border)),
        _ => return error("round takes a number, how many places, and the border"),
    };
    let scale = 10_f64.powi(i32::try_from(int(places)).unwrap_or(i32::MAX));
    let scaled = float(value) * scale;
    let rounded = if scaled.fract() >= border { scaled.ceil() } else { scaled.floor() };
    let result = rounded / scale;
    if result.is_finite() { Ok(result.into()) } else { error("the result is not a number") }
}

/// Each first letter of a word changed.
fn by_words(value: &str, change: fn(char) -> String) -> String {
    let mut starts = true;
    let mut result = String::with_capacity(value.len());
    for character in value.chars() {
        if starts && !character.is_whitespace() {
            result.push_str(&change(character));
        } else {
            result.push(character);
        }
        starts = character.is_whitespace();
    }
    result
}

fn lower(character: char) -> String {
    character.to_lowercase().collect()
}

fn initials(value: &str) -> String {
    value.split_whitespace().filter_map(|word| word.chars().next()).collect()
}

fn swapped(value: &str) -> String {
    let swap = |character: char| -> String {
        if character.is_uppercase() {
            character.to_lowercase().collect()
        } else {
            character.to_uppercase().collect()
        }
    };
    value.chars().map(swap).collect()
}

/// The start of a text with `...`, so many bytes long together.
fn abbreviated(width: i64, value: String) -> String {
    let Some(width) = usize::try_from(width).ok().filter(|&width| width >= 4) else { return value };
    if value.len() <= width {
        return value;
    }
    let end = value.floor_char_boundary(width - 3);
    format!("{}...", value.get(..end).unwrap_or_default())
}
